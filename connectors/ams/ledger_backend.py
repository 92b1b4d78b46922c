"""Our own ledger as the account system: the tenant's book, one database round trip per call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from connectors.ams import model
from hub.errors import Rejected
from hub.money import Money
from hub.statements import Statements
from hub.transfer import IdentifierType, Party, PaymentId, TenantId
from ledger.book import Ledger
from ledger.model import (
    STP_SETTLEMENT,
    AccountClosed,
    AccountFrozen,
    AccountRef,
    AmountNotAllowed,
    CurrencyMismatch,
    Entry,
    InsufficientFunds,
    LedgerRefused,
    Leg,
    SameAccount,
    Side,
    UnknownAccount,
)
from ledger.queries import LedgerQueries
from ledger.reports import Axis, LedgerReports, Span

REFUSED_AS: Final[dict[type[LedgerRefused], type[Rejected]]] = {
    UnknownAccount: model.AccountUnknown,
    AccountClosed: model.AccountClosed,
    AccountFrozen: model.AccountFrozen,
    CurrencyMismatch: model.CurrencyMismatch,
    InsufficientFunds: model.InsufficientFunds,
    AmountNotAllowed: model.AmountNotAllowed,
    SameAccount: model.AmountNotAllowed,
}
"""What each businesslike refusal of the book is called by a payment. The others are conflicts: no correct process meets
them."""

_MOST_LINES: Final = 499
_EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)


class LedgerBackend:
    """Implements `connectors.ams.client.AccountSystem`. An account is named by the customer's number for it."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._book = Ledger(statements, actor="ams")
        self._queries = LedgerQueries(statements)
        self._reports = LedgerReports(statements)

    async def lookup(self, tenant: TenantId, id_type: IdentifierType, identifier: str) -> model.AccountFound:
        with _refusals():
            found = await self._queries.account(tenant, id_type, identifier)
        return model.AccountFound(
            account=found.ref.owner,
            currency=found.currency,
            holder_name=found.holder_name,
            takes_debits=not (found.closed or found.debits_frozen),
            takes_credits=not (found.closed or found.credits_frozen),
        )

    async def quote(self, tenant: TenantId, payer: Party, payee: Party, amount: Money) -> model.Quote:
        with _refusals():
            quote = await self._book.quote(
                tenant,
                (payer.id_type, payer.identifier),
                (payee.id_type, payee.identifier),
                amount,
                routable=payee.id_type in model.ROUTABLE,
            )
        return model.Quote(quote.payer_account, quote.payee_account, quote.fee)

    async def hold(self, tenant: TenantId, payment: PaymentId, account: str, amount: Money, fee: Money) -> None:
        with _refusals():
            await self._book.hold(
                tenant, hold_of(payment), AccountRef.customer(account), amount, fee, reference=payment
            )

    async def book(self, tenant: TenantId, payment: PaymentId, payee_account: str) -> None:
        await self._capture(tenant, payment, AccountRef.customer(payee_account))

    async def capture(self, tenant: TenantId, payment: PaymentId) -> None:
        await self._capture(tenant, payment, STP_SETTLEMENT)

    async def _capture(self, tenant: TenantId, payment: PaymentId, to: AccountRef) -> None:
        with _refusals():
            await self._book.capture(tenant, hold_of(payment), f"{payment}:capture", to)

    async def release(self, tenant: TenantId, payment: PaymentId) -> None:
        with _refusals():
            await self._book.release(tenant, hold_of(payment), f"{payment}:release")

    async def credit(self, tenant: TenantId, payment: PaymentId, account: str, amount: Money) -> None:
        with _refusals():
            await self._book.post(
                tenant,
                f"{payment}:credit",
                [Leg(debit=STP_SETTLEMENT, credit=AccountRef.customer(account), amount=amount)],
                reference=payment,
                reason="transfer-received",
            )

    async def reverse(self, tenant: TenantId, payment: PaymentId, *, reason: str) -> None:
        with _refusals():
            await self._book.reverse(
                tenant, f"{payment}:capture", f"{payment}:reverse", reason=reason, reference=payment
            )

    async def balance(self, tenant: TenantId, account: str, currency: str) -> model.AccountBalance:
        with _refusals():
            found = await self._queries.balance(tenant, AccountRef.customer(account), currency)
        return model.AccountBalance(found.booked, found.held)

    async def statement(
        self,
        tenant: TenantId,
        account: str,
        currency: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> model.StatementPage:
        of, before, limit = AccountRef.customer(account), _sequence(cursor), min(limit, _MOST_LINES)
        with _refusals():
            await self._queries.balance(tenant, of, currency)  # refuses an account that is not there
            if since is None and until is None:
                found = await self._queries.statement(tenant, of, currency, before=before, limit=limit + 1)
            else:
                span = Span(since or _EARLIEST, until or _LATEST)
                found = (
                    await self._reports.statement(
                        tenant, of, currency, span, Axis.BOOKED, before=before, limit=limit + 1
                    )
                ).entries
        lines = tuple(_line(entry) for entry in found[:limit])
        return model.StatementPage(lines, lines[-1].entry if len(found) > limit else None)

    async def ping(self) -> None:
        await self._statements.ping()


def hold_of(payment: PaymentId) -> str:
    """The operation id under which a payment's hold stands in the book."""
    return f"{payment}:hold"


def _sequence(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise ValueError("this is no cursor of this statement")
    return int(cursor)


def _line(entry: Entry) -> model.StatementLine:
    return model.StatementLine(
        amount=entry.amount if entry.side is Side.CREDIT else -entry.amount,
        balance_after=entry.balance_after,
        booked_at=entry.booked_at,
        entry=str(entry.sequence),
        payment=PaymentId(entry.reference) if entry.reference else None,
        reason=entry.reason,
    )


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except LedgerRefused as refused:
        kind = REFUSED_AS.get(type(refused))
        if kind is None:
            raise model.AccountSystemConflict(str(refused)) from refused
        detail = "payer and payee are one account" if isinstance(refused, SameAccount) else refused.detail
        raise kind(detail) from refused
