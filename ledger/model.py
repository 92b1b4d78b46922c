"""The words of the book: accounts, postings, holds, balances, and what can be refused.

An account is named by its address: `customer-deposit:A-17` belongs to a customer, `fee-income` to the book itself;
there is one per currency. An asset is a currency with its number of minor digits, as in `MXN/2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, Self

from hub.money import MINOR_DIGITS, BadMoney, Money


class Side(StrEnum):
    """The side on which an account's balance grows: debit for what the bank owns, credit for what it owes or earns."""

    DEBIT = "D"
    CREDIT = "C"


class AccountKind(StrEnum):
    """The chart of accounts that every book starts with."""

    CUSTOMER_DEPOSIT = "customer-deposit"
    """What the bank owes a customer."""

    STP_SETTLEMENT = "stp-settlement"
    """The bank's own money at STP; grows when transfers come in, shrinks when they go out."""

    FEE_INCOME = "fee-income"
    """Fees earned on transfers."""

    OPENING_EQUITY = "opening-equity"
    """The contra of balances brought in when a book is opened."""

    SUSPENSE = "suspense"
    """Money whose owner is not known yet."""

    STORE_PAYABLE = "store-payable"
    """What the lender owes a store for delivered purchases; below zero when the store owes the lender (L10)."""

    CREDIT_RECEIVABLE = "credit-receivable"
    """What borrowers owe for the purchases that were delivered to them."""

    COMMISSION_INCOME = "commission-income"
    """What stores pay for having their sales financed."""

    BALANCE_ADJUSTMENT = "balance-adjustment"
    """The contra of store balances that treasury corrected by hand (L11)."""


@dataclass(frozen=True, slots=True)
class ChartLine:
    """One line of the chart every book starts with: a kind, its side, its floor in minor units (`None`: unbounded)."""

    kind: AccountKind
    side: Side
    floor: int | None
    auto_create: bool
    """The book's one account of this kind is opened on first use, per currency."""


STANDARD_CHART: Final = (
    ChartLine(AccountKind.CUSTOMER_DEPOSIT, Side.CREDIT, 0, auto_create=False),
    ChartLine(AccountKind.STP_SETTLEMENT, Side.DEBIT, None, auto_create=True),
    ChartLine(AccountKind.FEE_INCOME, Side.CREDIT, None, auto_create=True),
    ChartLine(AccountKind.OPENING_EQUITY, Side.CREDIT, None, auto_create=True),
    ChartLine(AccountKind.SUSPENSE, Side.CREDIT, None, auto_create=True),
    ChartLine(AccountKind.STORE_PAYABLE, Side.CREDIT, None, auto_create=False),
    ChartLine(AccountKind.CREDIT_RECEIVABLE, Side.DEBIT, None, auto_create=True),
    ChartLine(AccountKind.COMMISSION_INCOME, Side.CREDIT, None, auto_create=True),
    ChartLine(AccountKind.BALANCE_ADJUSTMENT, Side.CREDIT, None, auto_create=True),
)


@dataclass(frozen=True, slots=True)
class AccountRef:
    """Which account: its kind, and its owner's number for it unless the book itself owns it."""

    kind: AccountKind
    owner: str = ""

    @classmethod
    def customer(cls, number: str) -> Self:
        return cls(AccountKind.CUSTOMER_DEPOSIT, number)

    @classmethod
    def parse(cls, address: str) -> Self:
        """Read an address. Raises `ValueError` for a kind that is not in the chart."""
        kind, _, owner = address.partition(":")
        return cls(AccountKind(kind), owner)

    def __str__(self) -> str:
        return f"{self.kind}:{self.owner}" if self.owner else str(self.kind)


STP_SETTLEMENT: Final = AccountRef(AccountKind.STP_SETTLEMENT)
FEE_INCOME: Final = AccountRef(AccountKind.FEE_INCOME)
OPENING_EQUITY: Final = AccountRef(AccountKind.OPENING_EQUITY)


def asset_of(currency: str) -> str:
    """`MXN/2` for MXN. Raises `hub.money.BadMoney` for an unknown currency."""
    digits = MINOR_DIGITS.get(currency)
    if digits is None:
        raise BadMoney(f"{currency!r} is not an ISO 4217 currency")
    return f"{currency}/{digits}"


def currency_of(asset: str) -> str:
    return asset.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Leg:
    """One posting to be made: `amount` from the credited account's point of view, debit and credit in one row."""

    debit: AccountRef
    credit: AccountRef
    amount: Money


@dataclass(frozen=True, slots=True)
class Post:
    """One posting of a batch, a transaction of its own. `effective_at` (with a zone) is the value date."""

    book: str
    operation: str
    leg: Leg
    reference: str | None = None
    reason: str | None = None
    effective_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of an account, in the moment of booking and before it, for an operation to be done at all.

    Raises `ValueError` when nothing is asked, or an amount of another currency.
    """

    account: AccountRef
    currency: str
    available_at_least: Money | None = None
    """Booked less held, whatever the account's floor is."""

    version: int | None = None
    """Exactly this sequence, as `Balance.sequence` told it: nothing was posted on the account since."""

    def __post_init__(self) -> None:
        if self.available_at_least is None and self.version is None:
            raise ValueError("a condition asks for an available amount or a version")
        if self.available_at_least is not None and self.available_at_least.currency != self.currency:
            raise ValueError("an available amount is in the account's currency")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an operation wrote, or had written before (`replayed`). But for that flag a repeat gets the same receipt.

    Of a dry run it is what would have been written; its number will never be a transaction's.
    """

    transaction: int
    booked_at: datetime
    replayed: bool


@dataclass(frozen=True, slots=True)
class Quote:
    """The parties' account numbers and the fee of a transfer between them."""

    payer_account: str
    payee_account: str | None
    """`None` when the payee has no account in this book."""

    fee: Money


@dataclass(frozen=True, slots=True)
class Account:
    """An account as a lookup by identifier finds it."""

    ref: AccountRef
    currency: str
    holder_name: str | None
    debits_frozen: bool
    credits_frozen: bool
    closed: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account holds. `booked` is positive on the account's own side and may be negative without a floor."""

    account: AccountRef
    booked: Money
    held: Money
    """Set aside by open holds."""

    sequence: int
    """Number of posting sides booked on the account so far."""

    @property
    def available(self) -> Money:
        """What may still be spent when the floor is zero."""
        return self.booked - self.held


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside. `amount` includes `fee`."""

    operation: str
    reference: str | None
    amount: Money
    fee: Money
    placed_at: datetime
    expires_at: datetime | None
    """`None`: only the payment's outcome frees it, never time."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One row of the book."""

    leg: int
    debit: AccountRef
    credit: AccountRef
    amount: Money
    debit_balance: Money
    """The debited account's balance after this posting."""

    credit_balance: Money


@dataclass(frozen=True, slots=True)
class Transaction:
    """One operation as it was booked. Holds and releases move nothing and have no postings."""

    id: int
    operation: str
    kind: str
    reference: str | None
    booked_at: datetime
    effective_at: datetime
    postings: Sequence[Posting]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a statement: an account's side of a posting."""

    sequence: int
    side: Side
    amount: Money
    balance_after: Money
    contra: AccountRef
    transaction: int
    operation: str
    kind: str
    reference: str | None
    reason: str | None
    booked_at: datetime
    effective_at: datetime


PolicyAction = Literal[
    "floor", "freeze-debits", "unfreeze-debits", "freeze-credits", "unfreeze-credits", "close", "reopen"
]

MAX_HOLD: Final = timedelta(days=400)
"""The longest lifetime of a hold that has one."""


class LedgerRefused(Exception):
    """The book said no and nothing was written. `detail` says where, without personal data.

    Where several refusals apply, the first of this order is answered: DuplicateOperation, HoldUnknown, HoldFinal,
    HoldExpired, TransactionUnknown, NotReversible, UnknownAccount, CurrencyMismatch, SameAccount, AlreadyReversed,
    AccountClosed, AccountFrozen, InsufficientFunds, ConditionUnmet.
    """

    code: str = "refused"

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(f"{self.code}: {detail}" if detail else self.code)


class UnknownAccount(LedgerRefused):
    """No such account in this book, or no such book."""

    code = "account-unknown"


class AccountClosed(LedgerRefused):
    """The account is closed; nothing is booked on it any more."""

    code = "account-closed"


class AccountFrozen(LedgerRefused):
    """Debits, or credits, of the account are frozen (L85: frozen debits leave credits possible)."""

    code = "account-frozen"


class InsufficientFunds(LedgerRefused):
    """The balance less what is held would fall below the account's floor."""

    code = "insufficient-funds"


class CurrencyMismatch(LedgerRefused):
    """The account exists, in another currency."""

    code = "currency-mismatch"


class SameAccount(LedgerRefused):
    """Debit and credit would hit one account."""

    code = "same-account"


class AmountNotAllowed(LedgerRefused):
    """The amount is in no band of the tariff, or would exceed what a balance can hold."""

    code = "amount-not-allowed"


class DuplicateOperation(LedgerRefused):
    """This operation id was used before with other input. The first one stands."""

    code = "duplicate-operation"


class HoldUnknown(LedgerRefused):
    """No hold was placed by that operation."""

    code = "hold-unknown"


class HoldFinal(LedgerRefused):
    """The hold was captured or released before, by another operation; `detail` says which."""

    code = "hold-final"


class HoldExpired(LedgerRefused):
    """The hold's time has run out by the database's clock, whether or not the sweeper has been there."""

    code = "hold-expired"


class TransactionUnknown(LedgerRefused):
    """No transaction was booked by the operation that is to be reversed."""

    code = "transaction-unknown"


class NotReversible(LedgerRefused):
    """What is to be reversed moved no money or is a reversal itself; `detail` is its kind."""

    code = "not-reversible"


class AlreadyReversed(LedgerRefused):
    """The transaction was reversed before; `detail` is the operation that did it."""

    code = "already-reversed"


class ConditionUnmet(LedgerRefused):
    """A condition the caller set does not hold; `detail` says which part, `available` or `version`."""

    code = "condition-unmet"


class BatchRefused(LedgerRefused):
    """Nothing speaks against this posting, but another one of its atomic batch was refused."""

    code = "batch-refused"


REFUSALS: Final = {
    refusal.code: refusal
    for refusal in (
        UnknownAccount,
        AccountClosed,
        AccountFrozen,
        InsufficientFunds,
        CurrencyMismatch,
        SameAccount,
        AmountNotAllowed,
        DuplicateOperation,
        HoldUnknown,
        HoldFinal,
        HoldExpired,
        TransactionUnknown,
        NotReversible,
        AlreadyReversed,
        ConditionUnmet,
        BatchRefused,
    )
}
"""The class of each refusal by the word the database answers."""
