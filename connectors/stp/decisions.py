"""An operator's decision about an order that nobody could tell the end of, kept beside what STP said of it.

From then on STP's word is compared with it like with any other: a return after a payment that was decided settled is a
late return, and a settlement of one that was decided refused is a contradiction that a person must look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from connectors.stp.dispatch import Clock, alert, now
from connectors.stp.model import DecisionRecorded, OrderState, RecordDecision
from connectors.stp.orders import OrderStore
from connectors.stp.wire import outcome_of
from hub.jobs import handles
from hub.transfer import Outcome

STATE_DECIDED: Final[Mapping[Outcome, OrderState]] = {
    Outcome.SETTLED: OrderState.SETTLED,
    Outcome.RETURNED: OrderState.RETURNED,
    Outcome.CANCELLED: OrderState.CANCELLED,
    Outcome.REJECTED: OrderState.CANCELLED,
}


class DecisionWorker:
    """Does `stp.record-decision`."""

    def __init__(self, orders: OrderStore, clock: Clock = now) -> None:
        self._orders = orders
        self._clock = clock

    @handles(RecordDecision)
    async def record_decision(self, job: RecordDecision) -> DecisionRecorded:
        """Keep the decision, and hand on what counts: STP's own final word where there is one meanwhile."""
        decided = DecisionRecorded(outcome=job.outcome, reason=job.reason, reason_detail=job.reason_detail)
        state = STATE_DECIDED[job.outcome]
        observed = await self._orders.observe_decision(job.tenant_id, job.payment_id, job.outcome, state, self._clock())
        order = observed.order
        stands = OrderState.SETTLED if order.returned_late else order.state
        if stands is state:
            return decided
        alert("decision-overruled", payment_id=job.payment_id, decided=job.outcome, state=order.state)
        outcome, reason, detail = outcome_of(stands, order.cause)
        happened_at = order.settled_at_stp if order.returned_late else order.happened_at
        return DecisionRecorded(outcome=outcome, reason=reason, reason_detail=detail, happened_at=happened_at)
