"""Signed webhooks: told with back-off until the receiver took them, and only to addresses that may be called (H5).

Who tells something keeps it as a row beside what it tells, and is a `Desk`: an attempt leases the row, sends, and
writes down what came of it. A crash in between costs one repetition, which the receiver recognises by `webhook-id`.
Headers are those of https://www.standardwebhooks.com. 2xx is delivered; 410 ends it at once; anything else, a redirect
too, is tried again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
import socket
from collections import Counter as Tally
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx
from standardwebhooks.webhooks import Webhook

from hub.addresses import Address, allowed, is_internal
from hub.errors import Unavailable

_LONGEST_PAUSE: Final = timedelta(hours=4).total_seconds()
_LONGEST_ASKED: Final = timedelta(days=1).total_seconds()  # of a Retry-After
_PREFIX: Final = "whsec_"


class DeliveryState(Enum):
    """How the telling of one message stands."""

    DUE = "DUE"
    DELIVERED = "DELIVERED"
    REFUSED = "REFUSED"
    """The receiver said 410, or its address is not allowed any more."""
    GIVEN_UP = "GIVEN_UP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message to tell, leased to us for one attempt."""

    message_id: str
    """The same at each attempt; the receiver tells repeats by it."""
    receiver: str
    """Whom it goes to: one that is slow must not hold up the others."""
    url: str
    secret: str | None = field(repr=False)
    """What it is signed with; without one nothing is sent."""
    allow_list: tuple[Address, ...]
    attempt: int
    """The first is 1."""
    created_at: datetime


D = TypeVar("D", bound=Delivery)


@dataclass(frozen=True, slots=True)
class Told:
    """What came of an attempt."""

    state: DeliveryState
    answer: str
    """The HTTP status, or the kind of failure."""
    pause: float
    """Seconds until the next attempt, when it is still due."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How messages are told. Times in seconds unless said otherwise."""

    at_once: int
    """Messages under way at once; one receiver gets half of them at most."""
    look_every: float
    timeout: float
    """Within which a receiver must answer."""
    days: float
    """For which a message is tried."""
    first_pause: float
    """Before the second attempt; it doubles each time, up to four hours, with jitter."""
    internal: bool
    """Whether a host name on an allow-list may point to an address of a private network."""

    def pause(self, attempt: int) -> float:
        """Seconds before the next attempt: doubling, spread by a quarter either way."""
        pause = min(_LONGEST_PAUSE, self.first_pause * 2.0 ** min(attempt - 1, 30))
        return pause * random.uniform(0.75, 1.25)  # noqa: S311 (jitter)


class Desk(Protocol[D]):
    """Where messages wait to be told, and where it is written down how that went."""

    async def lease(self, count: int, seconds: float, busy: Sequence[str]) -> Sequence[D]:
        """Up to `count` messages whose time has come, none of the `busy` receivers'; ours for so many seconds.

        Raises `Unavailable`.
        """
        ...

    def body(self, due: D) -> str:
        """What is told, in JSON: the same text at each attempt. Asked for right before it is sent."""
        ...

    async def told(self, due: D, result: Told) -> None:
        """Write down what came of an attempt. Raises `Unavailable`: then the lease runs out and it is told again."""
        ...


class NotAllowed(Exception):
    """The address is not on the allow-list any more, or its name points somewhere it must not."""


class Teller(Generic[D]):
    """The loop that tells what waits at a desk. Several processes may run one each."""

    def __init__(self, desk: Desk[D], http: httpx.AsyncClient, pace: Pace) -> None:
        self._desk, self._http, self._pace = desk, http, pace
        self._wake = asyncio.Event()
        self._under_way: dict[asyncio.Task[None], str] = {}

    def look(self) -> None:
        """There may be something to tell: do not wait for the next look."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled: take what is due and send it."""
        try:
            while True:
                self._wake.clear()
                if not await self._start_due():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._pace.look_every):
                            await self._wake.wait()
        finally:
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=5)

    async def _start_due(self) -> bool:
        """Start what is due and fits; whether there may be more right now."""
        free = self._pace.at_once - len(self._under_way)
        if free <= 0:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            return True
        share = max(1, self._pace.at_once // 2)
        busy = [receiver for receiver, count in Tally(self._under_way.values()).items() if count >= share]
        try:
            found = await self._desk.lease(min(free, share), self._pace.timeout * 2 + 10, busy)
        except Unavailable:
            return False
        for due in found:
            task = asyncio.create_task(self._tell(due))
            self._under_way[task] = due.receiver
            task.add_done_callback(self._ended)
        return bool(found)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._wake.set()

    async def _tell(self, due: D) -> None:
        result = await self._attempt(due)
        if result.state is DeliveryState.DUE:
            pause, state = max(result.pause, self._pace.pause(due.attempt)), DeliveryState.DUE
            if datetime.now(UTC) + timedelta(seconds=pause) > due.created_at + timedelta(days=self._pace.days):
                state = DeliveryState.GIVEN_UP
            result = Told(state, result.answer, pause)
        with suppress(Unavailable):  # the lease runs out and it is told again
            await self._desk.told(due, result)

    async def _attempt(self, due: D) -> Told:
        """What the receiver answered, and how many seconds it asked us to wait."""
        try:
            async with asyncio.timeout(self._pace.timeout):
                answer = await self._post(due)
        except NotAllowed as refused:
            return Told(DeliveryState.REFUSED, str(refused), 0)
        except TimeoutError:
            return Told(DeliveryState.DUE, "timeout", 0)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Told(DeliveryState.DUE, type(error).__name__, 0)
        if answer.is_success:
            return Told(DeliveryState.DELIVERED, str(answer.status_code), 0)
        if answer.status_code == httpx.codes.GONE:
            return Told(DeliveryState.REFUSED, "410", 0)
        asked = answer.headers.get("retry-after", "")
        pause = min(float(asked), _LONGEST_ASKED) if asked.isdecimal() else 0
        return Told(DeliveryState.DUE, str(answer.status_code), pause)

    async def _post(self, due: D) -> httpx.Response:
        """Send once. The address is checked again, and the connection goes to the very address that was checked."""
        if due.secret is None or not allowed(due.url, due.allow_list):
            raise NotAllowed("not on the allow-list")
        ip = await _resolved(due.url, internal=self._pace.internal)
        body, now, parts = self._desk.body(due), datetime.now(UTC), urlsplit(due.url)
        request = self._http.build_request(
            "POST",
            httpx.URL(due.url).copy_with(host=ip),
            content=body,
            headers={
                "host": parts.netloc,
                "content-type": "application/json",
                "webhook-id": due.message_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": Webhook(due.secret).sign(due.message_id, now, body),
            },
            extensions={"sni_hostname": parts.hostname},
        )
        answer = await self._http.send(request, stream=True, follow_redirects=False)
        await answer.aclose()  # what it says beyond the status is nothing to us, however long it is
        return answer


async def _resolved(url: str, *, internal: bool) -> str:
    """The IP address to connect to. A name that points into a private network is refused unless `internal`."""
    address = Address.parse(url)
    host = address.host.strip("[]")
    if address.is_literal and host != "localhost":
        return host
    found = await asyncio.get_running_loop().getaddrinfo(host, int(address.port), type=socket.SOCK_STREAM)
    ip = str(found[0][4][0])
    if is_internal(ip) and not (address.is_literal or internal):
        raise NotAllowed("the name points to an internal address")
    return ip


@asynccontextmanager
async def open_teller(desk: Desk[D], pace: Pace) -> AsyncIterator[Teller[D]]:
    """The loop with its HTTP client; proxies of the environment do not apply."""
    # Connections are not kept: the pool tells them apart by IP address, and two names may share one.
    limits = httpx.Limits(max_connections=pace.at_once, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=pace.timeout, limits=limits, trust_env=False) as http:
        yield Teller(desk, http, pace)


def checked_secret(text: str) -> str:
    """The text when it can sign: `whsec_` and base64 of 24 to 64 bytes. Raises `ValueError`, which shows nothing."""
    try:
        size = len(base64.b64decode(text.removeprefix(_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        raise ValueError(f"must be {_PREFIX} and base64") from None
    if not 24 <= size <= 64:
        raise ValueError("must hold 24 to 64 bytes")
    return text
