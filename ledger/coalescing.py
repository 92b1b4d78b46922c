"""Many small requests of one process become few statements: those that wait while others are under way go together.

    posts = Coalescer(one, many)
    outcome = await posts.do(item)

Nothing waits for company. A request that finds room goes at once and by itself; one that does not waits for a place and
goes with all that wait by then. So a quiet process answers as quickly as without this, and a busy one pays one commit,
one round trip and one visit to a hot row for a whole group. Nobody is answered before the commit; a process that dies
leaves only requests that nobody was answered for. A caller that is cancelled while it waits is never sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from hub.errors import Unavailable

MAX_GROUP: Final = 200
MAX_WAITING: Final = 2_000
MAX_UNDER_WAY: Final = 2
"""One group is sent while the one before it commits. More would only make the groups smaller."""

_WAIT_WITHIN: Final = 5.0

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Coalescer(Generic[Item, Outcome]):
    """`one` does an item by itself; `many` does a group and returns an outcome or an exception per item, in order.

    What `many` raises is raised to everybody in the group.
    """

    def __init__(
        self,
        one: Callable[[Item], Awaitable[Outcome]],
        many: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]],
        *,
        max_group: int = MAX_GROUP,
        max_waiting: int = MAX_WAITING,
        max_under_way: int = MAX_UNDER_WAY,
    ) -> None:
        self._one = one
        self._many = many
        self._max_group = max_group
        self._max_under_way = max_under_way
        self._room = asyncio.Semaphore(max_waiting)
        self._waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._under_way = 0
        self._groups: set[asyncio.Task[None]] = set()

    async def do(self, item: Item) -> Outcome:
        """Do the item, alone or in a group. Raises what doing it raises, and `Unavailable` when too many wait."""
        if self._under_way < self._max_under_way and not self._waiting:
            self._under_way += 1
            try:
                return await self._one(item)
            finally:
                self._ended()
        await self._take_room()
        try:
            answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self._waiting.append((item, answered))
            self._send()  # room may have come while we waited for a place
            return await answered
        finally:
            self._room.release()

    async def _take_room(self) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(_WAIT_WITHIN):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable("too many requests wait for the database") from None

    def _ended(self) -> None:
        self._under_way -= 1
        self._send()

    def _send(self) -> None:
        while self._waiting and self._under_way < self._max_under_way:
            group: list[tuple[Item, asyncio.Future[Outcome]]] = []
            while self._waiting and len(group) < self._max_group:
                item, answered = self._waiting.popleft()
                if not answered.done():  # cancelled: never sent
                    group.append((item, answered))
            if not group:
                return
            self._under_way += 1
            task = asyncio.get_running_loop().create_task(self._do_group(group))
            self._groups.add(task)
            task.add_done_callback(self._groups.discard)

    async def _do_group(self, group: Sequence[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        outcomes: Sequence[Outcome | Exception]
        try:
            if len(group) == 1:
                outcomes = [await self._one(group[0][0])]
            else:
                outcomes = await self._many([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            outcomes = [error] * len(group)
        except BaseException:
            for _, answered in group:
                answered.cancel()
            raise
        finally:
            self._ended()
        for (_, answered), outcome in zip(group, outcomes, strict=True):
            if answered.done():
                continue
            if isinstance(outcome, Exception):
                answered.set_exception(outcome)
            else:
                answered.set_result(outcome)
