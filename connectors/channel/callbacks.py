"""Tells outcomes to the address that the channel asked for: signed, repeated with back-off for three days (H5).

A callback is a row that was written together with the outcome. An attempt leases the row, sends, and writes down what
came of it; a crash in between costs one repetition, which the receiver recognises by `webhook-id`. Headers are those of
https://www.standardwebhooks.com. 2xx is delivered; 410 ends it at once; anything else, a redirect too, is tried again.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter as Tally
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import httpx
from prometheus_client import Counter
from standardwebhooks.webhooks import Webhook

from connectors.channel.addresses import Address, allowed, is_internal
from connectors.channel.settings import ChannelSettings
from connectors.channel.store import CallbackState, ChannelStore, DueCallback
from connectors.channel.wire import callback_body
from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.telemetry import logger
from hub.transfer import TenantId

_LONGEST_PAUSE: Final = timedelta(hours=4).total_seconds()
_LONGEST_ASKED: Final = timedelta(days=1).total_seconds()  # of a Retry-After

_attempts = Counter("payhub_channel_callbacks", "Attempts to tell an outcome.", ("result",))

log = logger(__name__)


class NotAllowed(Exception):
    """The address is not on the allow-list any more, or its name points somewhere it must not."""


class Callbacks:
    """The loop that tells outcomes. Several processes may run one each."""

    def __init__(self, store: ChannelStore, http: httpx.AsyncClient, settings: ChannelSettings) -> None:
        self._store, self._http, self._settings = store, http, settings
        self._wake = asyncio.Event()
        self._under_way: dict[asyncio.Task[None], TenantId] = {}

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
                        async with asyncio.timeout(self._settings.sweep_every):
                            await self._wake.wait()
        finally:
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=5)

    async def _start_due(self) -> bool:
        """Start what is due and fits; whether there may be more right now."""
        free = self._settings.callbacks_at_once - len(self._under_way)
        if free <= 0:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            return True
        share = max(1, self._settings.callbacks_at_once // 2)
        busy = [tenant for tenant, count in Tally(self._under_way.values()).items() if count >= share]
        try:
            found = await self._store.lease_callbacks(min(free, share), self._lease(), busy)
        except Unavailable:
            return False
        failpoint("channel.callback.after-lease")
        for due in found:
            task = asyncio.create_task(self._tell(due))
            self._under_way[task] = due.tenant_id
            task.add_done_callback(self._ended)
        return bool(found)

    def _lease(self) -> float:
        return self._settings.callback_timeout * 2 + 10

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._wake.set()

    async def _tell(self, due: DueCallback) -> None:
        state, answer, asked = await self._attempt(due)
        failpoint("channel.callback.after-send")
        pause = 0.0
        if state is CallbackState.DUE:
            pause = max(asked, self._pause(due.attempt))
            if datetime.now(UTC) + timedelta(seconds=pause) > due.created_at + timedelta(
                days=self._settings.callback_days
            ):
                state = CallbackState.GIVEN_UP
        _attempts.labels(answer if answer.isdigit() else "failed").inc()
        log.info(
            "callback.attempt",
            payment_id=due.transfer.payment_id,
            sequence=due.sequence,
            attempt=due.attempt,
            answer=answer,
            state=state.value,
        )
        with suppress(Unavailable):  # the lease runs out and it is told again
            await self._store.called(due, state, answer, pause)

    async def _attempt(self, due: DueCallback) -> tuple[CallbackState, str, float]:
        """The state that follows, what the receiver answered, and how many seconds it asked us to wait."""
        try:
            async with asyncio.timeout(self._settings.callback_timeout):
                answer = await self._post(due)
        except NotAllowed as refused:
            return CallbackState.REFUSED, str(refused), 0
        except TimeoutError:
            return CallbackState.DUE, "timeout", 0
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return CallbackState.DUE, type(error).__name__, 0
        if answer.is_success:
            return CallbackState.DELIVERED, str(answer.status_code), 0
        if answer.status_code == 410:
            return CallbackState.REFUSED, "410", 0
        asked = answer.headers.get("retry-after", "")
        return CallbackState.DUE, str(answer.status_code), min(float(asked), _LONGEST_ASKED) if asked.isdecimal() else 0

    async def _post(self, due: DueCallback) -> httpx.Response:
        """Send once. The address is checked again, and the connection goes to the very address that was checked."""
        if due.secret is None or not allowed(due.url, due.allow_list):
            raise NotAllowed("not on the allow-list")
        body = callback_body(due.transfer, due.recorded_at)
        message_id, now = f"{due.transfer.payment_id}-{due.sequence}", datetime.now(UTC)
        parts = urlsplit(due.url)
        request = self._http.build_request(
            "POST",
            httpx.URL(due.url).copy_with(host=await self._resolved(due.url)),
            content=body,
            headers={
                "host": parts.netloc,
                "content-type": "application/json",
                "webhook-id": message_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": Webhook(due.secret).sign(message_id, now, body),
            },
            extensions={"sni_hostname": parts.hostname},
        )
        failpoint("channel.callback.before-send")
        answer = await self._http.send(request, stream=True, follow_redirects=False)
        await answer.aclose()  # what it says beyond the status is nothing to us, however long it is
        return answer

    async def _resolved(self, url: str) -> str:
        """The IP address to connect to. A name that points into a private network is refused unless settings allow."""
        address = Address.parse(url)
        host = address.host.strip("[]")
        if address.is_literal and host != "localhost":
            return host
        found = await asyncio.get_running_loop().getaddrinfo(host, int(address.port), type=socket.SOCK_STREAM)
        ip = str(found[0][4][0])
        if is_internal(ip) and not (address.is_literal or self._settings.callback_internal):
            raise NotAllowed("the name points to an internal address")
        return ip

    def _pause(self, attempt: int) -> float:
        """Seconds before the next attempt: doubling, spread by a quarter either way."""
        pause = min(_LONGEST_PAUSE, self._settings.callback_first_pause * 2.0 ** min(attempt - 1, 30))
        return pause * random.uniform(0.75, 1.25)  # noqa: S311 (jitter)


@asynccontextmanager
async def open_callbacks(store: ChannelStore, settings: ChannelSettings) -> AsyncIterator[Callbacks]:
    """The loop with its HTTP client; proxies of the environment do not apply."""
    # Connections are not kept: the pool tells them apart by IP address, and two names may share one.
    limits = httpx.Limits(max_connections=settings.callbacks_at_once, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=settings.callback_timeout, limits=limits, trust_env=False) as http:
        yield Callbacks(store, http, settings)
