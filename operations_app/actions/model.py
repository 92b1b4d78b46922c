"""The words of actions: kinds and states, the jobs and messages of operator-action.bpmn."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Final

from hub.jobs import Job, Result
from hub.messages import Message
from hub.operator import OutcomeDecided
from hub.transfer import Outcome, Party, PaymentId, TenantId


class Kind(StrEnum):
    """What an operator can ask for."""

    RETRY = "retry"
    """Try again what failed, with all its tries."""
    RESOLVE_INCIDENT = "resolve-incident"
    """The same for one incident."""
    MANUAL_OVERRIDE = "manual-override"
    """Change variables that may be changed, then retry if asked to."""
    FORCE_COMPLETE = "force-complete"
    """Go on past the place where it is stuck, with the outcome that the operator states."""
    FORCE_FAIL = "force-fail"
    """Take the drawn failure path; a hold is freed."""
    CANCEL = "cancel"
    """End a payment of which nothing was done yet."""
    RECALL = "recall"
    """Ask a settled outgoing payment back, or a part of it."""
    REFUND = "refund"
    """Give incoming money back to its sender, or a part of it."""


class State(StrEnum):
    """How an action stands."""

    REQUESTED = "REQUESTED"
    APPROVED = "APPROVED"
    CARRYING_OUT = "CARRYING_OUT"
    CONFIRMED = "CONFIRMED"
    """The engine's own records show it."""
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    WITHDRAWN = "WITHDRAWN"
    EXPIRED = "EXPIRED"

    @property
    def is_final(self) -> bool:
        return self not in OPEN


OPEN: Final = frozenset({State.REQUESTED, State.APPROVED, State.CARRYING_OUT})

GIVING_BACK: Final = frozenset({Kind.RECALL, Kind.REFUND})
"""Actions that move money back; all of a payment's together never come to more than it."""

STATING: Final = frozenset({Kind.FORCE_COMPLETE, Kind.FORCE_FAIL, Kind.CANCEL})
"""Actions after which the payment has an outcome."""


class ReasonCode(StrEnum):
    """Why an operator acts; the reason text says the rest."""

    CUSTOMER_REQUEST = "customer-request"
    CAUSE_REPAIRED = "cause-repaired"
    CONFIRMED_BY_RAIL = "confirmed-by-rail"
    TECHNICAL_FAILURE = "technical-failure"
    DUPLICATE = "duplicate"
    WRONG_BENEFICIARY = "wrong-beneficiary"
    FRAUD_SUSPECTED = "fraud-suspected"
    OTHER = "other"


class Decision(StrEnum):
    """What became of a request that waited for approvals."""

    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    WITHDRAWN = "WITHDRAWN"
    EXPIRED = "EXPIRED"


# --- Messages -------------------------------------------------------------------------------------------------------


class ActionRequested(Message):
    """An action was asked for and committed; its process begins. A repeat starts nothing."""

    message_name: ClassVar[str] = "operations.action-requested"

    action_id: str
    tenant_id: TenantId
    payment_id: PaymentId
    kind: Kind
    approvals_needed: int
    expires_after: str
    """ISO 8601: how long it waits for its approvals."""
    look_for_money_after: str
    """ISO 8601: how often a recall looks whether the money came back."""

    @property
    def correlation_key(self) -> str:
        return self.action_id

    @property
    def message_id(self) -> str:
        return self.action_id


class ActionDecided(Message):
    """A request has its approvals, or will never have them."""

    message_name: ClassVar[str] = "operations.action-decided"

    action_id: str
    decision: Decision

    @property
    def correlation_key(self) -> str:
        return self.action_id

    @property
    def message_id(self) -> str:
        return f"{self.action_id}:decided"


class RecallAnswered(Message):
    """An operator noted what the receiving bank answered to a recall."""

    message_name: ClassVar[str] = "operations.recall-answered"

    action_id: str

    @property
    def correlation_key(self) -> str:
        return self.action_id

    @property
    def message_id(self) -> str:
        return f"{self.action_id}:answered"


class ActionOutcome(OutcomeDecided):
    """The outcome that an action states, for a payment that waits or is about to. Told once per action.

    When nobody takes it within minutes it is gone: a decision must not surprise a payment that moved on by itself.
    """

    ttl: ClassVar[timedelta] = timedelta(minutes=2)

    action_id: str

    @property
    def message_id(self) -> str:
        return f"{self.action_id}:outcome"

    def variables(self) -> dict[str, object]:
        """Without the action: a payment's variables say nothing of who repaired it."""
        return self.model_dump(mode="json", exclude={"action_id"})


# --- Jobs -----------------------------------------------------------------------------------------------------------


class Follows(StrEnum):
    """What comes after the commands of an action."""

    LOOK = "look"
    """Their record is looked for."""
    PAYMENT = "payment"
    """A payment in the other direction has to be accepted."""
    RECALL = "recall"
    """Nothing but waiting for the money."""
    NOTHING = "nothing"
    """It is not possible any more."""


class CarriedOut(Result):
    """What follows; the payment's facts when one follows."""

    what_follows: Follows
    linked_payment_id: PaymentId | None = None
    payer: Party | None = None
    payee: Party | None = None
    amount: int | None = None
    """Minor units."""
    currency: str | None = None
    concept: str | None = None


_FOR_HOURS: Final = 960
"""Tries of the jobs of actions: a payment is repaired by nothing else meanwhile, so an outage of the views of some
fifteen hours must not leave one behind."""


class CarryOutAction(Job[CarriedOut]):
    """Look whether the action is still possible, and give its commands. Safe to run twice."""

    job_type: ClassVar[str] = "operations.carry-out-action"
    attempts: ClassVar[int] = _FOR_HOURS

    action_id: str
    tenant_id: TenantId


class Looked(Result):
    """Whether the record was there. Nothing while it may still come."""

    confirmed: bool | None
    look_again_after: str
    """ISO 8601."""


class ConfirmAction(Job[Looked]):
    """Look in the views for the engine's record of what an action was to bring about."""

    job_type: ClassVar[str] = "operations.confirm-action"
    attempts: ClassVar[int] = _FOR_HOURS

    action_id: str
    tenant_id: TenantId


class Expired(Result):
    """What became of it: in the last moment somebody may have decided."""

    decision: Decision


class ExpireAction(Job[Expired]):
    """The time for approvals is over."""

    job_type: ClassVar[str] = "operations.expire-action"
    attempts: ClassVar[int] = _FOR_HOURS

    action_id: str
    tenant_id: TenantId


class MoneyLooked(Result):
    """Whether a recall still waits."""

    recall_open: bool


class LookForMoney(Job[MoneyLooked]):
    """Look whether recalled money came back, or the time for it is over."""

    job_type: ClassVar[str] = "operations.look-for-money"
    attempts: ClassVar[int] = _FOR_HOURS

    action_id: str
    tenant_id: TenantId


STATED: Final = frozenset({Outcome.SETTLED, Outcome.REJECTED, Outcome.RETURNED, Outcome.CANCELLED})
"""Outcomes that an operator can state."""
