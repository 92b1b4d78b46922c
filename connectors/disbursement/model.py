"""The words of disbursements inside the hub: jobs, their results, and the messages that move a disbursement on."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict

from hub.jobs import Job, Result
from hub.messages import Message
from hub.transfer import Outcome, Party, PaymentId, Reason, TenantId
from ledger.disbursement.model import Frequency, Trigger
from ledger.disbursement.runs import RUN_REQUESTED
from ledger.disbursement.updates import STORE_DUE, TRANSFER_DECIDED

LEDGER_TIMEOUT: Final = timedelta(seconds=20)
"""Nothing here asks anybody but our own database and engine, which answer or refuse sooner than this."""

LEDGER_ATTEMPTS: Final = 960
"""Most of a day of the ledger being away before an operator sees an incident, as with the accounts of customers."""

# --- One disbursement -----------------------------------------------------------------------------------------------


class NextStep(StrEnum):
    """What is to be done with a store that is due."""

    SEND = "send"
    CONFIRM = "confirm"
    """Somebody must confirm it first (L23)."""
    NOTHING = "nothing"
    """No transfer was made, it was cancelled, or another process instance has it."""


class Collected(Result):
    """The transfer of a store, as an order for STP. Without one there is no payee and no amount."""

    next_step: NextStep
    amount: int = 0
    """Minor units."""
    currency: str = "MXN"
    payer: None = None
    """The tenant itself."""
    payee: Party | None = None
    concept: str = ""
    reference_number: None = None
    purpose: Literal["disbursement"] = "disbursement"
    confirm_within: str = "P3D"
    """ISO 8601: how long it may wait for a person."""


class CollectUpdates(Job[Collected]):
    """Make one transfer of a store's pending updates (L27 to L31); the fence: one process instance has it for ever."""

    job_type: ClassVar[str] = "disbursement.collect-updates"
    timeout: ClassVar[timedelta] = LEDGER_TIMEOUT
    attempts: ClassVar[int] = LEDGER_ATTEMPTS

    payment_id: PaymentId
    tenant_id: TenantId
    store_id: str
    trigger: Trigger
    run_id: str | None = None


class DecisionSettled(Result):
    """What is to be done now."""

    next_step: NextStep


class SettleDecision(Job[DecisionSettled]):
    """Look at what a person decided about a transfer that waits; cancel it when nobody did in time (L23, H3)."""

    job_type: ClassVar[str] = "disbursement.settle-decision"
    timeout: ClassVar[timedelta] = LEDGER_TIMEOUT
    attempts: ClassVar[int] = LEDGER_ATTEMPTS

    payment_id: PaymentId
    tenant_id: TenantId
    overdue: bool = False
    """The time to decide is over."""


class RecordSent(Job[Result]):
    """STP took the order: the transfer is in transit (L24)."""

    job_type: ClassVar[str] = "disbursement.record-sent"
    timeout: ClassVar[timedelta] = LEDGER_TIMEOUT
    attempts: ClassVar[int] = LEDGER_ATTEMPTS

    payment_id: PaymentId
    tenant_id: TenantId


class RecordOutcome(Job[Result]):
    """How the transfer ended, with all that follows for its updates and the store's balance (L35 to L38, L44)."""

    job_type: ClassVar[str] = "disbursement.record-outcome"
    timeout: ClassVar[timedelta] = LEDGER_TIMEOUT
    attempts: ClassVar[int] = LEDGER_ATTEMPTS

    payment_id: PaymentId
    tenant_id: TenantId
    outcome: Literal[Outcome.SETTLED, Outcome.REJECTED, Outcome.RETURNED, Outcome.CANCELLED]
    reason: Reason
    reason_detail: str | None = None
    happened_at: datetime | None = None
    """When, as STP says; it does not always."""
    after_settlement: bool = False
    """The money came back after the order had settled (L38): its settlement is recorded before this is."""


class ReportTransfer(Job[Result]):
    """Tell the merchant what a transfer paid, or that it came back (L56)."""

    job_type: ClassVar[str] = "disbursement.report-transfer"
    timeout: ClassVar[timedelta] = LEDGER_TIMEOUT
    attempts: ClassVar[int] = LEDGER_ATTEMPTS

    payment_id: PaymentId
    tenant_id: TenantId


# --- Runs -----------------------------------------------------------------------------------------------------------


class Planned(Result):
    """The next run to be done by this process instance, if there is one."""

    run_id: str | None
    tenant_id: TenantId | None = None
    frequency: Frequency | None = None
    after_store: None = None


class PlanRuns(Job[Planned]):
    """Make the runs that are due by their schedules, and take the next open one."""

    job_type: ClassVar[str] = "disbursement.plan-runs"
    timeout: ClassVar[timedelta] = LEDGER_TIMEOUT


class DueStore(BaseModel):
    """A store that a run asks to be paid, and the payment it is."""

    model_config = ConfigDict(frozen=True)

    store_id: str
    payment_id: PaymentId


class Selected(Result):
    """Stores to be paid. `after_store`: where the next page begins, nothing after the last one."""

    due: list[DueStore]
    after_store: str | None


class SelectStores(Job[Selected]):
    """Look at the next page of a run's stores and keep the verdict on each, the skipped ones' too."""

    job_type: ClassVar[str] = "disbursement.select-stores"
    timeout: ClassVar[timedelta] = LEDGER_TIMEOUT

    run_id: str
    after_store: str | None = None


class RequestDisbursement(Job[Result]):
    """Ask for the payment of one store of a run; asked again it is the same payment."""

    job_type: ClassVar[str] = "disbursement.request-disbursement"
    timeout: ClassVar[timedelta] = LEDGER_TIMEOUT

    run_id: str
    tenant_id: TenantId
    frequency: Frequency
    due_store: DueStore


class CloseRun(Job[Result]):
    """Every store of the run was looked at, and every due one asked for."""

    job_type: ClassVar[str] = "disbursement.close-run"
    timeout: ClassVar[timedelta] = LEDGER_TIMEOUT

    run_id: str


# --- Messages -------------------------------------------------------------------------------------------------------


class StoreDue(Message):
    """A store is to be paid now. A repeat starts nothing."""

    message_name: ClassVar[str] = STORE_DUE

    payment_id: PaymentId
    """Chosen by whoever asks, so that each repeat is the same payment."""
    tenant_id: TenantId
    store_id: str
    trigger: Trigger
    run_id: str | None = None

    @property
    def correlation_key(self) -> str:
        return self.payment_id

    @property
    def message_id(self) -> str:
        return self.payment_id


class TransferDecided(Message):
    """A person confirmed or cancelled a transfer that waits; what counts is what the transfer says."""

    message_name: ClassVar[str] = TRANSFER_DECIDED
    ttl: ClassVar[timedelta] = timedelta(days=7)

    payment_id: PaymentId

    @property
    def correlation_key(self) -> str:
        return self.payment_id

    @property
    def message_id(self) -> str:
        return self.payment_id


class RunRequested(Message):
    """A person asked for a run of a frequency now."""

    message_name: ClassVar[str] = RUN_REQUESTED

    run_id: str

    @property
    def correlation_key(self) -> str:
        return self.run_id

    @property
    def message_id(self) -> str:
        return self.run_id
