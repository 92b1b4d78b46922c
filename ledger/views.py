"""The answers of the read API. Amounts are decimal strings, and each answer has an example."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict

from ledger.model import Account, AccountRef, Balance, Entry, Hold, Posting, Side, Transaction, currency_of
from ledger.reports import Axis, KindSums, PeriodTurnover, Sums, Turnover

_NOON: Final = "2026-03-05T12:00:00Z"
_ANA: Final = "customer-deposit:A-17"


def _example(**values: Any) -> ConfigDict:
    """What an answer looks like, for whoever reads the description of the service."""
    return ConfigDict(json_schema_extra={"example": values})


class AccountView(BaseModel):
    """An account as an identifier finds it."""

    model_config = _example(account=_ANA, currency="MXN", holder_name="Ana Prueba", status="open")

    account: str
    currency: str
    holder_name: str | None
    status: str
    """`open`, `debits-frozen`, `credits-frozen`, `frozen` (both) or `closed`."""

    @classmethod
    def of(cls, account: Account) -> Self:
        status = "open"
        if account.closed:
            status = "closed"
        elif account.debits_frozen or account.credits_frozen:
            both = account.debits_frozen and account.credits_frozen
            status = "frozen" if both else "debits-frozen" if account.debits_frozen else "credits-frozen"
        return cls(account=str(account.ref), currency=account.currency, holder_name=account.holder_name, status=status)


class BalanceView(BaseModel):
    """What an account holds in one currency."""

    model_config = _example(currency="MXN", booked="89.00", held="21.00", available="68.00", sequence=3)

    currency: str
    booked: str
    held: str
    available: str
    sequence: int

    @classmethod
    def of(cls, balance: Balance) -> Self:
        return cls(
            currency=balance.booked.currency,
            booked=balance.booked.decimal(),
            held=balance.held.decimal(),
            available=balance.available.decimal(),
            sequence=balance.sequence,
        )


class HoldView(BaseModel):
    """Money set aside; `amount` includes `fee`. Without `expires_at` only the payment's outcome frees it."""

    model_config = _example(
        operation="p2:hold",
        reference="p2",
        account=_ANA,
        currency="MXN",
        amount="21.00",
        fee="1.00",
        placed_at=_NOON,
        expires_at=_NOON,
    )

    operation: str
    reference: str | None
    account: str
    currency: str
    amount: str
    fee: str
    placed_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, account: AccountRef, hold: Hold) -> Self:
        return cls(
            operation=hold.operation,
            reference=hold.reference,
            account=str(account),
            currency=hold.amount.currency,
            amount=hold.amount.decimal(),
            fee=hold.fee.decimal(),
            placed_at=hold.placed_at,
            expires_at=hold.expires_at,
        )


class PostingView(BaseModel):
    """One row of the book."""

    model_config = _example(
        leg=1,
        debit=_ANA,
        credit="stp-settlement",
        currency="MXN",
        amount="10.00",
        debit_balance="90.00",
        credit_balance="-10.00",
    )

    leg: int
    debit: str
    credit: str
    currency: str
    amount: str
    debit_balance: str
    credit_balance: str

    @classmethod
    def of(cls, posting: Posting) -> Self:
        return cls(
            leg=posting.leg,
            debit=str(posting.debit),
            credit=str(posting.credit),
            currency=posting.amount.currency,
            amount=posting.amount.decimal(),
            debit_balance=posting.debit_balance.decimal(),
            credit_balance=posting.credit_balance.decimal(),
        )


class TransactionView(BaseModel):
    """One operation as it was booked; holds and releases have no postings."""

    model_config = _example(
        id="42",
        operation="p1:capture",
        kind="capture",
        reference="p1",
        booked_at=_NOON,
        effective_at=_NOON,
        postings=[],
    )

    id: str
    operation: str
    kind: str
    reference: str | None
    booked_at: datetime
    effective_at: datetime
    postings: list[PostingView]

    @classmethod
    def of(cls, transaction: Transaction) -> Self:
        return cls(
            id=str(transaction.id),
            operation=transaction.operation,
            kind=transaction.kind,
            reference=transaction.reference,
            booked_at=transaction.booked_at,
            effective_at=transaction.effective_at,
            postings=[PostingView.of(posting) for posting in transaction.postings],
        )


class EntryView(BaseModel):
    """One line of a statement."""

    model_config = _example(
        sequence=2,
        side="D",
        amount="10.00",
        balance_after="90.00",
        contra="stp-settlement",
        transaction="42",
        operation="p1:capture",
        kind="capture",
        reference="p1",
        reason="opening",
        booked_at=_NOON,
        effective_at=_NOON,
    )

    sequence: int
    side: Side
    amount: str
    balance_after: str
    contra: str
    transaction: str
    operation: str
    kind: str
    reference: str | None
    reason: str | None
    booked_at: datetime
    effective_at: datetime

    @classmethod
    def of(cls, entry: Entry) -> Self:
        return cls(
            sequence=entry.sequence,
            side=entry.side,
            amount=entry.amount.decimal(),
            balance_after=entry.balance_after.decimal(),
            contra=str(entry.contra),
            transaction=str(entry.transaction),
            operation=entry.operation,
            kind=entry.kind,
            reference=entry.reference,
            reason=entry.reason,
            booked_at=entry.booked_at,
            effective_at=entry.effective_at,
        )


class Balances(BaseModel):
    account: str
    balances: list[BalanceView]


class PastBalance(BaseModel):
    """What an account held in one currency, and the sums that made it."""

    model_config = _example(currency="MXN", booked="90.00", debits="10.00", credits="100.00")

    currency: str
    booked: str
    debits: str
    credits: str

    @classmethod
    def of(cls, sums: Sums) -> Self:
        return cls(
            currency=currency_of(sums.asset),
            booked=sums.decimal(sums.balance),
            debits=sums.decimal(sums.debits),
            credits=sums.decimal(sums.credits),
        )


class PastBalances(BaseModel):
    account: str
    at: datetime
    axis: Axis
    balances: list[PastBalance]


class Holds(BaseModel):
    holds: list[HoldView]
    next_cursor: str | None
    """Give it as `cursor` for the next page; absent on the last."""


class Statement(BaseModel):
    """Newest first. With a span of time also the balances at its beginning and its end, by the axis asked for;
    `balance_after` of an entry is the running balance in the order of booking."""

    account: str
    currency: str
    opening_balance: str | None = None
    closing_balance: str | None = None
    entries: list[EntryView]
    next_cursor: str | None
    """Give it as `cursor` for the next page, further back; absent on the last."""


class Transactions(BaseModel):
    transactions: list[TransactionView]
    next_cursor: str | None


class TurnoverView(BaseModel):
    """What was booked on one account."""

    model_config = _example(account=_ANA, currency="MXN", debits="10.00", credits="100.00", net="90.00", entries=2)

    account: str
    currency: str
    debits: str
    credits: str
    net: str
    """By how much the balance changed."""

    entries: int

    @classmethod
    def of(cls, turnover: Turnover) -> Self:
        return cls(
            account=str(turnover.account),
            currency=currency_of(turnover.sums.asset),
            debits=turnover.sums.decimal(turnover.sums.debits),
            credits=turnover.sums.decimal(turnover.sums.credits),
            net=turnover.sums.decimal(turnover.sums.balance),
            entries=turnover.entries,
        )


class Turnovers(BaseModel):
    turnovers: list[TurnoverView]
    next_cursor: str | None


class PeriodView(BaseModel):
    """A day or a month."""

    model_config = _example(begins=_NOON, debits="10.00", credits="100.00", net="90.00", entries=2)

    begins: datetime
    debits: str
    credits: str
    net: str
    entries: int

    @classmethod
    def of(cls, period: PeriodTurnover) -> Self:
        return cls(
            begins=period.begins,
            debits=period.sums.decimal(period.sums.debits),
            credits=period.sums.decimal(period.sums.credits),
            net=period.sums.decimal(period.sums.balance),
            entries=period.entries,
        )


class AccountTurnover(BaseModel):
    """Days or months on which nothing was booked are left out."""

    account: str
    currency: str
    zone: str
    periods: list[PeriodView]


class TrialLine(BaseModel):
    """All accounts of a kind in one currency."""

    model_config = _example(
        kind="customer-deposit",
        currency="MXN",
        side="C",
        accounts=2,
        debits="10.00",
        credits="150.00",
        balance="140.00",
    )

    kind: str
    currency: str
    side: Side
    accounts: int
    debits: str
    credits: str
    balance: str

    @classmethod
    def of(cls, line: KindSums) -> Self:
        return cls(
            kind=line.kind,
            currency=currency_of(line.sums.asset),
            side=line.sums.side,
            accounts=line.accounts,
            debits=line.sums.decimal(line.sums.debits),
            credits=line.sums.decimal(line.sums.credits),
            balance=line.sums.decimal(line.sums.balance),
        )


class TrialTotal(BaseModel):
    """A currency's sums over all accounts; `balanced` says whether they are equal, which they must be."""

    model_config = _example(currency="MXN", debits="160.00", credits="160.00", balanced=True)

    currency: str
    debits: str
    credits: str
    balanced: bool


class TrialBalance(BaseModel):
    at: datetime | None
    """Absent: now."""

    axis: Axis
    lines: list[TrialLine]
    totals: list[TrialTotal]
