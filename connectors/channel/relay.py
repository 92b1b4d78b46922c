"""Hands accepted payments to the engine, right after their commit or later.

The row is the truth; what the accepting process keeps in memory is a hint that saves the latency of looking. It is
handed over in the same process: no round trip, no row read back, no notification that could be lost. Whatever a crash,
a full queue or an engine that is away leaves behind, any relay finds by `publish_after`, which is a lease: rows are
taken with SKIP LOCKED, so several processes share the work. Publishing twice is harmless, since the engine knows the
payment's id and the first job fences a second instance.

The engine gets a bounded window of payments that it has not begun (claimed) yet. When it is overloaded the window stays
full and the table grows: nothing is lost, nothing is refused, and the engine is spared. Payments that it never begins
leave the window after a while, so that a few stuck ones cannot stop all others.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import suppress
from typing import Final

from prometheus_client import Counter, Gauge

from connectors.channel.model import PaymentAccepted
from connectors.channel.settings import ChannelSettings
from connectors.channel.store import ChannelStore
from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.messages import Engine, Published
from hub.telemetry import logger
from hub.transfer import PaymentId

_MOST_WAITING: Final = 200  # payments kept in memory; the others are left to the table
_LONGEST_PAUSE: Final = 2.0
_SETTLE_EVERY: Final = 0.25

_published = Counter("payhub_channel_published", "Payments handed to the engine.", ("result",))
_waiting = Gauge("payhub_channel_waiting", "Accepted payments in this process that the engine was not given yet.")
_open = Gauge("payhub_channel_window_open", "Payments that the engine was given and has not begun.")

log = logger(__name__)


class Relay:
    """One per process. `run` is the loop; `hand_over` is called after a commit."""

    def __init__(self, store: ChannelStore, engine: Engine, settings: ChannelSettings) -> None:
        self._store, self._engine, self._settings = store, engine, settings
        self._queue: deque[PaymentAccepted] = deque()
        self._wake = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._to_settle: list[PaymentId] = []
        self._settling = asyncio.Lock()
        self._open = 0
        self._failures = 0
        self._running = False

    def lease(self) -> float:
        """Seconds for which a payment committed now stays with us: none when we could not publish it soon."""
        return self._settings.lease if self._running and len(self._queue) < _MOST_WAITING else 0

    def hand_over(self, payment: PaymentAccepted) -> None:
        """Publish this payment as soon as there is room. It must be committed."""
        if self._running and len(self._queue) < _MOST_WAITING:
            self._queue.append(payment)
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled: publish, sweep, and keep the count of the window right."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publish_for_ever())
                group.create_task(self._sweep_for_ever())
                group.create_task(self._settle_for_ever())
        finally:
            self._running = False
            await self._leave()

    async def _publish_for_ever(self) -> None:
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            await self._room()
            if not self._queue:
                continue
            payment = self._queue.popleft()
            self._open += 1
            task = asyncio.create_task(self._publish(payment))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            _waiting.set(len(self._queue))

    async def _room(self) -> None:
        """Return when the window has room. After a failure one payment at a time tries whether the engine is back."""
        if self._failures:
            await self._idle()
            pause = min(_LONGEST_PAUSE, 0.05 * 2 ** min(self._failures, 10))
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 (jitter)
        pause = 0.01
        while self._open >= self._settings.window:
            await self._settle()
            if self._open >= self._settings.window:
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 (jitter)
                pause = min(0.1, pause * 2)

    async def _idle(self) -> None:
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _publish(self, payment: PaymentAccepted) -> None:
        failpoint("channel.relay.before-publish")
        try:
            result = await self._engine.publish(payment)
        except Unavailable as error:
            self._failures += 1
            self._open -= 1
            self._queue.appendleft(payment)
            self._wake.set()
            _published.labels("unavailable").inc()
            if self._failures == 1:
                log.warning("relay.engine-away", cause=str(error))
        except Exception as error:  # noqa: BLE001 (one payment that cannot be published must not stop the others)
            # It stays in the table and is tried again when its lease is over.
            self._open -= 1
            _published.labels("refused").inc()
            log.error("relay.refused", payment_id=payment.payment_id, error=type(error).__name__)  # noqa: TRY400
        else:
            failpoint("channel.relay.after-publish")
            if self._failures:
                log.info("relay.engine-back", waiting=len(self._queue))
            self._failures = 0
            self._to_settle.append(payment.payment_id)
            _published.labels("new" if result is Published.NEW else "already-there").inc()

    async def _settle(self) -> None:
        """Note what was published, and learn how much of the window is taken, in one statement."""
        async with self._settling:
            noted, self._to_settle = self._to_settle, []
            settings = self._settings
            try:
                waiting = await self._store.settle(
                    noted, settings.publish_again_after, settings.window_age, settings.window
                )
            except Unavailable:
                self._to_settle = noted + self._to_settle
                await asyncio.sleep(_SETTLE_EVERY)
                return
            self._open = waiting + len(self._to_settle) + len(self._under_way)
            _open.set(self._open)

    async def _settle_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SETTLE_EVERY)
            if self._to_settle:
                await self._settle()

    async def _sweep_for_ever(self) -> None:
        """Take what nobody has in hand, while we have room for it."""
        count = self._settings.window
        while True:
            full = False
            if len(self._queue) < count and not self._failures:
                with suppress(Unavailable):
                    found = await self._store.lease_overdue(count, self._settings.lease)
                    failpoint("channel.relay.after-lease")
                    self._take(found)
                    full = len(found) == count
            await asyncio.sleep(0.02 if full else self._settings.sweep_every)

    def _take(self, found: list[PaymentAccepted]) -> None:
        here = {payment.payment_id for payment in self._queue}
        self._queue.extendleft(payment for payment in reversed(found) if payment.payment_id not in here)
        if self._queue:
            self._wake.set()

    async def _leave(self) -> None:
        """Let what is under way end, note it, and hand the rest back so that others need not wait for the leases."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=2)
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(2):
                if self._to_settle:
                    await self._settle()
                if self._queue:
                    await self._store.hand_back([payment.payment_id for payment in self._queue])
        self._queue.clear()
