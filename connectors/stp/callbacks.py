"""What a status callback does, from the inbox to the engine; used where it arrives, and by the sweep afterwards.

    store the raw body → read it → match its order and move its state → tell the engine

The first step is committed before the second, the third before the fourth; whatever breaks off in between is found in
the inbox, or as an order that the engine was not told of, and finished later. A repeat changes nothing at any step.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Counter, Gauge

from connectors.stp.dispatch import Clock, alert, now, report
from connectors.stp.model import OrderKind, OrderReturnedLate, OrderState, OrderStatusChanged, digest
from connectors.stp.orders import CallbackResult, OrderStore, Standing, Unhandled
from connectors.stp.wire import MalformedCallback, outcome_of, read_status
from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.messages import Engine
from hub.telemetry import logger

LEFT_ALONE: Final = timedelta(seconds=3)
"""How long the sweep leaves a callback to the process that received it."""

MARK_EVERY: Final = 0.25
"""Seconds; shorter than `LEFT_ALONE`, so that the sweep finds only what really was left."""

_callbacks = Counter("payhub_stp_callbacks", "Status callbacks by what became of them.", ("result",))
_untold = Gauge("payhub_stp_orders_untold", "Final states that the sweep found and the engine had not been told.")

log = logger(__name__)


def news_of(order: Standing) -> tuple[OrderStatusChanged | OrderReturnedLate, ...]:
    """What the engine must hear of an order in its present, final state.

    An order that was returned after it settled is settled for the payer's transfer, which may still wait for just this
    word; the return begins a process of its own.
    """
    if order.kind is OrderKind.RETURN:
        # A deposit that goes back: nobody's process waits for it, and what comes back of it is no payer's money.
        if order.state is not OrderState.SETTLED:
            alert("return-failed", payment_id=order.payment_id, state=order.state)
        return ()
    if not order.returned_late:
        return (_status_changed(order, order.state, order.observation, order.happened_at),)
    _, reason, detail = outcome_of(order.state, order.cause)
    late = OrderReturnedLate(
        payment_id=order.payment_id,
        tenant_id=order.tenant_id,
        purpose=order.purpose,
        return_reason=reason,
        return_detail=detail,
        returned_at=order.happened_at,
        observation=digest(order.payment_id, order.observation),
    )
    if order.told == order.settled_as:
        return (late,)
    return _status_changed(order, OrderState.SETTLED, order.settled_as, order.settled_at_stp), late


def _status_changed(
    order: Standing, state: OrderState, observation: str | None, happened_at: datetime | None
) -> OrderStatusChanged:
    outcome, reason, detail = outcome_of(state, order.cause)
    return OrderStatusChanged(
        payment_id=order.payment_id,
        outcome=outcome,
        reason=reason,
        reason_detail=detail,
        happened_at=happened_at,
        observation=digest(order.payment_id, observation),
    )


class Callbacks:
    """Handles stored callbacks and tells the engine."""

    def __init__(self, orders: OrderStore, engine: Engine, clock: Clock = now) -> None:
        self._orders = orders
        self._engine = engine
        self._clock = clock
        self._published: list[Standing] = []

    async def receive(self, body: bytes, publish_within: float) -> CallbackResult:
        """Store a callback, handle it, and try for `publish_within` seconds to tell the engine.

        Raises `Unavailable` when the callback could not be stored; once it is stored nothing raises.
        """
        failpoint("stp.order-status.before-store")
        kept = await self._orders.keep_callback(body, self._clock())
        failpoint("stp.order-status.after-store")
        if kept.result not in {None, CallbackResult.UNKNOWN_ORDER}:
            _callbacks.labels("repeat").inc()
            return kept.result
        try:
            async with asyncio.timeout(publish_within):
                return await self.handle(kept.id, body, known=kept.result is not None)
        except Exception as error:  # noqa: BLE001 (whatever it is, the callback is in the inbox and must be answered)
            log.warning("callback.left-to-sweep", callback_id=kept.id, cause=type(error).__name__)
            return CallbackResult.UNCHANGED

    async def handle(self, callback_id: int, body: bytes, *, known: bool = False) -> CallbackResult:
        """Read a stored callback, apply it, tell the engine. Raises `Unavailable`; handling it again is safe.

        `known`: it matched no order before, and people know of it already.
        """
        result, order = await self._applied(callback_id, body, known=known)
        if not (known and result is CallbackResult.UNKNOWN_ORDER):
            _callbacks.labels(result).inc()
        if order is not None:
            await self.tell(order)
        return result

    async def tell(self, order: Standing) -> None:
        """Tell the engine an order's state; that it was told is written down a little later."""
        await self._publish(order)
        self._published.append(order)

    async def _applied(self, callback_id: int, body: bytes, *, known: bool) -> tuple[CallbackResult, Standing | None]:
        """What became of a callback, and its order when the engine must be told."""
        try:
            notice = read_status(body)
        except MalformedCallback as error:
            await self._orders.close_callback(callback_id, CallbackResult.MALFORMED, self._clock())
            alert("malformed-callback", callback_id=callback_id, cause=str(error))
            return CallbackResult.MALFORMED, None
        observed = await self._orders.observe_callback(callback_id, notice, self._clock())
        failpoint("stp.order-status.after-commit")
        if observed is None:
            # It moves nothing, and it is never dropped (H4, L41).
            await self._orders.close_callback(callback_id, CallbackResult.UNKNOWN_ORDER, self._clock())
            if not known:
                alert("unknown-order", callback_id=callback_id, stp_id=notice.stp_id)
            return CallbackResult.UNKNOWN_ORDER, None
        report(observed, notice.word, unknown_status=notice.state is None, source="callback")
        if notice.state is None:
            return CallbackResult.UNKNOWN_STATUS, None
        if observed.conflict:
            return CallbackResult.CONFLICT, None
        # An inquiry may have seen the state first and told nobody: then this callback is the first who can.
        news = observed.order if observed.moved or observed.order.is_untold else None
        return (CallbackResult.MOVED if observed.moved else CallbackResult.UNCHANGED), news

    async def _publish(self, order: Standing) -> None:
        for news in news_of(order):
            await self._engine.publish(news)
        failpoint("stp.order-status.after-publish")

    async def mark(self) -> None:
        """Write down which states the engine has been told, many at once; until then a sweep may tell it again."""
        published, self._published = self._published, []
        if not published:
            return
        try:
            await self._orders.told(published)
        except Unavailable:
            self._published.extend(published)
            raise

    async def mark_for_ever(self) -> None:
        """The loop that runs beside the callbacks."""
        while True:
            await asyncio.sleep(MARK_EVERY)
            try:
                await self.mark()
            except Unavailable as error:
                log.warning("callback.mark-put-off", cause=str(error))

    async def sweep(self) -> None:
        """Finish what broke off: callbacks that were stored and not handled, states that the engine was not told."""
        moment = self._clock()
        before = moment - LEFT_ALONE
        for callback in await self._orders.unhandled_callbacks(before, moment):
            await self._finish(callback)
        await self.mark()
        untold = await self._orders.untold(before)
        _untold.set(len(untold))
        for order in untold:
            await self._publish(order)
        if untold:
            await self._orders.told(untold)

    async def _finish(self, callback: Unhandled) -> None:
        try:
            await self.handle(callback.id, callback.body, known=callback.known)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 (one callback that we cannot handle must not hold up the rest)
            alert("callback-not-handled", callback_id=callback.id, cause=type(error).__name__)
            await self._orders.close_callback(callback.id, CallbackResult.FAILED, self._clock())
