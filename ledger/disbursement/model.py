"""The words of store balances: updates, transfers, verdicts, and what can be refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from hub.money import Money

CURRENCY: Final = "MXN"
"""What stores are paid in, over STP."""


class UpdateType(StrEnum):
    """What changed a store's balance (L5)."""

    CONTRIBUTION = "CONTRIBUTION"
    """A purchase was delivered: the credit's amount less its commission (L6)."""

    DISBURSEMENT = "DISBURSEMENT"
    """A transfer was settled: less its amount (L8)."""

    DISBURSEMENT_OVERRIDE = "DISBURSEMENT_OVERRIDE"
    """A settled transfer came back: its amount again (L9)."""

    CREDIT_CANCELLATION = "CREDIT_CANCELLATION"
    """A contribution was undone (L10)."""

    BALANCE_ADJUSTMENT = "BALANCE_ADJUSTMENT"
    """Treasury corrected the balance by hand (L11)."""


class UpdateStatus(StrEnum):
    """How far an update is on its way to the store (L12)."""

    PENDING = "PENDING"
    """In no transfer; the next one takes it."""

    IN_TRANSIT = "IN_TRANSIT"
    """In a transfer that is not settled yet."""

    APPLIED = "APPLIED"
    """Settled with the store, or a settlement itself."""


class TransferStatus(StrEnum):
    """Where a bank transfer is (L20); what may follow what: L21."""

    WAITING_FOR_CONFIRMATION = "WAITING_FOR_CONFIRMATION"
    """Made, and not known to be with the provider: a person, or the provider, is yet to confirm it."""

    IN_TRANSIT = "IN_TRANSIT"
    """The provider took the order (L24)."""

    APPLIED = "APPLIED"
    """Settled."""

    CANCELLED = "CANCELLED"
    """Never paid. Final."""

    REJECTED = "REJECTED"
    """Came back. Final."""


OPEN: Final = frozenset({TransferStatus.WAITING_FOR_CONFIRMATION, TransferStatus.IN_TRANSIT})
"""Transfers whose outcome is not known yet."""


class Frequency(StrEnum):
    """When a store is paid (L25)."""

    INSTANT = "INSTANT"
    HOURLY = "HOURLY"
    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"


class Trigger(StrEnum):
    """What asked for a transfer: the store's frequency, or a person."""

    INSTANT = "INSTANT"
    HOURLY = "HOURLY"
    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    MANUAL = "MANUAL"


class Outcome(StrEnum):
    """How a transfer ended, as the process learned it."""

    SETTLED = "SETTLED"
    """Paid (L35)."""

    CANCELLED = "CANCELLED"
    """The provider cancelled the order (L36)."""

    RETURNED = "RETURNED"
    """The money came back, before settlement was heard of or long after (L37, L38)."""

    REJECTED = "REJECTED"
    """The provider did not take the order (L44)."""


class Recorded(StrEnum):
    """What a step did to a transfer."""

    CHANGED = "CHANGED"

    REPEATED = "REPEATED"
    """It was there before; nothing was written (L41)."""


class VerdictCode(StrEnum):
    """Whether a store would be paid, and if not the first thing that speaks against it, in this order."""

    OTHER_FREQUENCY = "OTHER_FREQUENCY"
    """The trigger is not the store's own (L25); said by `Transfers.collect` only."""

    AUTOMATION_OFF = "AUTOMATION_OFF"
    MERCHANT_NOT_VALIDATED = "MERCHANT_NOT_VALIDATED"
    STORE_NOT_VALIDATED = "STORE_NOT_VALIDATED"
    NO_BANK_ACCOUNT = "NO_BANK_ACCOUNT"
    ACCOUNT_NOT_AUTHENTICATED = "ACCOUNT_NOT_AUTHENTICATED"
    NOTHING_PENDING = "NOTHING_PENDING"
    NEGATIVE_TOTAL = "NEGATIVE_TOTAL"
    BELOW_MINIMUM = "BELOW_MINIMUM"
    """The total is not more than the store's minimum; equal is not enough (L28)."""

    PAY = "PAY"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trigger would do with a store right now, and with what numbers."""

    store: str
    merchant: str
    frequency: Frequency
    code: VerdictCode
    updates: int
    """Number of pending updates."""

    total: Money
    """Sum of their effects; may be negative."""

    minimum: Money

    @property
    def pays(self) -> bool:
        return self.code is VerdictCode.PAY


@dataclass(frozen=True, slots=True)
class BalanceUpdate:
    """One change of a store's balance (L2). `effect`, `previous` and `new` may be negative."""

    id: int
    store: str
    sequence: int
    """1 for a store's first, without gaps."""

    type: UpdateType
    effect: Money
    previous: Money
    new: Money
    status: UpdateStatus
    overwritten: bool
    overwrites: int | None
    """The id of the update that this one compensates (L15)."""

    credit: str | None
    transfer: str | None
    """Of a disbursement or an override: the transfer it is of."""

    transaction: int
    """The ledger's transaction."""

    operation: str
    reason: str | None
    actor: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AmountChanged:
    """A credit whose amount was changed (L17). Nothing was booked when it had not been contributed yet."""

    credit: str
    amount: Money
    commission: Money
    cancellation: BalanceUpdate | None
    contribution: BalanceUpdate | None


@dataclass(frozen=True, slots=True)
class StatusRecord:
    """One row of the history of an update or a transfer (L13)."""

    status: str
    at: datetime
    cause: str
    actor: str


@dataclass(frozen=True, slots=True)
class StoreBalance:
    """What a store is owed. `balance` is always `pending` plus `in_transit`: what is applied sums to nothing."""

    store: str
    merchant: str
    balance: Money
    pending: Money
    pending_updates: int
    in_transit: Money
    in_transit_updates: int
    sequence: int
    """Of the last update; 0 for a store without any."""


@dataclass(frozen=True, slots=True)
class BankTransfer:
    """One payment to a store (L18). `clabe`, `holder_name`, `tax_id`: its account as it was when this was made."""

    id: str
    """The payment id, which is also the STP side's and the ledger's reference."""

    number: int
    """Grows with time; what pages go by."""

    store: str
    amount: Money
    status: TransferStatus
    trigger: Trigger
    run_id: str | None
    clabe: str
    holder_name: str
    tax_id: str
    needs_confirmation: bool
    confirmed_by: str | None
    confirmed_at: datetime | None
    process_instance_key: int | None
    reason: str | None
    reason_detail: str | None
    created_at: datetime
    settled_at: datetime | None

    @property
    def must_wait(self) -> bool:
        """Somebody has yet to confirm or cancel it (L23)."""
        return (
            self.status is TransferStatus.WAITING_FOR_CONFIRMATION
            and self.needs_confirmation
            and self.confirmed_at is None
        )


@dataclass(frozen=True, slots=True)
class TransferItem:
    """An update and its link to a transfer; `released_at` when the link is history (L19)."""

    update: BalanceUpdate
    linked_at: datetime
    released_at: datetime | None


@dataclass(frozen=True, slots=True)
class Collected:
    """There is a transfer under the asked id: made now, or before (`again`).

    `transfer.process_instance_key` is the instance it belongs to; any other one has nothing to do.
    """

    transfer: BankTransfer
    updates: int
    again: bool


@dataclass(frozen=True, slots=True)
class NothingToPay:
    """No transfer was made, and why. Nothing was written."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Event:
    """What came in about a store's money, and what became of it (L34)."""

    id: int
    source: str
    kind: str
    event_id: str
    received_at: datetime
    outcome: str | None
    """`handled`, `repeated`, `refused` or `failed`; nothing when the handling was cut off, which left nothing."""

    error: str | None


class DisbursementRefused(Exception):
    """The rules said no and nothing was changed. `detail` says where, without personal data."""

    code: str = "refused"

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(f"{self.code}: {detail}" if detail else self.code)


class BookUnknown(DisbursementRefused):
    """The tenant has no book of accounts."""

    code = "book-unknown"


class StoreUnknown(DisbursementRefused):
    """The tenant has no such store."""

    code = "store-unknown"


class CreditUnknown(DisbursementRefused):
    """The tenant has no such credit."""

    code = "credit-unknown"


class TransferUnknown(DisbursementRefused):
    """There is no such transfer (L41: whoever sees this tells somebody)."""

    code = "transfer-unknown"


class NoCommission(DisbursementRefused):
    """The credit has no commission: it is not approved for disbursement (L45)."""

    code = "no-commission"


class AlreadyContributed(DisbursementRefused):
    """The credit was contributed before, by another operation; `detail` is that one."""

    code = "already-contributed"


class NotContributed(DisbursementRefused):
    """The credit has no contribution that could be cancelled."""

    code = "not-contributed"


class AlreadyOverwritten(DisbursementRefused):
    """The update was compensated before (L16); `detail` is the operation that did it."""

    code = "already-overwritten"


class NotOverwritable(DisbursementRefused):
    """Updates of this type are not overwritten (L14)."""

    code = "not-overwritable"


class TransitionRefused(DisbursementRefused):
    """The transfer cannot go from where it is to where it was asked to (L21, L22); `detail` names both."""

    code = "transition-refused"


class OutcomeUnknown(DisbursementRefused):
    """A transfer knows no such outcome (L32)."""

    code = "outcome-unknown"


class BadAmount(DisbursementRefused):
    """An amount that is not positive, or a commission that is negative or more than the amount."""

    code = "amount-not-allowed"


class ReasonMissing(DisbursementRefused):
    """What is done by hand needs a reason (L11)."""

    code = "reason-missing"


class DuplicateOperation(DisbursementRefused):
    """This operation was used before for something else. The first one stands."""

    code = "duplicate-operation"


REFUSALS: Final[Sequence[type[DisbursementRefused]]] = (
    BookUnknown,
    StoreUnknown,
    CreditUnknown,
    TransferUnknown,
    NoCommission,
    AlreadyContributed,
    NotContributed,
    AlreadyOverwritten,
    NotOverwritable,
    TransitionRefused,
    OutcomeUnknown,
    BadAmount,
    ReasonMissing,
    DuplicateOperation,
)
