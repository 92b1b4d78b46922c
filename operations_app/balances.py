"""The book as an operator sees it: accounts, what they hold now or held then, holds, statements, the trial balance.

Everything is asked of `ledger.queries` and `ledger.reports`; the tenant is the book. Names are shown masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request

from exporters.privacy import mask_name
from hub.api import Caller, Problem, not_valid
from hub.transfer import IdentifierType
from ledger.model import AccountRef, Balance, Entry, Hold, LedgerRefused, asset_of, currency_of
from ledger.queries import LedgerQueries
from ledger.reports import Axis, LedgerReports, Span, Sums, decimal
from operations_app.access import allowed
from operations_app.cursors import Cursor, Limit, Paging
from operations_app.transfers.filters import Instant
from operations_app.wire import Amount, Moment, Shown

router = APIRouter(prefix="/balances", tags=["balances"])
"""Included under `/api/v1`."""

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)

Reader = Annotated[Caller, Depends(allowed("balances:read"))]
Reporter = Annotated[Caller, Depends(allowed("book:read"))]
"""The book as a whole is for those whom the ledger's own API lets see it."""
Address = Annotated[
    str, Path(description="As in `customer-deposit:A-17` or `fee-income`.", max_length=200, pattern="^[!-~]+$")
]
Currency = Annotated[str, Query(pattern="^[A-Z]{3}$", examples=["MXN"])]


class AccountFound(Shown):
    """An account as an identifier finds it."""

    account: str
    currency: str
    holder_name: str | None
    """Masked."""
    debits_frozen: bool
    credits_frozen: bool
    closed: bool


class BalanceView(Shown):
    """What an account holds in one currency. Of the past only what is booked is known."""

    booked: Amount
    held: Amount | None
    available: Amount | None
    sequence: int | None

    @classmethod
    def of(cls, balance: Balance) -> BalanceView:
        return cls(
            booked=Amount.of(balance.booked),
            held=Amount.of(balance.held),
            available=Amount.of(balance.available),
            sequence=balance.sequence,
        )

    @classmethod
    def past(cls, sums: Sums) -> BalanceView:
        return cls(booked=_amount(sums.balance, sums.asset), held=None, available=None, sequence=None)


class BalancesView(Shown):
    """What an account holds, per currency; `at`: or held then."""

    account: str
    at: Moment | None
    axis: Axis | None
    balances: list[BalanceView]


class HoldView(Shown):
    """Money set aside; `amount` includes `fee`."""

    operation: str
    payment_id: str | None
    reference: str | None
    account: str
    amount: Amount
    fee: Amount
    placed_at: Moment
    expires_at: Moment | None

    @classmethod
    def of(cls, account: AccountRef, hold: Hold) -> HoldView:
        return cls(
            operation=hold.operation,
            payment_id=_payment(hold.reference),
            reference=hold.reference,
            account=str(account),
            amount=Amount.of(hold.amount),
            fee=Amount.of(hold.fee),
            placed_at=hold.placed_at,
            expires_at=hold.expires_at,
        )


class HoldPage(Shown):
    """Oldest first."""

    holds: list[HoldView]
    next_cursor: str | None


class LineView(Shown):
    """A line of a statement with the balance after it. `paymentId`: which transfer it is of."""

    sequence: int
    side: str
    amount: Amount
    balance_after: Amount
    contra: str
    kind: str
    operation: str
    payment_id: str | None
    reference: str | None
    reason: str | None
    transaction: str
    booked_at: Moment
    effective_at: Moment

    @classmethod
    def of(cls, entry: Entry) -> LineView:
        return cls(
            sequence=entry.sequence,
            side="debit" if entry.side == "D" else "credit",
            amount=Amount.of(entry.amount),
            balance_after=Amount.of(entry.balance_after),
            contra=str(entry.contra),
            kind=entry.kind,
            operation=entry.operation,
            payment_id=_payment(entry.reference),
            reference=entry.reference,
            reason=entry.reason,
            transaction=str(entry.transaction),
            booked_at=entry.booked_at,
            effective_at=entry.effective_at,
        )


class StatementView(Shown):
    """Newest first."""

    account: str
    opening: Amount | None
    closing: Amount | None
    lines: list[LineView]
    next_cursor: str | None


class TrialLine(Shown):
    """All accounts of a kind in one currency."""

    kind: str
    accounts: int
    debits: Amount
    credits: Amount
    balance: Amount


class TrialTotal(Shown):
    """A currency's debits and credits; `difference` is nothing but zero."""

    debits: Amount
    credits: Amount
    difference: Amount
    balanced: bool


class TrialBalance(Shown):
    """The whole book, now or at an instant."""

    at: Moment | None
    axis: Axis
    balanced: bool
    lines: list[TrialLine]
    totals: list[TrialTotal]


def _amount(minor: int, asset: str) -> Amount:
    """Sums of many accounts may be more than `Money` holds."""
    return Amount(amount=decimal(minor, asset), currency=currency_of(asset))


def _payment(reference: str | None) -> str | None:
    """The payment that a booking's reference names: those of payments are UUIDs."""
    try:
        return str(UUID(reference)) if reference else None
    except ValueError:
        return None


async def _queries(request: Request) -> LedgerQueries:
    return LedgerQueries(request.app.state.ledger)


async def _reports(request: Request) -> LedgerReports:
    return LedgerReports(request.app.state.ledger)


Book = Annotated[LedgerQueries, Depends(_queries)]
Reports = Annotated[LedgerReports, Depends(_reports)]


@dataclass(frozen=True, slots=True)
class _Found:
    ref: AccountRef
    balances: list[Balance]

    def need(self, currency: str) -> None:
        if all(balance.booked.currency != currency for balance in self.balances):
            raise _unknown()


async def _found(account: Address, who: Reader, book: Book) -> _Found:
    try:
        ref = AccountRef.parse(account)
    except ValueError:
        raise _unknown() from None
    balances = list(await book.balances(who.tenant, ref))
    if not balances:
        raise _unknown()
    return _Found(ref, balances)


Found = Annotated[_Found, Depends(_found)]


@router.get("/accounts")
async def account_by_identifier(
    who: Reader,
    book: Book,
    *,
    identifier_type: Annotated[IdentifierType, Query(alias="identifierType")],
    identifier: Annotated[str, Query(min_length=1, max_length=64)],
) -> AccountFound:
    """The account that an identifier points to."""
    try:
        found = await book.account(who.tenant, identifier_type, identifier)
    except LedgerRefused:
        raise _unknown() from None
    return AccountFound(
        account=str(found.ref),
        currency=found.currency,
        holder_name=None if found.holder_name is None else mask_name(found.holder_name),
        debits_frozen=found.debits_frozen,
        credits_frozen=found.credits_frozen,
        closed=found.closed,
    )


@router.get("/accounts/{account}")
async def balances(
    who: Reader,
    found: Found,
    reports: Reports,
    *,
    at: Annotated[Instant | None, Query(description="As of this instant, itself included.")] = None,
    axis: Axis = Axis.BOOKED,
) -> BalancesView:
    """What an account holds now, or held at an instant by the date of booking or by the value date."""
    if at is None:
        views = [BalanceView.of(one) for one in found.balances]
        return BalancesView(account=str(found.ref), at=None, axis=None, balances=views)
    sums = await reports.balances_at(who.tenant, found.ref, at, axis)
    return BalancesView(account=str(found.ref), at=at, axis=axis, balances=[BalanceView.past(one) for one in sums])


@router.get("/accounts/{account}/holds")
async def open_holds(
    request: Request,
    who: Reader,
    book: Book,
    found: Found,
    cursors: Paging,
    *,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> HoldPage:
    """An account's open holds, oldest first."""
    (after,) = cursors.read(request, who, cursor) or (0,)
    rows = await book.open_holds(who.tenant, found.ref, after=after, limit=limit)
    return HoldPage(
        holds=[HoldView.of(found.ref, hold) for _, hold in rows],
        next_cursor=cursors.write(request, who, [rows[-1][0]]) if len(rows) == limit else None,
    )


@router.get("/holds")
async def holds(
    request: Request, who: Reader, reports: Reports, cursors: Paging, *, cursor: Cursor = None, limit: Limit = 100
) -> HoldPage:
    """Every open hold of the book, oldest first."""
    (after,) = cursors.read(request, who, cursor) or (0,)
    rows = await reports.open_holds(who.tenant, after=after, limit=limit)
    return HoldPage(
        holds=[HoldView.of(account, hold) for _, account, hold in rows],
        next_cursor=cursors.write(request, who, [rows[-1][0]]) if len(rows) == limit else None,
    )


@router.get("/accounts/{account}/statement")
async def statement(
    request: Request,
    who: Reader,
    book: Book,
    reports: Reports,
    found: Found,
    *,
    cursors: Paging,
    currency: Currency,
    since: Annotated[Instant | None, Query(alias="from")] = None,
    until: Annotated[Instant | None, Query(alias="to")] = None,
    axis: Axis = Axis.BOOKED,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> StatementView:
    """An account's entries with running balance, newest first, each with the payment it is of."""
    found.need(currency)
    (before,) = cursors.read(request, who, cursor) or (None,)
    opening = closing = None
    if since is None and until is None:
        entries = await book.statement(who.tenant, found.ref, currency, before=before, limit=limit)
    else:
        span = Span(since or _EARLIEST, until or _LATEST)
        if span.since >= span.until:
            raise not_valid([{"parameter": "to", "code": "not-valid", "detail": "The end comes after the beginning."}])
        period = await reports.statement(who.tenant, found.ref, currency, span, axis, before=before, limit=limit)
        entries, asset = period.entries, asset_of(currency)
        opening, closing = _amount(period.opening, asset), _amount(period.closing, asset)
    more = len(entries) == limit and entries[-1].sequence > 1
    return StatementView(
        account=str(found.ref),
        opening=opening,
        closing=closing,
        lines=[LineView.of(entry) for entry in entries],
        next_cursor=cursors.write(request, who, [entries[-1].sequence]) if more else None,
    )


@router.get("/trial-balance")
async def trial_balance(
    who: Reporter, reports: Reports, *, at: Annotated[Instant | None, Query()] = None, axis: Axis = Axis.BOOKED
) -> TrialBalance:
    """Debits and credits of each kind of account, and their difference per currency, now or at an instant."""
    found = await reports.trial_balance(who.tenant, at, axis)
    totals = []
    for asset in sorted({line.sums.asset for line in found}):
        debits = sum(line.sums.debits for line in found if line.sums.asset == asset)
        credited = sum(line.sums.credits for line in found if line.sums.asset == asset)
        totals.append(
            TrialTotal(
                debits=_amount(debits, asset),
                credits=_amount(credited, asset),
                difference=_amount(debits - credited, asset),
                balanced=debits == credited,
            )
        )
    lines = [
        TrialLine(
            kind=line.kind,
            accounts=line.accounts,
            debits=_amount(line.sums.debits, line.sums.asset),
            credits=_amount(line.sums.credits, line.sums.asset),
            balance=_amount(line.sums.balance, line.sums.asset),
        )
        for line in found
    ]
    return TrialBalance(at=at, axis=axis, balanced=all(one.balanced for one in totals), lines=lines, totals=totals)


def _unknown() -> Problem:
    return Problem(404, "not-found", "Your book holds no such account.")
