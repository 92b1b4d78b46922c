"""Telling Kafka of callbacks, those of the scheme that came and ours to channels, for the audit view.

Each change of a callback has a number, and its row remembers the one that was told. What was told is noted after Kafka
acknowledged: dying in between tells it again, with the same number. No callback and no payment waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, LiteralString, NamedTuple

from psycopg import AsyncConnection

from connectors.channel import callback_feed as to_channels
from connectors.stp import callback_feed as of_stp
from hub.failpoint import failpoint
from hub.settings import KafkaSettings, read
from hub.statements import Statements
from ledger.outbox import KafkaTopic, Publish, Told, tell_for_ever
from operations_app.settings import OperationsSettings, OperatorLogSettings

BATCH: Final = 500
"""Callbacks of one party told per round at most."""

_LOCK: Final = "SELECT pg_try_advisory_lock(7208)"
_UNLOCK: Final = "SELECT pg_advisory_unlock(7208)"


class _Feed(NamedTuple):
    """Whose callbacks they are, and how they are asked for and marked."""

    party: str
    waiting: LiteralString
    told: LiteralString


FEEDS: Final = (
    _Feed("stp", of_stp.WAITING, of_stp.TOLD),
    _Feed("channel", to_channels.WAITING, to_channels.TOLD),
)


class CallbackMirror:
    """Tells what changed and was not told yet. Any number of them may run; one at a time does something."""

    def __init__(self, database: Statements, publish: Publish, *, batch: int = BATCH) -> None:
        self._database, self._publish, self._batch = database, publish, batch

    async def tell(self) -> int:
        """Tell one batch of each party and say how many there were. Raises `Unavailable`, and what `publish` raises."""
        async with self._database.connection() as connection:
            locked = await (await connection.execute(_LOCK)).fetchone()
            if locked != (True,):
                return 0
            try:
                return sum([await self._tell(connection, feed) for feed in FEEDS])
            finally:
                if not connection.closed:
                    await connection.execute(_UNLOCK)

    async def _tell(self, connection: AsyncConnection[tuple[object, ...]], feed: _Feed) -> int:
        rows = await (await connection.execute(feed.waiting, {"limit": self._batch})).fetchall()
        waiting = [Told(int(str(row[0])), f"{feed.party}.callback", str(row[1]), str(row[2]).encode()) for row in rows]
        if waiting:
            await self._publish(waiting)
            failpoint("operations.callback-mirror.after-acknowledgement")
            await connection.execute(feed.told, {"changes": [one.outbox_id for one in waiting]})
        return len(waiting)


@asynccontextmanager
async def callback_loops(
    connectors: Statements, settings: OperationsSettings, kafka: KafkaSettings
) -> AsyncIterator[Sequence[Callable[[], Awaitable[None]]]]:
    """The loop beside the operations API, where it is known where Kafka is. `connectors`: may write their tables."""
    if kafka.bootstrap_servers is None:
        yield ()
        return
    topic = KafkaTopic(kafka.bootstrap_servers, settings.callback_topic, {"retention.ms": "-1"})
    try:
        every = read(OperatorLogSettings).mirror_every
        yield [partial(tell_for_ever, CallbackMirror(connectors, topic.publish), every)]
    finally:
        await topic.close()
