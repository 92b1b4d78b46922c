"""What the book says went over a settlement account, for comparing it with what the scheme says. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from hub.statements import Statements
from ledger.model import AccountKind, asset_of

_SIDES: Final = (
    "FROM ledger.book k JOIN ledger.account a ON a.book_id = k.id AND a.kind = %(kind)s AND a.asset = %(asset)s "
)
_NET: Final = (
    "SELECT t.ext_ref, sum(CASE WHEN p.cr_account = a.id THEN p.amount ELSE -p.amount END)::bigint "
    + _SIDES
    + "JOIN ledger.txn t ON t.book_id = k.id AND t.ext_ref = ANY(%(references)s) "
    "JOIN ledger.posting p ON p.txn_id = t.id AND (p.cr_account = a.id OR p.dr_account = a.id) "
    "WHERE k.code = %(book)s GROUP BY t.ext_ref"
)
_MOVED: Final = (
    "SELECT coalesce(t.ext_ref, t.idem_key), "
    "sum(CASE WHEN p.cr_account = a.id THEN p.amount ELSE -p.amount END)::bigint "
    + _SIDES
    + "JOIN ledger.posting p ON p.txn_id >= %(first)s AND p.txn_id < %(beyond)s "
    "AND (p.cr_account = a.id OR p.dr_account = a.id) "
    "JOIN ledger.txn t ON t.id = p.txn_id AND t.booked_at >= %(since)s AND t.booked_at < %(until)s "
    "JOIN ledger.account c ON c.id = CASE WHEN p.cr_account = a.id THEN p.dr_account ELSE p.cr_account END "
    "WHERE k.code = %(book)s AND c.kind <> %(opening)s GROUP BY 1"
)
_AT_OR_AFTER: Final = "SELECT id, booked_at FROM ledger.txn WHERE id >= %(id)s ORDER BY id LIMIT 1"
_DISORDER: Final = timedelta(minutes=10)
"""Transactions are numbered when they begin and timed a little later: how far the two orders may differ."""


@dataclass(frozen=True, slots=True)
class Settlements:
    """One kind of settlement account over all books, in one currency. Raises `Unavailable`.

    Amounts are minor units that left over the account; what came in is negative.
    """

    statements: Statements
    kind: AccountKind = AccountKind.STP_SETTLEMENT
    currency: str = "MXN"

    async def net(self, book: str, references: Sequence[str]) -> Mapping[str, int]:
        """What each of these payments moved in all, at any time; those that moved nothing are absent."""
        rows = await self.statements.rows(_NET, {**self._account(book), "references": list(references)})
        return dict(rows)

    async def moved(self, book: str, since: datetime, until: datetime) -> Mapping[str, int]:
        """What was booked from `since` until before `until`, by what it was booked for. Opening balances are left out.

        A movement that names no payment stands under its operation id.
        """
        given = {
            **self._account(book),
            "opening": AccountKind.OPENING_EQUITY,
            "since": since,
            "until": until,
            "first": await self._first_of(since - _DISORDER),
            "beyond": await self._first_of(until + _DISORDER),
        }
        return dict(await self.statements.rows(_MOVED, given))

    async def books(self) -> Sequence[str]:
        """Every book that has such an account: the tenants."""
        query = (
            "SELECT DISTINCT k.code FROM ledger.account a JOIN ledger.book k ON k.id = a.book_id "
            "WHERE a.kind = %(kind)s AND a.asset = %(asset)s ORDER BY k.code"
        )
        return [code for (code,) in await self.statements.rows(query, self._account(""))]

    def _account(self, book: str) -> dict[str, Any]:
        return {"book": book, "kind": self.kind, "asset": asset_of(self.currency)}

    async def _first_of(self, moment: datetime) -> int:
        """The number of the first transaction at or after a moment; numbers grow with time, so halving finds it."""
        rows = await self.statements.rows("SELECT coalesce(max(id), 0) FROM ledger.txn")
        low, high = 0, int(rows[0][0]) + 1
        while low < high:
            middle = (low + high) // 2
            found = await self.statements.rows(_AT_OR_AFTER, {"id": middle})
            if found and found[0][1] < moment:
                low = int(found[0][0]) + 1
            else:
                high = middle
        return low
