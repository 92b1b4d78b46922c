"""What comes in about a store's money, kept whatever becomes of it (L34).

An event is written in a transaction of its own before it is handled, and what became of it after. When the handling is
undone, the event and its error stay; when the process dies in the middle, the event stays without an outcome.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import psycopg
from psycopg.types.json import Jsonb

from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.statements import Statements
from hub.telemetry import logger
from ledger.disbursement.model import DisbursementRefused, Event
from ledger.model import LedgerRefused

_RECEIVED: Final = (
    "INSERT INTO disbursement.event_log (tenant_id, source, kind, event_id, payload) "
    "VALUES (%(tenant)s, %(source)s, %(kind)s, %(event_id)s, %(payload)s) RETURNING id"
)
_ENDED: Final = (
    "INSERT INTO disbursement.event_outcome (event_id, outcome, error) VALUES (%(id)s, %(outcome)s, %(error)s)"
)
_COLUMNS: Final = (
    "SELECT e.id, e.source, e.kind, e.event_id, e.received_at, o.outcome, o.error "
    "FROM disbursement.event_log e LEFT JOIN disbursement.event_outcome o ON o.event_id = e.id "
)
_ABOUT: Final = _COLUMNS + "WHERE e.tenant_id = %(tenant)s AND e.event_id = %(event_id)s ORDER BY e.id"
_CUT_OFF: Final = (
    _COLUMNS + "WHERE e.tenant_id = %(tenant)s AND o.event_id IS NULL "
    "AND e.received_at < clock_timestamp() - %(age)s::interval ORDER BY e.id LIMIT 1000"
)

log = logger(__name__)


@dataclass(slots=True)
class Handling:
    """An event while it is handled; whoever handles it says when it was a repeat."""

    outcome: Literal["handled", "repeated"] = "handled"


class EventLog:
    """The log of events. Raises `hub.errors.Unavailable`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    @asynccontextmanager
    async def handling(
        self, tenant: str, source: str, kind: str, event_id: str, payload: Mapping[str, Any]
    ) -> AsyncIterator[Handling]:
        """Log an event, let the block handle it, and log what became of it, the block's error included.

        What the block raises is raised again. An event that cannot be logged is not handled.
        """
        values = {
            "tenant": tenant,
            "source": source,
            "kind": kind,
            "event_id": event_id,
            "payload": Jsonb(dict(payload)),
        }
        ((logged,),) = await self._statements.rows(_RECEIVED, values)
        failpoint("disbursement.event.after-log")
        handling = Handling()
        try:
            yield handling
        except (DisbursementRefused, LedgerRefused) as refused:
            log.warning("event.refused", tenant=tenant, source=source, kind=kind, id=event_id, why=str(refused))
            await self._ended(logged, "refused", str(refused))
            raise
        except Exception as error:
            await self._ended(logged, "failed", _told(error))
            raise
        await self._ended(logged, handling.outcome, None)

    async def about(self, tenant: str, event_id: str) -> Sequence[Event]:
        """The events of this id, oldest first."""
        rows = await self._statements.rows(_ABOUT, {"tenant": tenant, "event_id": event_id})
        return [Event(*row) for row in rows]

    async def cut_off(self, tenant: str, age: timedelta = timedelta(minutes=5)) -> Sequence[Event]:
        """The oldest events that nothing became of for `age`: whoever handled them died, and nothing was changed."""
        return [Event(*row) for row in await self._statements.rows(_CUT_OFF, {"tenant": tenant, "age": age})]

    async def _ended(self, event: int, outcome: str, error: str | None) -> None:
        # Without the outcome the event counts as cut off, which is the truth an operator needs.
        with suppress(Unavailable):
            await self._statements.rows(_ENDED, {"id": event, "outcome": outcome, "error": error})


def _told(error: Exception) -> str:
    """An error without values of rows, which may be personal data."""
    if isinstance(error, psycopg.Error):
        return f"{type(error).__name__} {error.sqlstate or ''} {error.diag.constraint_name or ''}".strip()
    return f"{type(error).__name__}: {error}"
