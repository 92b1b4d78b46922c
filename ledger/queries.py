"""What can be asked of the book. Reads only; every list is bounded and read on by the last row's number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hub.money import Money
from hub.statements import Statements
from ledger.model import (
    Account,
    AccountKind,
    AccountRef,
    Balance,
    CurrencyMismatch,
    Entry,
    Hold,
    Posting,
    Side,
    Transaction,
    UnknownAccount,
    asset_of,
    currency_of,
)

MAX_PAGE: Final = 500

_BY_IDENTIFIER: Final = (
    "SELECT a.kind, a.owner_id, a.asset, h.name, b.debits_frozen, b.credits_frozen, b.closed "
    "FROM ledger.book k "
    "JOIN ledger.account_identifier i "
    "ON i.book_id = k.id AND i.id_type = %(id_type)s AND i.identifier = %(identifier)s "
    "JOIN ledger.account a ON a.id = i.account_id "
    "JOIN ledger.balance b ON b.account_id = a.id "
    "LEFT JOIN ledger.account_holder h ON h.account_id = a.id "
    "WHERE k.code = %(book)s"
)
_BALANCES: Final = (
    "SELECT a.asset, CASE b.side WHEN 'C' THEN b.credits - b.debits ELSE b.debits - b.credits END AS booked, "
    "b.hold_out, b.ver "
    "FROM ledger.book k "
    "JOIN ledger.account a ON a.book_id = k.id AND a.kind = %(kind)s AND a.owner_id = %(owner)s AND a.shard = 0 "
    "JOIN ledger.balance b ON b.account_id = a.id "
    "WHERE k.code = %(book)s ORDER BY a.asset"
)
_OPEN_HOLDS: Final = (
    "SELECT s.hold_id, t.idem_key, t.ext_ref, a.asset, h.amount, h.fee, t.booked_at, s.expires_at "
    "FROM ledger.book k "
    "JOIN ledger.account a ON a.book_id = k.id AND a.kind = %(kind)s AND a.owner_id = %(owner)s AND a.shard = 0 "
    "JOIN ledger.hold_state s ON s.from_account = a.id AND NOT s.final AND s.hold_id > %(after)s "
    "JOIN ledger.hold h ON h.id = s.hold_id JOIN ledger.txn t ON t.id = s.hold_id "
    "WHERE k.code = %(book)s ORDER BY s.hold_id LIMIT %(limit)s"
)
_OF_PAYMENT: Final = (
    "SELECT t.id, t.idem_key, t.kind, t.ext_ref, t.booked_at, t.effective_at, p.leg, p.asset, p.amount, p.dr_after, "
    "p.cr_after, d.kind AS dr_kind, d.owner_id AS dr_owner, c.kind AS cr_kind, c.owner_id AS cr_owner "
    "FROM (SELECT t.* FROM ledger.book k JOIN ledger.txn t ON t.book_id = k.id AND t.ext_ref = %(reference)s "
    "AND t.id > %(after)s WHERE k.code = %(book)s ORDER BY t.id LIMIT %(limit)s) t "
    "LEFT JOIN ledger.posting p ON p.txn_id = t.id "
    "LEFT JOIN ledger.account d ON d.id = p.dr_account LEFT JOIN ledger.account c ON c.id = p.cr_account "
    "ORDER BY t.id, p.leg"
)
# Both branches walk an index of (account, sequence) backwards and stop after a page, however long the account's life.
_STATEMENT: Final = (
    "WITH one AS (SELECT a.id FROM ledger.book k JOIN ledger.account a ON a.book_id = k.id AND a.kind = %(kind)s "
    "AND a.owner_id = %(owner)s AND a.asset = %(asset)s AND a.shard = 0 WHERE k.code = %(book)s), "
    "page AS ("
    "(SELECT p.dr_seq AS seq, 'D' AS side, p.txn_id, p.amount, p.dr_after AS after, p.cr_account AS contra "
    "FROM ledger.posting p WHERE p.dr_account = (SELECT id FROM one) AND p.dr_seq < %(before)s "
    "ORDER BY p.dr_seq DESC LIMIT %(limit)s) "
    "UNION ALL "
    "(SELECT p.cr_seq, 'C', p.txn_id, p.amount, p.cr_after, p.dr_account "
    "FROM ledger.posting p WHERE p.cr_account = (SELECT id FROM one) AND p.cr_seq < %(before)s "
    "ORDER BY p.cr_seq DESC LIMIT %(limit)s)) "
    "SELECT page.*, t.idem_key, t.kind AS txn_kind, t.ext_ref, t.reason_code, t.booked_at, t.effective_at, "
    "a.kind, a.owner_id "
    "FROM page JOIN ledger.txn t ON t.id = page.txn_id JOIN ledger.account a ON a.id = page.contra "
    "ORDER BY page.seq DESC LIMIT %(limit)s"
)


class LedgerQueries:
    """Questions to the book. Raises `Unavailable` when the database is away."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def account(self, book: str, id_type: str, identifier: str) -> Account:
        """The account that an identifier points to. Raises `UnknownAccount`."""
        rows = await self._statements.named_rows(
            _BY_IDENTIFIER, {"book": book, "id_type": id_type, "identifier": identifier}
        )
        if not rows:
            raise UnknownAccount("identifier")
        row = rows[0]
        return Account(
            ref=_ref(row.kind, row.owner_id),
            currency=currency_of(row.asset),
            holder_name=row.name,
            debits_frozen=row.debits_frozen,
            credits_frozen=row.credits_frozen,
            closed=row.closed,
        )

    async def balances(self, book: str, account: AccountRef) -> Sequence[Balance]:
        """The account's balance in each of its currencies; empty when there is no such account."""
        return [
            Balance(
                account=account,
                booked=Money(row.booked, currency_of(row.asset)),
                held=Money(row.hold_out, currency_of(row.asset)),
                sequence=row.ver,
            )
            for row in await self._statements.named_rows(
                _BALANCES, {"book": book, "kind": account.kind, "owner": account.owner}
            )
        ]

    async def balance(self, book: str, account: AccountRef, currency: str) -> Balance:
        """The balance in one currency. Raises `UnknownAccount`, `CurrencyMismatch`."""
        found = await self.balances(book, account)
        for balance in found:
            if balance.booked.currency == currency:
                return balance
        raise CurrencyMismatch if found else UnknownAccount

    async def open_holds(
        self, book: str, account: AccountRef, *, after: int = 0, limit: int = MAX_PAGE
    ) -> Sequence[tuple[int, Hold]]:
        """Holds that are neither captured nor released, oldest first, each with its number to read on `after`."""
        values = {"book": book, "kind": account.kind, "owner": account.owner, "after": after, "limit": limit}
        return [
            (
                row.hold_id,
                hold_of(row),
            )
            for row in await self._statements.named_rows(_OPEN_HOLDS, values)
        ]

    async def payment(
        self, book: str, reference: str, *, after: int = 0, limit: int = MAX_PAGE
    ) -> Sequence[Transaction]:
        """Everything that was booked for one payment, in order: at most `limit` transactions numbered above `after`."""
        found: dict[int, tuple[Any, list[Posting]]] = {}
        values = {"book": book, "reference": reference, "after": after, "limit": limit}
        for row in await self._statements.named_rows(_OF_PAYMENT, values):
            _, postings = found.setdefault(row.id, (row, []))
            if row.leg is not None:
                currency = currency_of(row.asset)
                postings.append(
                    Posting(
                        leg=row.leg,
                        debit=_ref(row.dr_kind, row.dr_owner),
                        credit=_ref(row.cr_kind, row.cr_owner),
                        amount=Money(row.amount, currency),
                        debit_balance=Money(row.dr_after, currency),
                        credit_balance=Money(row.cr_after, currency),
                    )
                )
        return [
            Transaction(row.id, row.idem_key, row.kind, row.ext_ref, row.booked_at, row.effective_at, postings)
            for row, postings in found.values()
        ]

    async def statement(
        self, book: str, account: AccountRef, currency: str, *, before: int | None = None, limit: int = 50
    ) -> Sequence[Entry]:
        """Lines of a statement with running balance, newest first, with sequences below `before`."""
        values = {
            "book": book,
            "kind": account.kind,
            "owner": account.owner,
            "asset": asset_of(currency),
            "before": 2**63 - 1 if before is None else before,
            "limit": min(limit, MAX_PAGE),
        }
        return [entry_of(row, currency) for row in await self._statements.named_rows(_STATEMENT, values)]


def hold_of(row: Any) -> Hold:
    """A hold of a row with idem_key, ext_ref, asset, amount, fee, booked_at and expires_at."""
    currency = currency_of(row.asset)
    return Hold(
        operation=row.idem_key,
        reference=row.ext_ref,
        amount=Money(row.amount, currency),
        fee=Money(row.fee, currency),
        placed_at=row.booked_at,
        expires_at=row.expires_at,
    )


def entry_of(row: Any, currency: str) -> Entry:
    """A line of a statement of a row as `LedgerQueries.statement` reads it."""
    return Entry(
        sequence=row.seq,
        side=Side(row.side),
        amount=Money(row.amount, currency),
        balance_after=Money(row.after, currency),
        contra=_ref(row.kind, row.owner_id),
        transaction=row.txn_id,
        operation=row.idem_key,
        kind=row.txn_kind,
        reference=row.ext_ref,
        reason=row.reason_code,
        booked_at=row.booked_at,
        effective_at=row.effective_at,
    )


def _ref(kind: str, owner: str) -> AccountRef:
    return AccountRef(AccountKind(kind), owner)
