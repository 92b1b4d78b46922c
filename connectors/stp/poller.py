"""Asks for orders that have had no final state for too long: the net under callbacks that were lost.

A payment's own process asks a few times and then waits for an operator. The poller goes on asking, ever more rarely,
and never with more than half of what STP answers in an hour. What it hears is told by the sweep, like a callback.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from connectors.stp.consults import ConsultBudget
from connectors.stp.dispatch import Clock, Dispatch, Look, alert, now
from connectors.stp.model import StpConfigurationError, TrackingKeyCollision
from connectors.stp.orders import OrderStore
from hub.statements import Statements
from hub.telemetry import logger
from hub.transfer import PaymentId

_AT_ONCE: Final = 20
_RAREST: Final = timedelta(hours=6)
_LOOKS: Final = 3
"""Questions that one look may need: no date, the date of sending, the next one."""

_DUE: Final = """
    SELECT o.payment_id, coalesce(p.asks, 0)
      FROM stp.stp_order o LEFT JOIN stp.poll p ON p.payment_id = o.payment_id
     WHERE o.state = 'PENDING' AND o.sending NOT IN ('REJECTED', 'NOT_SENT') AND o.claimed_at < %(before)s
       AND (p.next_at IS NULL OR p.next_at <= %(moment)s)
     ORDER BY coalesce(p.next_at, o.claimed_at), o.payment_id LIMIT %(limit)s
    """
# Of two workers that look at the same time, one gets the row.
_CLAIM: Final = """
    INSERT INTO stp.poll AS p (payment_id, asks, next_at) VALUES (%(payment_id)s, 1, %(next_at)s)
    ON CONFLICT (payment_id) DO UPDATE SET asks = p.asks + 1, next_at = excluded.next_at
     WHERE p.asks = %(asks)s AND p.next_at <= %(moment)s
    RETURNING 1
    """
_ALERT: Final = """
    UPDATE stp.poll p SET alerted_at = %(moment)s
      FROM stp.stp_order o
     WHERE o.payment_id = p.payment_id AND p.payment_id = %(payment_id)s AND p.alerted_at IS NULL
       AND o.state = 'PENDING' AND o.claimed_at < %(long_ago)s
    RETURNING 1
    """

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """When the poller asks."""

    first_after: timedelta
    """Since the order was sent; each pause after that is twice as long, up to six hours."""
    alert_after: timedelta = timedelta(hours=24)
    keep_percent: int = 50
    """What it leaves of the budget to payments that ask for themselves and to reconciliation."""


class Poller:
    """Asks for open orders of all tenants."""

    def __init__(
        self,
        *,
        database: Statements,
        orders: OrderStore,
        dispatch: Dispatch,
        budget: ConsultBudget,
        pace: Pace,
        clock: Clock = now,
    ) -> None:
        self._database = database
        self._orders = orders
        self._dispatch = dispatch
        self._budget = budget
        self._pace = pace
        self._clock = clock

    async def poll(self) -> int:
        """Ask for the orders that are due, the oldest first; how many were asked for. Raises `Unavailable`."""
        moment, asked = self._clock(), 0
        due = await self._database.rows(
            _DUE, {"before": moment - self._pace.first_after, "moment": moment, "limit": _AT_ONCE}
        )
        for payment_id, asks in due:
            asked += await self._ask(PaymentId(payment_id), asks)
        return asked

    async def _ask(self, payment_id: PaymentId, asks: int) -> bool:
        order = await self._orders.find(payment_id)
        if order is None or order.state.is_final:
            return False
        if await self._budget.left(order.company) < self._budget.share(self._pace.keep_percent) + _LOOKS:
            return False
        moment = self._clock()
        pause = min(self._pace.first_after * 2 ** min(asks, 20), _RAREST)
        given: dict[str, Any] = {
            "payment_id": payment_id,
            "asks": asks,
            "moment": moment,
            "next_at": moment + pause,
            "long_ago": moment - self._pace.alert_after,
        }
        if not await self._database.rows(_CLAIM, given):
            return False
        try:
            order, seen = await self._dispatch.look(order)
        except TrackingKeyCollision:  # people were alerted where it was found
            return True
        except StpConfigurationError as error:
            log.warning("poll.not-configured", payment_id=payment_id, cause=str(error))
            return False
        log.info("poll.asked", payment_id=payment_id, found=seen is Look.FOUND, state=order.state)
        if not order.state.is_final and await self._database.rows(_ALERT, given):
            alert("no-final-state", payment_id=payment_id, sending=order.sending)
        return True
