"""Tells outcomes to the address that the channel asked for: signed, repeated with back-off for three days (H5).

A callback is a row that was written together with the outcome; `hub.webhook` says how it is told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from prometheus_client import Counter

from connectors.channel.settings import ChannelSettings
from connectors.channel.store import ChannelStore, DueCallback
from connectors.channel.wire import callback_body
from hub.failpoint import failpoint
from hub.telemetry import logger
from hub.webhook import Pace, Teller, Told, open_teller

_attempts = Counter("payhub_channel_callbacks", "Attempts to tell an outcome.", ("result",))

log = logger(__name__)

Callbacks: TypeAlias = Teller[DueCallback]
"""The loop that tells outcomes. Several processes may run one each."""


class _Outcomes:
    """The channel's callbacks as `hub.webhook` sees them."""

    def __init__(self, store: ChannelStore) -> None:
        self._store = store

    async def lease(self, count: int, seconds: float, busy: Sequence[str]) -> Sequence[DueCallback]:
        found = await self._store.lease_callbacks(count, seconds, busy)
        failpoint("channel.callback.after-lease")
        return found

    def body(self, due: DueCallback) -> str:
        failpoint("channel.callback.before-send")
        return callback_body(due.transfer, due.recorded_at)

    async def told(self, due: DueCallback, result: Told) -> None:
        failpoint("channel.callback.after-send")
        _attempts.labels(result.answer if result.answer.isdigit() else "failed").inc()
        log.info(
            "callback.attempt",
            payment_id=due.transfer.payment_id,
            sequence=due.sequence,
            attempt=due.attempt,
            answer=result.answer,
            state=result.state.value,
        )
        await self._store.called(due, result)


@asynccontextmanager
async def open_callbacks(store: ChannelStore, settings: ChannelSettings) -> AsyncIterator[Callbacks]:
    """The loop with its HTTP client."""
    pace = Pace(
        at_once=settings.callbacks_at_once,
        look_every=settings.sweep_every,
        timeout=settings.callback_timeout,
        days=settings.callback_days,
        first_pause=settings.callback_first_pause,
        internal=settings.callback_internal,
    )
    async with open_teller(_Outcomes(store), pace) as teller:
        yield teller
