"""What STP posted and a person must look at: unknown orders and statuses, contradictions, what could not be read.

Nothing of it is ever dropped (H4). The raw bodies hold personal data and stay in the database; this shows what became
of them, and the number under which a person finds the body in `stp.callback`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from connectors.stp.orders import CallbackResult
from hub.settings import DatabaseSettings, read
from hub.statements import Statements, open_statements

FOR_PEOPLE: Final = (
    CallbackResult.CONFLICT,
    CallbackResult.UNKNOWN_ORDER,
    CallbackResult.UNKNOWN_STATUS,
    CallbackResult.MALFORMED,
    CallbackResult.FAILED,
)
_CALLBACKS: Final = """
    SELECT c.id, c.kind, c.result, c.times, c.received_at, c.last_received_at, c.payment_id, o.state
      FROM stp.callback c LEFT JOIN stp.stp_order o ON o.payment_id = c.payment_id
     WHERE c.result IN ('conflict', 'unknown-order', 'unknown-status', 'malformed', 'failed') AND c.id < %(before)s
       AND (CAST(%(result)s AS text) IS NULL OR c.result = %(result)s)
     ORDER BY c.id DESC LIMIT %(limit)s
    """


@dataclass(frozen=True, slots=True)
class Looked:
    """One callback that waits for a person."""

    id: int
    kind: str
    result: CallbackResult
    times: int
    """How often STP posted it."""
    received_at: datetime
    last_received_at: datetime
    payment_id: str | None
    state: str | None
    """The order's state now, where the callback belongs to one."""

    def as_json(self) -> dict[str, Any]:
        return {
            "id": str(self.id),
            "kind": self.kind,
            "result": self.result.value,
            "times": self.times,
            "receivedAt": self.received_at.isoformat(),
            "lastReceivedAt": self.last_received_at.isoformat(),
            "paymentId": self.payment_id,
            "orderState": self.state,
        }

    def __str__(self) -> str:
        order = f" of payment {self.payment_id}, {self.state}" if self.payment_id else ""
        return f"{self.id}  {self.received_at:%Y-%m-%d %H:%M:%S}  {self.kind}: {self.result}{order}, {self.times} times"


class Inbox:
    """Asks for callbacks that wait for a person, newest first."""

    def __init__(self, database: Statements) -> None:
        self._database = database

    async def look(
        self, *, result: CallbackResult | None = None, before: int | None = None, limit: int = 100
    ) -> Sequence[Looked]:
        """Up to `limit` of them with numbers below `before`; `result`: only those that came to this."""
        given = {"result": result, "before": 2**63 - 1 if before is None else before, "limit": limit}
        rows = await self._database.rows(_CALLBACKS, given)
        return [Looked(row[0], row[1], CallbackResult(row[2]), *row[3:]) for row in rows]


async def look(result: str | None, before: int | None, limit: int) -> Sequence[Looked]:
    """As `Inbox.look`, on the database of the settings. Raises `ValueError` for a word that is no such result."""
    wanted = CallbackResult(result) if result else None
    if wanted is not None and wanted not in FOR_PEOPLE:
        raise ValueError(f"{result} is none of {', '.join(FOR_PEOPLE)}")
    async with open_statements(read(DatabaseSettings).url, 1) as database:
        return await Inbox(database).look(result=wanted, before=before, limit=limit)
