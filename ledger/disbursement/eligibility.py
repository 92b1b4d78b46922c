"""Would this store be paid now, and if not why: one SQL definition for triggers, runs and dry runs (L28 to L30, L55).

The definition is the view `disbursement.standing`.
"""

from __future__ import annotations

from collections.abc import Sequence

from hub.statements import Statements
from ledger.disbursement.model import Frequency, Verdict


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
        raise NotImplementedError

    async def due(
        self, tenant: str, frequency: Frequency, after: str | None = None, limit: int = 1000
    ) -> Sequence[str]:
        """A page of the stores of this frequency that would be paid now, by store id: those after store `after`."""
        raise NotImplementedError
