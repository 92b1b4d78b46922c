"""Questions to the book over HTTP. The tenant of the token is the book: another tenant's objects are not found.

Lists are read on by a cursor, the number of the last row given; amounts are decimal strings. Account numbers and names
are shown in full, since whoever may ask for a single account knows it already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from pydantic import BaseModel

from hub.api import Caller, Problem, Verifier, build_app, caller
from hub.connector import Probe
from hub.transfer import IdentifierType
from ledger.model import (
    Account,
    AccountRef,
    Balance,
    Entry,
    Hold,
    LedgerRefused,
    Posting,
    Side,
    Transaction,
)
from ledger.queries import LedgerQueries

Asking = Annotated[Caller, Depends(caller)]
Address = Annotated[
    str, Path(description="As in `customer-deposit:A-17` or `fee-income`.", max_length=200, pattern="^[!-~]+$")
]
Identifier = Annotated[str, Path(max_length=64, pattern="^[!-~]+$")]
PageSize = Annotated[int, Query(ge=1, le=500)]


class AccountView(BaseModel):
    """An account as an identifier finds it."""

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

    operation: str
    reference: str | None
    currency: str
    amount: str
    fee: str
    placed_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, hold: Hold) -> Self:
        return cls(
            operation=hold.operation,
            reference=hold.reference,
            currency=hold.amount.currency,
            amount=hold.amount.decimal(),
            fee=hold.fee.decimal(),
            placed_at=hold.placed_at,
            expires_at=hold.expires_at,
        )


class PostingView(BaseModel):
    """One row of the book."""

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


class Holds(BaseModel):
    holds: list[HoldView]
    next_after: int | None
    """Give it as `after` for the next page; absent on the last."""


class Statement(BaseModel):
    account: str
    currency: str
    entries: list[EntryView]
    next_before: int | None
    """Give it as `before` for the next page, further back; absent on the last."""


class Transactions(BaseModel):
    transactions: list[TransactionView]


async def _queries(request: Request) -> LedgerQueries:
    queries: LedgerQueries = request.app.state.queries
    return queries


Book = Annotated[LedgerQueries, Depends(_queries)]


@dataclass(frozen=True, slots=True)
class _Found:
    """An account of the caller's own book."""

    ref: AccountRef
    balances: Sequence[Balance]


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

router = APIRouter(prefix="/ledger")


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


@router.get("/accounts/{account}/holds")
async def open_holds(
    who: Asking, book: Book, found: Found, after: Annotated[int, Query(ge=0, lt=2**63)] = 0, limit: PageSize = 100
) -> Holds:
    """An account's open holds, oldest first."""
    rows = await book.open_holds(who.tenant, found.ref, after=after, limit=limit)
    return Holds(holds=[HoldView.of(hold) for _, hold in rows], next_after=rows[-1][0] if len(rows) == limit else None)


@router.get("/accounts/{account}/statement")
async def statement(
    who: Asking,
    book: Book,
    found: Found,
    *,
    currency: Annotated[str, Query(pattern="^[A-Z]{3}$")],
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: PageSize = 50,
) -> Statement:
    """An account's entries with running balance, newest first."""
    if all(balance.booked.currency != currency for balance in found.balances):
        raise _not_found()
    entries = await book.statement(who.tenant, found.ref, currency, before=before, limit=limit)
    return Statement(
        account=str(found.ref),
        currency=currency,
        entries=[EntryView.of(entry) for entry in entries],
        next_before=entries[-1].sequence if entries and entries[-1].sequence > 1 else None,
    )


@router.get("/payments/{payment_id}/transactions")
async def transactions_of_payment(who: Asking, book: Book, payment_id: Identifier) -> Transactions:
    """Everything that was booked for one payment, in order."""
    found = await book.payment(who.tenant, payment_id)
    if not found:
        raise _not_found()
    return Transactions(transactions=[TransactionView.of(transaction) for transaction in found])


def ledger_app(queries: LedgerQueries, verifier: Verifier, probes: Mapping[str, Probe]) -> FastAPI:
    """The read API of the book."""
    app = build_app("ledger", probes=probes, verifier=verifier)
    app.state.queries = queries
    app.include_router(router)
    return app


def _not_found() -> Problem:
    return Problem(404, "not-found", "Your book holds no such object.")
