"""Would this store be paid now, and if not why: one SQL definition for triggers, runs and dry runs (L28 to L30, L55).

The definition is the view `disbursement.standing`.
"""

# ruff: noqa: S608 (values are always bound; only our own column lists are put together)
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from hub.money import Money
from hub.statements import Statements
from ledger.disbursement.model import CURRENCY, Frequency, Verdict, VerdictCode
from ledger.disbursement.updates import checked_limit

VERDICT_COLUMNS: Final = "n.store_id, n.merchant_id, n.frequency, n.updates, n.total::bigint, n.minimum_amount"

_FILTERS: Final[dict[str, LiteralString]] = {
    "frequency": "AND n.frequency = %(frequency)s ",
    "store": "AND n.store_id = %(store)s ",
    "merchant": "AND n.merchant_id = %(merchant)s ",
    "after": "AND n.store_id > %(after)s ",
}


class Eligibility:
    """Questions only: nothing is written. Raises `hub.errors.Unavailable`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def explain(
        self,
        tenant: str,
        *,
        frequency: Frequency | None = None,
        store: str | None = None,
        merchant: str | None = None,
        after: str | None = None,
        limit: int = 1000,
        by_hand: bool = False,
    ) -> Sequence[Verdict]:
        """A page of verdicts, by store id: those after store `after`. `by_hand`: as of a `MANUAL` trigger (L30)."""
        asked = {"frequency": frequency, "store": store, "merchant": merchant, "after": after}
        rows = await self._page(tenant, asked, limit, "n.verdict_by_hand" if by_hand else "n.verdict", "")
        return [read_verdict(row) for row in rows]

    async def due(
        self, tenant: str, frequency: Frequency, after: str | None = None, limit: int = 1000
    ) -> Sequence[str]:
        """A page of the stores of this frequency that would be paid now, by store id: those after store `after`."""
        asked = {"frequency": frequency, "after": after}
        rows = await self._page(tenant, asked, limit, "n.verdict", "AND n.verdict = 'PAY' ")
        return [row[1] for row in rows]

    async def _page(
        self, tenant: str, asked: dict[str, str | None], limit: int, verdict: LiteralString, only: LiteralString
    ) -> list[Any]:
        query: LiteralString = (
            "SELECT "
            + verdict
            + ", "
            + VERDICT_COLUMNS
            + " FROM disbursement.standing n WHERE n.tenant_id = %(tenant)s "
        )
        for name, given in asked.items():
            if given is not None:
                query += _FILTERS[name]
        query += only + "ORDER BY n.store_id LIMIT %(limit)s"
        return await self._statements.rows(query, {"tenant": tenant, **asked, "limit": checked_limit(limit)})


def read_verdict(row: Sequence[Any]) -> Verdict:
    """A verdict's code and a row of `VERDICT_COLUMNS`."""
    code, store, merchant, frequency, updates, total, minimum = row
    return Verdict(
        store,
        merchant,
        Frequency(frequency),
        VerdictCode(code),
        updates,
        Money(total, CURRENCY),
        Money(minimum, CURRENCY),
    )
