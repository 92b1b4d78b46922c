"""Questions to the book over HTTP. The tenant of the token is the book: another tenant's objects are not found.

Roles decide who may ask: `READERS` look at accounts and payments, `REPORTERS` also at the book as a whole. Lists are
read on by the cursor of the page before; amounts are decimal strings; spans of time include their beginning and not
their end. Account numbers and names are shown in full, since whoever may ask for a single account knows it already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from zoneinfo import available_timezones

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AfterValidator, AwareDatetime

from hub.api import Caller, Problem, Verifier, build_app, not_valid, require
from hub.connector import Probe
from hub.statements import Statements
from hub.transfer import IdentifierType
from ledger.export import ENTRY_COLUMNS, POSTING_COLUMNS, Exporter, Row, csv_lines
from ledger.model import AccountRef, Balance, LedgerRefused, asset_of, currency_of
from ledger.paging import cursor, only_known_parameters, position
from ledger.queries import LedgerQueries
from ledger.reports import Axis, LedgerReports, Period, Span, UnknownZone, decimal
from ledger.views import (
    AccountTurnover,
    AccountView,
    Balances,
    BalanceView,
    EntryView,
    Holds,
    HoldView,
    PastBalance,
    PastBalances,
    PeriodView,
    Statement,
    Transactions,
    TransactionView,
    TrialBalance,
    TrialLine,
    TrialTotal,
    Turnovers,
    TurnoverView,
)

READERS: Final = ("viewer", "operator", "treasury", "auditor")
"""Roles that may look at accounts and payments."""

REPORTERS: Final = ("treasury", "auditor")
"""Roles that may look at the book as a whole and take its rows away."""

Asking = Annotated[Caller, Depends(require(*READERS))]
Reporting = Annotated[Caller, Depends(require(*REPORTERS))]
Address = Annotated[
    str, Path(description="As in `customer-deposit:A-17` or `fee-income`.", max_length=200, pattern="^[!-~]+$")
]
Identifier = Annotated[str, Path(max_length=64, pattern="^[!-~]+$")]
PageSize = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[str | None, Query(alias="cursor", max_length=200, description="`next_cursor` of the page before.")]
Currency = Annotated[str, Query(pattern="^[A-Z]{3}$")]


def _within_a_lifetime(at: datetime) -> datetime:
    if not _EARLIEST <= at <= _LATEST:
        raise ValueError(f"an instant from {_EARLIEST.year} to {_LATEST.year}")
    return at


_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
Instant = Annotated[AwareDatetime, AfterValidator(_within_a_lifetime)]
Since = Annotated[Instant, Query(alias="from", description="The first instant, with its time zone.")]
Until = Annotated[Instant, Query(alias="to", description="The first instant that no longer counts.")]
Zone = Annotated[str, Query(max_length=64, description="Whose days and months, as in `America/Mexico_City`.")]
MOST_DAYS: Final = 400
MOST_MONTHS: Final = 240


async def _queries(request: Request) -> LedgerQueries:
    queries: LedgerQueries = request.app.state.queries
    return queries


async def _reports(request: Request) -> LedgerReports:
    reports: LedgerReports = request.app.state.reports
    return reports


async def _exporter(request: Request) -> Exporter:
    exporter: Exporter = request.app.state.exporter
    return exporter


Book = Annotated[LedgerQueries, Depends(_queries)]
Reports = Annotated[LedgerReports, Depends(_reports)]
Exports = Annotated[Exporter, Depends(_exporter)]


@dataclass(frozen=True, slots=True)
class _Found:
    """An account of the caller's own book."""

    ref: AccountRef
    balances: Sequence[Balance]

    def need(self, currency: str) -> None:
        """Raises the 404 when the account does not keep this currency."""
        if all(balance.booked.currency != currency for balance in self.balances):
            raise _not_found()


async def _found(who: Asking, book: Book, account: Address) -> _Found:
    try:
        ref = AccountRef.parse(account)
    except ValueError:
        raise _not_found() from None
    balances = await book.balances(who.tenant, ref)
    if not balances:
        raise _not_found()
    return _Found(ref, balances)


Found = Annotated[_Found, Depends(_found)]


async def _span(since: Since, until: Until) -> Span:
    if since >= until:
        raise not_valid([{"parameter": "to", "code": "not-valid", "detail": "The end must come after the beginning."}])
    return Span(since, until)


Within = Annotated[Span, Depends(_span)]

router = APIRouter(prefix="/ledger", dependencies=[Depends(only_known_parameters)])


@router.get("/identifiers/{id_type}/{identifier}")
async def account_by_identifier(
    who: Asking, book: Book, id_type: IdentifierType, identifier: Identifier
) -> AccountView:
    """The account that an identifier points to."""
    try:
        return AccountView.of(await book.account(who.tenant, id_type, identifier))
    except LedgerRefused:
        raise _not_found() from None


@router.get("/accounts/{account}/balances")
async def balances(found: Found) -> Balances:
    """What an account holds, per currency."""
    return Balances(account=str(found.ref), balances=[BalanceView.of(balance) for balance in found.balances])


@router.get("/accounts/{account}/past-balances")
async def past_balances(
    who: Asking, found: Found, reports: Reports, at: Annotated[Instant, Query()], axis: Axis = Axis.BOOKED
) -> PastBalances:
    """What an account held at an instant, per currency, by the date of booking or by the value date."""
    sums = await reports.balances_at(who.tenant, found.ref, at, axis)
    return PastBalances(account=str(found.ref), at=at, axis=axis, balances=[PastBalance.of(one) for one in sums])


@router.get("/accounts/{account}/holds")
async def open_holds(
    request: Request, who: Asking, book: Book, found: Found, *, cursor_: Cursor = None, limit: PageSize = 100
) -> Holds:
    """An account's open holds, oldest first."""
    (after,) = position(request, cursor_) or (0,)
    rows = await book.open_holds(who.tenant, found.ref, after=after, limit=limit)
    return Holds(
        holds=[HoldView.of(found.ref, hold) for _, hold in rows],
        next_cursor=cursor(request, [rows[-1][0]]) if len(rows) == limit else None,
    )


@router.get("/holds")
async def holds_of_the_book(
    request: Request, who: Asking, reports: Reports, cursor_: Cursor = None, limit: PageSize = 100
) -> Holds:
    """Every open hold of the book, oldest first."""
    (after,) = position(request, cursor_) or (0,)
    rows = await reports.open_holds(who.tenant, after=after, limit=limit)
    return Holds(
        holds=[HoldView.of(account, hold) for _, account, hold in rows],
        next_cursor=cursor(request, [rows[-1][0]]) if len(rows) == limit else None,
    )


@router.get("/accounts/{account}/statement")
async def statement(
    request: Request,
    who: Asking,
    book: Book,
    reports: Reports,
    found: Found,
    *,
    currency: Currency,
    since: Annotated[Instant | None, Query(alias="from")] = None,
    until: Annotated[Instant | None, Query(alias="to")] = None,
    axis: Axis = Axis.BOOKED,
    cursor_: Cursor = None,
    limit: PageSize = 50,
) -> Statement:
    """An account's entries with running balance, newest first: all of them, or those of a span of time."""
    found.need(currency)
    (before,) = position(request, cursor_) or (None,)
    account, opening, closing = str(found.ref), None, None
    if since is None and until is None:
        entries = await book.statement(who.tenant, found.ref, currency, before=before, limit=limit)
    else:
        span = await _span(since or _EARLIEST, until or _LATEST)
        period = await reports.statement(who.tenant, found.ref, currency, span, axis, before=before, limit=limit)
        entries, asset = period.entries, asset_of(currency)
        opening, closing = decimal(period.opening, asset), decimal(period.closing, asset)
    more = len(entries) == limit and entries[-1].sequence > 1
    return Statement(
        account=account,
        currency=currency,
        opening_balance=opening,
        closing_balance=closing,
        entries=[EntryView.of(entry) for entry in entries],
        next_cursor=cursor(request, [entries[-1].sequence]) if more else None,
    )


@router.get("/accounts/{account}/turnover")
async def turnover_of_account(
    who: Asking,
    reports: Reports,
    found: Found,
    span: Within,
    *,
    currency: Currency,
    period: Period = Period.MONTH,
    zone: Zone = "UTC",
    axis: Axis = Axis.BOOKED,
) -> AccountTurnover:
    """An account's debits and credits by days or months."""
    found.need(currency)
    most = timedelta(days=MOST_DAYS if period is Period.DAY else MOST_MONTHS * 31)
    if span.until - span.since > most:
        raise not_valid(
            [{"parameter": "to", "code": "too-long", "detail": f"At most {most.days} days of this period."}]
        )
    if zone not in available_timezones():
        raise _no_such_zone()
    try:
        rows = await reports.turnover_of(who.tenant, found.ref, currency, span, axis=axis, period=period, zone=zone)
    except UnknownZone:
        raise _no_such_zone() from None
    views = [PeriodView.of(row) for row in rows]
    return AccountTurnover(account=str(found.ref), currency=currency, zone=zone, periods=views)


@router.get("/payments/{payment_id}/transactions")
async def transactions_of_payment(
    request: Request,
    who: Asking,
    book: Book,
    payment_id: Identifier,
    *,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> Transactions:
    """Everything that was booked for one payment, in order."""
    (after,) = position(request, cursor_) or (0,)
    found = await book.payment(who.tenant, payment_id, after=after, limit=limit)
    if not found and not after:
        raise _not_found()
    return Transactions(
        transactions=[TransactionView.of(transaction) for transaction in found],
        next_cursor=cursor(request, [found[-1].id]) if len(found) == limit else None,
    )


@router.get("/trial-balance")
async def trial_balance(
    who: Reporting, reports: Reports, at: Annotated[Instant | None, Query()] = None, axis: Axis = Axis.BOOKED
) -> TrialBalance:
    """Debits, credits and balance of each kind of account, now or at an instant."""
    lines = await reports.trial_balance(who.tenant, at, axis)
    totals = []
    for asset in sorted({line.sums.asset for line in lines}):
        debits = sum(line.sums.debits for line in lines if line.sums.asset == asset)
        credited = sum(line.sums.credits for line in lines if line.sums.asset == asset)
        totals.append(
            TrialTotal(
                currency=currency_of(asset),
                debits=decimal(debits, asset),
                credits=decimal(credited, asset),
                balanced=debits == credited,
            )
        )
    return TrialBalance(at=at, axis=axis, lines=[TrialLine.of(line) for line in lines], totals=totals)


@router.get("/turnover")
async def turnover(
    request: Request,
    who: Reporting,
    reports: Reports,
    span: Within,
    *,
    axis: Axis = Axis.BOOKED,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> Turnovers:
    """Every account on which something was booked within a span of time, with its debits and credits."""
    (after,) = position(request, cursor_) or (0,)
    rows = await reports.turnover(who.tenant, span, axis, after=after, limit=limit)
    return Turnovers(
        turnovers=[TurnoverView.of(row) for row in rows],
        next_cursor=cursor(request, [rows[-1].account_id]) if len(rows) == limit else None,
    )


@router.get("/postings.csv", response_class=StreamingResponse)
async def postings_as_csv(who: Reporting, exports: Exports, span: Within) -> StreamingResponse:
    """Every posting that was booked within a span of time, as CSV, oldest first."""
    return await _csv(exports.postings(who.tenant, span), POSTING_COLUMNS, "postings")


@router.get("/accounts/{account}/statement.csv", response_class=StreamingResponse)
async def statement_as_csv(
    who: Reporting, exports: Exports, found: Found, span: Within, *, currency: Currency
) -> StreamingResponse:
    """An account's entries that were booked within a span of time, as CSV, oldest first."""
    found.need(currency)
    rows = exports.statement(who.tenant, found.ref, currency, span)
    return await _csv(rows, ENTRY_COLUMNS, "statement")


@router.get("/openapi.json", response_class=JSONResponse)
async def description(_: Asking, request: Request) -> JSONResponse:
    """What can be asked, as OpenAPI."""
    return JSONResponse(request.app.openapi())


async def _csv(pages: AsyncIterator[Sequence[Row]], columns: Sequence[str], name: str) -> StreamingResponse:
    lines = csv_lines(pages, columns)
    head = await anext(lines)  # so that a database that is away is a 503 and not half an answer

    async def whole() -> AsyncIterator[bytes]:
        yield head
        async for line in lines:
            yield line

    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(whole(), media_type="text/csv; charset=utf-8", headers=headers)


def ledger_app(statements: Statements, verifier: Verifier, probes: Mapping[str, Probe]) -> FastAPI:
    """The read API of the book."""
    app = build_app("ledger", probes=probes, verifier=verifier)
    app.state.queries = LedgerQueries(statements)
    app.state.reports = LedgerReports(statements)
    app.state.exporter = Exporter(statements)
    app.include_router(router)
    return app


def _no_such_zone() -> Problem:
    return not_valid([{"parameter": "zone", "code": "not-allowed", "detail": "There is no such time zone."}])


def _not_found() -> Problem:
    return Problem(404, "not-found", "Your book holds no such object.")
