"""Balances once more, from the postings and the holds alone; and what of the kept ones disagrees (L79, L81).

The postings are the truth and a balance is a convenience, so a wrong balance can be replaced, provided that the
postings themselves are beyond doubt: their sequences, their running balances and the chain of hashes must be sound.
Replacing is for the owner of the tables; it waits for bookings under way, and each replaced row is kept in
`ledger.rebuilt_balance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from hub.failpoint import failpoint
from hub.statements import Statements, open_statements
from ledger.verify import EVIDENCE, examine

_WRONG: Final = """
  SELECT * FROM (
    SELECT b.account_id, a.kind, b.debits, b.credits, b.ver, b.hold_out,
           coalesce(s.debits, 0)::bigint AS true_debits, coalesce(s.credits, 0)::bigint AS true_credits,
           coalesce(s.ver, 0)::bigint AS true_ver, coalesce(h.held, 0)::bigint AS true_hold_out
      FROM ledger.balance b JOIN ledger.account a ON a.id = b.account_id
      LEFT JOIN (SELECT e.account_id, sum(e.amount) FILTER (WHERE e.side = 'D') AS debits,
                        sum(e.amount) FILTER (WHERE e.side = 'C') AS credits, count(*) AS ver
                   FROM ledger.entry e GROUP BY e.account_id) s USING (account_id)
      LEFT JOIN (SELECT h.from_account AS account_id, sum(h.amount - s.captured - s.released) AS held
                   FROM ledger.hold h JOIN ledger.hold_state s ON s.hold_id = h.id
                  WHERE NOT s.final GROUP BY h.from_account) h USING (account_id)) r
   WHERE (debits, credits, ver, hold_out) IS DISTINCT FROM (true_debits, true_credits, true_ver, true_hold_out)
   ORDER BY account_id"""
_COUNT: Final = "SELECT count(*) FROM ledger.balance"
_REPLACE: Final = (
    "UPDATE ledger.balance SET debits = %(debits)s, credits = %(credits)s, ver = %(ver)s, hold_out = %(hold_out)s "
    "WHERE account_id = %(account_id)s"
)
_KEEP: Final = (
    "INSERT INTO ledger.rebuilt_balance (account_id, was, became, reason) "
    "VALUES (%(account_id)s, %(was)s, %(became)s, %(reason)s)"
)


class NotRebuilt(Exception):
    """The postings themselves are in doubt; the text names the first row. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What a balance says, in minor units."""

    debits: int
    credits: int
    ver: int
    """Number of sides booked."""

    hold_out: int


@dataclass(frozen=True, slots=True)
class WrongBalance:
    """A balance that its postings and holds do not give."""

    account_id: int
    kind: str
    kept: Sums
    rebuilt: Sums

    def __str__(self) -> str:
        return f"balance of account {self.account_id} ({self.kind}): kept {self.kept}, rebuilt {self.rebuilt}"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many balances were made again, and those that differ."""

    balances: int
    wrong: Sequence[WrongBalance]
    written: bool

    @property
    def equal(self) -> bool:
        return not self.wrong

    def as_json(self) -> dict[str, Any]:
        return {
            "balances": self.balances,
            "equal": self.equal,
            "written": self.written,
            "wrong": [asdict(one) for one in self.wrong],
        }

    def __str__(self) -> str:
        if self.equal:
            return f"{self.balances} balances made again from the postings; all are equal."
        verdict = "They were replaced." if self.written else "Nothing was changed."
        return "\n".join([*map(str, self.wrong), f"{len(self.wrong)} of {self.balances} balances differ. {verdict}"])


async def rebuild(url: str, *, write: bool = False, reason: str = "") -> Rebuilt:
    """Make every balance again and compare; with `write` replace those that differ and keep `reason`.

    Raises `NotRebuilt` when the postings are in doubt, `Unavailable` when the database is away.
    """
    if write and not reason:
        raise ValueError("replacing a balance needs a reason")
    async with open_statements(url, 1, lock_timeout="30s", statement_timeout="0") as statements:
        return await _write(statements, reason) if write else await _compare(statements)


async def _compare(statements: Statements) -> Rebuilt:
    async with statements.connection() as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        count, wrong = await _looked_at(connection)
        return Rebuilt(count, wrong, written=False)


async def _write(statements: Statements, reason: str) -> Rebuilt:
    async with statements.connection() as connection, connection.transaction():
        # Bookings under way end first, new ones wait; questions are answered meanwhile.
        await connection.execute("LOCK TABLE ledger.hold_state, ledger.balance IN SHARE ROW EXCLUSIVE MODE")
        for finding in await examine(connection, EVIDENCE):
            if not finding.sound:
                raise NotRebuilt(f"{finding.check}: {finding.first}")
        count, wrong = await _looked_at(connection)
        for one in wrong:
            await connection.execute(_REPLACE, {"account_id": one.account_id, **asdict(one.rebuilt)})
            kept = {"was": Jsonb(asdict(one.kept)), "became": Jsonb(asdict(one.rebuilt)), "reason": reason}
            await connection.execute(_KEEP, {"account_id": one.account_id, **kept})
        failpoint("ledger.rebuild.before-commit")
        return Rebuilt(count, wrong, written=bool(wrong))


async def _looked_at(connection: AsyncConnection[Any]) -> tuple[int, list[WrongBalance]]:
    async with connection.cursor(row_factory=namedtuple_row) as cursor:
        rows: Sequence[Any] = await (await cursor.execute(_WRONG)).fetchall()
        (count,) = await (await cursor.execute(_COUNT)).fetchone() or (0,)
    return count, [
        WrongBalance(
            account_id=row.account_id,
            kind=row.kind,
            kept=Sums(row.debits, row.credits, row.ver, row.hold_out),
            rebuilt=Sums(row.true_debits, row.true_credits, row.true_ver, row.true_hold_out),
        )
        for row in rows
    ]
