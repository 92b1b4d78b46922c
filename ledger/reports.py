"""What a bank asks about the past and the whole book: balances at an instant, trial balance, turnover, open holds.

Instants are asked on one of two dates: `booked`, when it was written here, and `effective`, the value date. Sums are
whole minor units without a limit: those of many accounts may exceed what one account can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import psycopg

from hub.statements import Statements
from ledger.model import AccountKind, AccountRef, Entry, Hold, Side, asset_of
from ledger.queries import entry_of, hold_of


class Axis(StrEnum):
    """Which date counts."""

    BOOKED = "booked"
    """When it was written in this book."""

    EFFECTIVE = "effective"
    """The value date."""


class Period(StrEnum):
    """What turnover is added up by."""

    DAY = "day"
    MONTH = "month"


class UnknownZone(ValueError):
    """The database knows no such time zone."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `since`, included, to `until`, not included."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Sums:
    """Debits and credits of one account, or of many, in minor units of `asset`."""

    asset: str
    side: Side
    debits: int
    credits: int

    @property
    def balance(self) -> int:
        """Positive on the account's own side."""
        return self.credits - self.debits if self.side is Side.CREDIT else self.debits - self.credits

    def decimal(self, minor: int) -> str:
        """An amount as the decimal string of the wire."""
        return decimal(minor, self.asset)


def decimal(minor: int, asset: str) -> str:
    """Minor units as a decimal string, also beyond what `Money` holds."""
    digits = int(asset.partition("/")[2])
    sign, text = ("-" if minor < 0 else ""), str(abs(minor)).rjust(digits + 1, "0")
    return f"{sign}{text[:-digits]}.{text[-digits:]}" if digits else f"{sign}{text}"


@dataclass(frozen=True, slots=True)
class KindSums:
    """One line of a trial balance: all accounts of a kind in one currency."""

    kind: str
    accounts: int
    sums: Sums


@dataclass(frozen=True, slots=True)
class Turnover:
    """What was booked on an account within a span of time."""

    account_id: int
    account: AccountRef
    entries: int
    sums: Sums


@dataclass(frozen=True, slots=True)
class PeriodTurnover:
    """What was booked on an account within a day or a month that begins at `begins`."""

    begins: datetime
    entries: int
    sums: Sums


@dataclass(frozen=True, slots=True)
class PeriodStatement:
    """An account's entries within a span of time, newest first, between two balances."""

    opening: int
    closing: int
    entries: Sequence[Entry]


# Statements made of this one and nothing else than what stands here.
_ONE: Final = (
    "SELECT a.id, a.asset, a.side FROM ledger.book k JOIN ledger.account a ON a.book_id = k.id "
    "AND a.kind = %(kind)s AND a.owner_id = %(owner)s AND a.shard = 0 WHERE k.code = %(book)s"
)
_BEFORE: Final = (
    f"SELECT one.asset, one.side, s.debits, s.credits FROM ({_ONE}) one "  # noqa: S608
    "CROSS JOIN LATERAL ledger.sums_before(one.id, %(before)s::timestamptz + interval '1 microsecond', %(axis)s) s "
    "ORDER BY one.asset"
)
_TRIAL: Final = (
    "SELECT t.* FROM ledger.book k CROSS JOIN LATERAL ledger.trial_balance(k.id, "
    "%(at)s::timestamptz + interval '1 microsecond', %(axis)s) t WHERE k.code = %(book)s ORDER BY t.asset, t.kind"
)
_TURNOVER: Final = (
    "SELECT a.id, a.kind, a.owner_id, a.asset, a.side, sum(u.debits) AS debits, sum(u.credits) AS credits, "
    "count(*) AS entries FROM ledger.book k CROSS JOIN LATERAL ("
    "SELECT t.id FROM ledger.txn t WHERE t.book_id = k.id AND %(axis)s = 'booked' "
    "AND t.booked_at >= %(from)s AND t.booked_at < %(to)s "
    "UNION ALL SELECT t.id FROM ledger.txn t WHERE t.book_id = k.id AND %(axis)s = 'effective' "
    "AND t.effective_at >= %(from)s AND t.effective_at < %(to)s "
    "AND t.booked_at >= %(from)s::timestamptz - interval '1 minute' "
    "AND t.booked_at < %(to)s::timestamptz + interval '1 minute' "
    "AND NOT ledger.is_value_dated(t.booked_at, t.effective_at) "
    "UNION ALL SELECT t.id FROM ledger.txn t WHERE t.book_id = k.id AND %(axis)s = 'effective' "
    "AND t.effective_at >= %(from)s AND t.effective_at < %(to)s "
    "AND t.booked_at - t.effective_at NOT BETWEEN interval '-1 minute' AND interval '1 minute') t "
    "JOIN ledger.posting p ON p.txn_id = t.id "
    "CROSS JOIN LATERAL (VALUES (p.dr_account, p.amount, 0), (p.cr_account, 0, p.amount)) "
    "AS u (account_id, debits, credits) "
    "JOIN ledger.account a ON a.id = u.account_id "
    "WHERE k.code = %(book)s AND a.id > %(after)s GROUP BY a.id ORDER BY a.id LIMIT %(limit)s"
)
_OF_ACCOUNT: Final = (
    "SELECT date_trunc(%(period)s, e.at, %(zone)s) AS begins, one.asset, one.side, "  # noqa: S608
    "count(*) AS entries, "
    "coalesce(sum(e.amount) FILTER (WHERE e.side = 'D'), 0) AS debits, "
    f"coalesce(sum(e.amount) FILTER (WHERE e.side = 'C'), 0) AS credits FROM ({_ONE}) one "
    "CROSS JOIN LATERAL ledger.entries_between(one.id, %(from)s, %(to)s, %(axis)s) e "
    "WHERE one.asset = %(asset)s GROUP BY 1, 2, 3 ORDER BY 1"
)
_BETWEEN: Final = (
    f"WITH one AS ({_ONE} AND a.asset = %(asset)s) "  # noqa: S608
    "SELECT e.seq, e.side, e.txn_id, e.amount, v.balance_after AS after, t.idem_key, t.kind AS txn_kind, t.ext_ref, "
    "t.reason_code, t.booked_at, t.effective_at, c.kind, c.owner_id FROM "
    "(SELECT one.id, e.* FROM one CROSS JOIN LATERAL "
    "ledger.entries_between(one.id, %(from)s, %(to)s, %(axis)s) e WHERE e.seq < %(before)s "
    "ORDER BY e.seq DESC LIMIT %(limit)s) e "
    "CROSS JOIN LATERAL (SELECT * FROM ledger.entry v WHERE v.account_id = e.id AND v.seq = e.seq OFFSET 0) v "
    "JOIN ledger.txn t ON t.id = e.txn_id JOIN ledger.account c ON c.id = v.contra_id ORDER BY e.seq DESC"
)
_EDGES: Final = (
    "SELECT one.asset, one.side, o.debits, o.credits, c.debits AS debits_at_end, "  # noqa: S608
    "c.credits AS credits_at_end FROM "
    f"({_ONE} AND a.asset = %(asset)s) one "
    "CROSS JOIN LATERAL ledger.sums_before(one.id, %(from)s, %(axis)s) o "
    "CROSS JOIN LATERAL ledger.sums_before(one.id, %(to)s, %(axis)s) c"
)
_HOLDS: Final = (
    "SELECT s.hold_id, t.idem_key, t.ext_ref, h.asset, h.amount, h.fee, t.booked_at, s.expires_at, s.captured, "
    "a.kind, a.owner_id FROM ledger.book k JOIN ledger.txn t ON t.book_id = k.id "
    "JOIN ledger.hold_state s ON s.hold_id = t.id AND NOT s.final AND s.hold_id > %(after)s "
    "JOIN ledger.hold h ON h.id = s.hold_id JOIN ledger.account a ON a.id = h.from_account "
    "WHERE k.code = %(book)s ORDER BY s.hold_id LIMIT %(limit)s"
)


class LedgerReports:
    """Questions about the past and the whole book. Raises `Unavailable` when the database is away or takes too long."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def balances_at(self, book: str, account: AccountRef, at: datetime, axis: Axis) -> Sequence[Sums]:
        """What an account held at an instant, that instant included, per currency; empty without such an account."""
        values = {"book": book, "kind": account.kind, "owner": account.owner, "before": at, "axis": axis}
        return [
            Sums(row.asset, Side(row.side), int(row.debits), int(row.credits))
            for row in await self._statements.named_rows(_BEFORE, values)
        ]

    async def trial_balance(self, book: str, at: datetime | None, axis: Axis) -> Sequence[KindSums]:
        """Every kind of account with its sums, now or at an instant. Debits and credits of a currency are equal."""
        return [
            KindSums(row.kind, row.accounts, Sums(row.asset, Side(row.side), int(row.debits), int(row.credits)))
            for row in await self._statements.named_rows(_TRIAL, {"book": book, "at": at, "axis": axis})
        ]

    async def turnover(self, book: str, span: Span, axis: Axis, *, after: int, limit: int) -> Sequence[Turnover]:
        """Every account on which something was booked, by account number."""
        values = {"book": book, "from": span.since, "to": span.until, "axis": axis, "after": after, "limit": limit}
        return [
            Turnover(
                account_id=row.id,
                account=AccountRef(AccountKind(row.kind), row.owner_id),
                entries=row.entries,
                sums=Sums(row.asset, Side(row.side), int(row.debits), int(row.credits)),
            )
            for row in await self._statements.named_rows(_TURNOVER, values)
        ]

    async def turnover_of(
        self,
        book: str,
        account: AccountRef,
        currency: str,
        span: Span,
        *,
        axis: Axis,
        period: Period,
        zone: str,
    ) -> Sequence[PeriodTurnover]:
        """An account's turnover by days or months of a time zone; without those on which nothing was booked.

        Raises `UnknownZone`.
        """
        values = {
            "book": book,
            "kind": account.kind,
            "owner": account.owner,
            "asset": asset_of(currency),
            "from": span.since,
            "to": span.until,
            "axis": axis,
            "period": period,
            "zone": zone,
        }
        try:
            rows = await self._statements.named_rows(_OF_ACCOUNT, values)
        except psycopg.errors.InvalidParameterValue as error:
            raise UnknownZone(zone) from error
        return [
            PeriodTurnover(row.begins, row.entries, Sums(row.asset, Side(row.side), int(row.debits), int(row.credits)))
            for row in rows
        ]

    async def statement(
        self,
        book: str,
        account: AccountRef,
        currency: str,
        span: Span,
        axis: Axis,
        *,
        before: int | None,
        limit: int,
    ) -> PeriodStatement:
        """An account's entries within a span, newest first, with sequences below `before`."""
        values = {
            "book": book,
            "kind": account.kind,
            "owner": account.owner,
            "asset": asset_of(currency),
            "from": span.since,
            "to": span.until,
            "axis": axis,
            "before": 2**63 - 1 if before is None else before,
            "limit": limit,
        }
        rows = await self._statements.named_rows(_BETWEEN, values)
        ((asset, side, *edges),) = await self._statements.named_rows(_EDGES, values)
        opening, closing = (
            Sums(asset, Side(side), int(debits), int(credits_)).balance for debits, credits_ in (edges[:2], edges[2:])
        )
        entries = [entry_of(row, currency) for row in rows]
        return PeriodStatement(opening, closing, entries)

    async def open_holds(self, book: str, *, after: int, limit: int) -> Sequence[tuple[int, AccountRef, Hold]]:
        """Every hold of the book that is neither captured nor released, oldest first, each with its number."""
        return [
            (
                row.hold_id,
                AccountRef(AccountKind(row.kind), row.owner_id),
                hold_of(row),
            )
            for row in await self._statements.named_rows(_HOLDS, {"book": book, "after": after, "limit": limit})
        ]
