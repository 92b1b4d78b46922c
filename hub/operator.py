"""What an operator can tell a payment that waits for a decision (H3, H6)."""

from __future__ import annotations

from typing import ClassVar, Literal

from hub.messages import Message
from hub.transfer import Outcome, PaymentId, Reason


class OutcomeDecided(Message):
    """An operator decides a payment whose outcome nobody else could tell. Only final outcomes can be decided."""

    message_name: ClassVar[str] = "operator.outcome-decided"

    payment_id: PaymentId
    outcome: Literal[Outcome.SETTLED, Outcome.REJECTED, Outcome.RETURNED, Outcome.CANCELLED]
    reason: Reason = Reason.OPERATOR
    reason_detail: str

    @property
    def correlation_key(self) -> str:
        return self.payment_id

    @property
    def message_id(self) -> str:
        return f"{self.payment_id}:{self.outcome}"
