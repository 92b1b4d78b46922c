"""What the book holds and moved for payments, for comparing it with what others say. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hub.statements import Statements
from ledger.model import AccountKind

# A reversal has its postings the other way round; fees and commissions are not what a payment is about.
_BOOKED: Final = (
    "SELECT t.ext_ref, "
    "coalesce(sum(p.amount) FILTER (WHERE t.reverses_id IS NULL AND c.kind <> ALL(%(apart)s)), 0)::bigint "
    "- coalesce(sum(p.amount) FILTER (WHERE t.reverses_id IS NOT NULL AND d.kind <> ALL(%(apart)s)), 0)::bigint, "
    "coalesce(sum(p.amount) FILTER (WHERE c.kind = %(settlement)s), 0)::bigint "
    "- coalesce(sum(p.amount) FILTER (WHERE d.kind = %(settlement)s), 0)::bigint, "
    "coalesce((SELECT sum(s.amount - s.captured - s.released) FROM ledger.txn h JOIN ledger.hold_state s "
    "ON s.hold_id = h.id WHERE h.book_id = t.book_id AND h.ext_ref = t.ext_ref), 0)::bigint "
    "FROM ledger.book k JOIN ledger.txn t ON t.book_id = k.id AND t.ext_ref = ANY(%(references)s) "
    "LEFT JOIN ledger.posting p ON p.txn_id = t.id LEFT JOIN ledger.account c ON c.id = p.cr_account "
    "LEFT JOIN ledger.account d ON d.id = p.dr_account WHERE k.code = %(book)s GROUP BY t.book_id, t.ext_ref"
)
_APART: Final = [AccountKind.FEE_INCOME, AccountKind.COMMISSION_INCOME]


@dataclass(frozen=True, slots=True)
class Booked:
    """What was booked for one payment. Minor units."""

    moved: int
    """Net of what was taken back, without fees."""
    settled: int
    """What of it left over the settlement account with the scheme; what came in is negative."""
    held: int
    """Still set aside."""


NOTHING: Final = Booked(0, 0, 0)


async def booked(statements: Statements, book: str, references: Sequence[str]) -> Mapping[str, Booked]:
    """What was booked for each of these payments; those that the book never heard of are absent.

    Raises `Unavailable`.
    """
    given = {
        "book": book,
        "references": list(references),
        "apart": _APART,
        "settlement": AccountKind.STP_SETTLEMENT,
    }
    return {row[0]: Booked(*row[1:]) for row in await statements.rows(_BOOKED, given)}
