"""Our words for what STP does: its jobs and messages, the refusals, and the states an order can be in."""

from __future__ import annotations

import hashlib
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Final, Literal

from pydantic import Field

from hub.errors import Rejected
from hub.jobs import Job, Result
from hub.messages import Message
from hub.transfer import Outcome, Party, PaymentId, Reason, TenantId

# --- Refusals: a certain no, before anything moved ------------------------------------------------------------------


class OrderRejected(Rejected):
    """STP, or a rule of STP's that we check ourselves, refuses the order for good."""

    reason = Reason.SCHEME_REJECTED


class AccountUnknown(Rejected):
    """The account does not exist or cannot be one: wrong length, check digit or institution."""

    reason = Reason.ACCOUNT_UNKNOWN


class ComplianceRefused(Rejected):
    """STP's money-laundering rules refuse the order (its error -200)."""

    reason = Reason.COMPLIANCE


class StpConfigurationError(Exception):
    """STP does not accept our signature, certificate or company, or a setting is missing: no payment can pass.

    It is no refusal of this payment, so it becomes an incident at once and nothing is released.
    """


class TrackingKeyCollision(Exception):
    """STP holds an order under our tracking key whose amount or account is not ours. Only a person can tell why."""


class GivenBackAlready(Exception):
    """Another payment gives this very deposit back, or has done so. A deposit goes back once."""


# --- States ---------------------------------------------------------------------------------------------------------


class OrderState(StrEnum):
    """What became of an order that STP has."""

    PENDING = "PENDING"
    SETTLED = "SETTLED"
    RETURNED = "RETURNED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Settled counts as final although a return may still follow, even months later."""
        return self is not OrderState.PENDING

    def can_become(self, later: OrderState) -> bool:
        """Whether hearing `later` changes anything: states have a rank, whatever the order in which they arrive."""
        return later in _MOVES[self]

    @classmethod
    def before(cls, later: OrderState) -> tuple[OrderState, ...]:
        """The states that `later` may follow."""
        return tuple(state for state in cls if state.can_become(later))

    def contradicts(self, other: OrderState) -> bool:
        """Cancelled means the money never left; settled and returned mean that it did. Both cannot be true."""
        return {self, other} in _CONTRADICTIONS


_MOVES: Final[dict[OrderState, frozenset[OrderState]]] = {
    OrderState.PENDING: frozenset({OrderState.SETTLED, OrderState.RETURNED, OrderState.CANCELLED}),
    OrderState.SETTLED: frozenset({OrderState.RETURNED}),
    OrderState.RETURNED: frozenset(),
    OrderState.CANCELLED: frozenset(),
}
_CONTRADICTIONS: Final = (
    {OrderState.CANCELLED, OrderState.SETTLED},
    {OrderState.CANCELLED, OrderState.RETURNED},
)


class OrderKind(StrEnum):
    """What an order of ours is for."""

    ORDER = "order"
    """A payment."""
    RETURN = "return"
    """A deposit that goes back to its sender."""


class OrderPurpose(StrEnum):
    """Whose money an order moves; it decides who must hear when the money comes back after it settled."""

    PAYMENT = "payment"
    """A customer's."""
    DISBURSEMENT = "disbursement"
    """The tenant's own: it pays a store."""


class SendOutcome(StrEnum):
    """What one attempt to send an order came to."""

    NOT_SENT = "NOT_SENT"
    """Nothing reached STP: no connection, or the gateway in front of it turned us away."""
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    ALREADY_REGISTERED = "ALREADY_REGISTERED"
    """STP has an order with this tracking key: ask, and adopt it."""
    CONFIG_ERROR = "CONFIG_ERROR"
    RETRYABLE = "RETRYABLE"
    """STP answered that it takes no orders for the moment; the same order may be sent again."""
    UNKNOWN = "UNKNOWN"
    """It was sent, and nothing certain came back."""


class Sending(StrEnum):
    """Where an order stands between us and STP, all attempts together."""

    CLAIMED = "CLAIMED"
    """About to be sent, or sent, by somebody who has not said how it went."""
    NOT_SENT = "NOT_SENT"
    """Certainly not at STP: it may be sent without looking."""
    UNKNOWN = "UNKNOWN"
    """Perhaps at STP: look first."""
    REGISTERED = "REGISTERED"
    """STP says it has the key, and has not shown us the order yet."""
    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    """STP said no in a way that must be verified by an inquiry before it is believed."""
    REJECTED = "REJECTED"

    @property
    def in_doubt(self) -> bool:
        return self in {Sending.CLAIMED, Sending.UNKNOWN}


# --- Jobs -----------------------------------------------------------------------------------------------------------


class SentState(StrEnum):
    """What the process is told about a sent order."""

    ACCEPTED = "ACCEPTED"
    UNKNOWN = "UNKNOWN"


class OrderSent(Result):
    """The order is at STP, or may be. The two durations (ISO 8601) are the process's timers."""

    order_state: SentState
    inquire_after: str
    inquire_again_after: str
    inquiries: int = 0


class SendOrder(Job[OrderSent]):
    """Send a payment over STP. Safe to run twice: the tracking key comes from the payment, and a repeat looks first."""

    job_type: ClassVar[str] = "stp.send-order"
    rejections = (OrderRejected, AccountUnknown, ComplianceRefused)
    timeout: ClassVar[timedelta] = timedelta(seconds=60)
    attempts: ClassVar[int] = 60
    """About an hour of STP being away before an operator sees an incident; nothing is lost meanwhile."""

    payment_id: PaymentId
    tenant_id: TenantId
    amount: int
    """Minor units."""
    currency: str
    payer: Party | None
    """None, which must be said: the tenant itself pays, under the name it has at STP."""
    payee: Party
    concept: str = ""
    reference_number: int | None = None
    """1 to 9999999; derived from the payment's id when the channel gave none."""
    purpose: OrderPurpose = OrderPurpose.PAYMENT


class DepositReturned(Result):
    """STP has taken the deposit back."""

    return_tracking_key: str
    """The key of the transfer back, which is another than the deposit's."""


class ReturnDeposit(Job[DepositReturned]):
    """Give an incoming transfer back to its sender (`retornaOrden`), once, whoever asks and however often.

    Without a certain answer the job fails as `Uncertain` and its next attempt looks first.
    """

    job_type: ClassVar[str] = "stp.return-deposit"
    rejections = (OrderRejected,)
    timeout: ClassVar[timedelta] = timedelta(seconds=60)

    payment_id: PaymentId
    """The deposit's id with us; the tracking key of the transfer back is derived from it."""
    tenant_id: TenantId
    amount: int
    """Minor units."""
    currency: str
    sender_institution: int
    deposit_tracking_key: str
    """As the sending bank chose it."""
    operation_date: date
    """The deposit's."""


class Inquired(Result):
    """What STP says about an order; without an outcome it is still open."""

    outcome: Outcome | None
    reason: Reason
    reason_detail: str | None
    happened_at: datetime | None = None
    """When, as STP says."""
    inquiries: int


class InquireOrder(Job[Inquired]):
    """Ask STP what became of an order. Not found is no failure: an order takes its time to show up."""

    job_type: ClassVar[str] = "stp.inquire-order"
    timeout: ClassVar[timedelta] = timedelta(seconds=60)

    payment_id: PaymentId
    tenant_id: TenantId
    inquiries: int = 0
    """How often this was asked before."""


class DecisionRecorded(Result):
    """What counts: the decision, or STP's own word that came meanwhile."""

    outcome: Outcome
    reason: Reason
    reason_detail: str | None
    happened_at: datetime | None = None
    """When, as STP says, whose word that is."""


class RecordDecision(Job[DecisionRecorded]):
    """An operator decided an order whose end nobody could tell. STP's own final word, come meanwhile, counts more."""

    job_type: ClassVar[str] = "stp.record-decision"

    payment_id: PaymentId
    tenant_id: TenantId
    outcome: Literal[Outcome.SETTLED, Outcome.REJECTED, Outcome.RETURNED, Outcome.CANCELLED]
    reason: Reason
    reason_detail: str | None = None


class DepositClaimed(Result):
    """Whether another process instance has this deposit already."""

    duplicate: bool


class ClaimDeposit(Job[DepositClaimed]):
    """The fence: one process instance credits a deposit, any other ends as a duplicate. Safe to run twice."""

    job_type: ClassVar[str] = "stp.claim-deposit"

    payment_id: PaymentId
    tenant_id: TenantId


class ConfirmDeposit(Job[Result]):
    """The deposit is on the payee's account: STP is, or was, told to keep it so."""

    job_type: ClassVar[str] = "stp.confirm-deposit"

    payment_id: PaymentId
    tenant_id: TenantId


class DepositRefused(Result):
    """How the sender gets the money back."""

    cause: int
    """The scheme's number for the reason."""
    give_back: bool
    """STP was told to keep the money before this was known, so it must be given back by a transfer of our own."""


class RefuseDeposit(Job[DepositRefused]):
    """The account cannot take the deposit: answer STP with the cause while it still waits for the answer."""

    job_type: ClassVar[str] = "stp.refuse-deposit"

    payment_id: PaymentId
    tenant_id: TenantId
    payee: Party
    reason: Reason
    reason_detail: str | None = None


# --- The message ----------------------------------------------------------------------------------------------------


class OrderStatusChanged(Message):
    """STP told what became of an order."""

    message_name: ClassVar[str] = "stp.order-status-changed"

    payment_id: PaymentId
    outcome: Outcome
    reason: Reason
    reason_detail: str | None
    happened_at: datetime | None = None
    """When, as STP says; it does not always."""
    observation: str = Field(exclude=True)
    """The digest of what was observed; the same for each repeat."""

    @property
    def correlation_key(self) -> str:
        return self.payment_id

    @property
    def message_id(self) -> str:
        return self.observation


class DepositArrived(Message):
    """Money arrived for a customer of a tenant; the payee's process begins. A repeat starts nothing."""

    message_name: ClassVar[str] = "stp.deposit-arrived"

    payment_id: PaymentId
    """Derived from sender, tracking key and operation date, so a deposit has one id for ever."""
    tenant_id: TenantId
    amount: int
    """Minor units."""
    currency: str
    payer: Party | None
    """Absent where STP did not say who sent it."""
    payee: Party
    concept: str
    reference_number: int | None
    sender_institution: int
    deposit_tracking_key: str
    operation_date: date
    try_again_after: str = "P1D"
    """ISO 8601: when giving the deposit back is tried again after STP refused it."""

    @property
    def correlation_key(self) -> str:
        return self.payment_id

    @property
    def message_id(self) -> str:
        return self.payment_id


class OrderReturnedLate(Message):
    """STP gave an order's money back after it had settled, perhaps months later: a process of its own begins."""

    message_name: ClassVar[str] = "stp.order-returned-late"

    payment_id: PaymentId
    tenant_id: TenantId
    purpose: OrderPurpose = OrderPurpose.PAYMENT
    return_reason: Reason
    return_detail: str | None
    returned_at: datetime | None = None
    """When, as STP says; it does not always."""
    try_again_after: str = "P1D"
    """ISO 8601: when crediting the payer is tried again after the account system refused it."""
    observation: str = Field(exclude=True)
    """The digest of what was observed; the same for each repeat."""

    @property
    def correlation_key(self) -> str:
        return self.payment_id

    @property
    def message_id(self) -> str:
        return self.observation


def digest(*parts: object) -> str:
    """One short text that is the same for the same parts, and for no others."""
    return hashlib.sha256("\x1f".join("" if part is None else str(part) for part in parts).encode()).hexdigest()[:40]
