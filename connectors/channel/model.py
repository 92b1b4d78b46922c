"""The channel's words inside the hub: the message that starts a payment and the two jobs that concern the channel."""

from __future__ import annotations

from typing import ClassVar

from hub.jobs import Job, Result
from hub.messages import Message
from hub.transfer import Outcome, Party, PaymentId, Reason, TenantId


class PaymentAccepted(Message):
    """A payment was accepted and committed; the payer's process may begin. A repeat starts nothing."""

    message_name: ClassVar[str] = "channel.payment-accepted"

    payment_id: PaymentId
    tenant_id: TenantId
    amount: int
    """Minor units."""
    currency: str
    payer: Party
    payee: Party
    concept: str
    """What the payee reads; may be empty."""
    reference_number: int | None
    """The number the payer gave the payment, up to seven digits."""

    @property
    def correlation_key(self) -> str:
        return self.payment_id

    @property
    def message_id(self) -> str:
        return self.payment_id


class Claimed(Result):
    """Whether another process instance has this payment already."""

    duplicate: bool


class ClaimPayment(Job[Claimed]):
    """The fence: one process instance runs a payment, any other ends as a duplicate. Safe to run twice."""

    job_type: ClassVar[str] = "channel.claim-payment"

    payment_id: PaymentId
    tenant_id: TenantId


class RecordOutcome(Job[Result]):
    """Write down how the payment ended and let the channel know (H5). Safe to run twice.

    UNKNOWN may become a final outcome. A final one never changes, except that what settled may be returned, even months
    later (L21, L22).
    """

    job_type: ClassVar[str] = "channel.record-outcome"

    payment_id: PaymentId
    tenant_id: TenantId
    outcome: Outcome
    reason: Reason
    reason_detail: str | None = None


class AcceptLinkedPayment(Job[Result]):
    """Accept a payment that an operator's action makes, as if it had been handed in. Safe to run twice.

    Its id is derived from the action, and so is the key under which the channel knows it.
    """

    job_type: ClassVar[str] = "channel.accept-linked-payment"
    attempts: ClassVar[int] = 960  # some fifteen hours: no action of an operator repairs an operator's action

    linked_payment_id: PaymentId
    tenant_id: TenantId
    payer: Party
    payee: Party
    amount: int
    """Minor units."""
    currency: str
    concept: str
