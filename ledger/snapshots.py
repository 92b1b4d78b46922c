"""Balances kept for questions about the past: of every account at each midnight (UTC) before which it changed, and of
the book's own accounts, which nearly every payment touches, more often.

A snapshot is final: nothing that was booked before its instant may still be under way when it is taken. A transaction
has its time before it has its number, so the taker waits a while, notes which transactions run, and waits for their
end.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg import AsyncConnection

from hub.failpoint import failpoint
from hub.statements import Statements
from hub.telemetry import logger

GRACE: Final = timedelta(seconds=30)
"""How long before now an instant must lie: what took its time before it has shown itself since."""

BUSY: Final = 1000
"""Sides on an account of the book itself after which it is kept once more before midnight."""

_MISSED: Final = 31  # midnights that are made up for after an outage; older questions take a little longer
_PATIENCE: Final = 50
_PAUSE: Final = 0.2  # seconds
_ONE_TAKER: Final = 7205

# The last instant of all, the last midnight of all, and whether an account of the book itself has grown.
_STATE: Final = (
    "SELECT clock_timestamp(), max(r.as_of), max(r.as_of) FILTER (WHERE r.every), "
    "(SELECT bool_or(b.ver - coalesce(s.last_seq, 0) >= %(busy)s) FROM ledger.account a "
    "JOIN ledger.balance b ON b.account_id = a.id "
    "LEFT JOIN LATERAL (SELECT * FROM ledger.snapshot s WHERE s.account_id = a.id ORDER BY s.as_of DESC LIMIT 1) s "
    "ON true WHERE a.owner_type = 'book') FROM ledger.snapshot_run r"
)
# A number of our own: whatever runs has a lower one. (A snapshot's xmax may be below numbers that run.)
_RUNNING: Final = "SELECT pg_current_xact_id()::text"
_ENDED: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > %(running)s::xid8"
_TAKE: Final = "SELECT ledger.take_snapshots(%(as_of)s, %(every)s)"

log = logger(__name__)


async def take_due(statements: Statements, *, grace: timedelta = GRACE, busy: int = BUSY) -> int:
    """Take the snapshots that are due and tell how many rows were kept. Raises `Unavailable`.

    Any number may call it; one at a time does something.
    """
    async with statements.connection() as connection:
        if not await _one(connection, "SELECT pg_try_advisory_lock(%(lock)s)", lock=_ONE_TAKER):
            return 0
        try:
            return await _take_due(connection, grace, busy)
        finally:
            await _one(connection, "SELECT pg_advisory_unlock(%(lock)s)", lock=_ONE_TAKER)


async def _take_due(connection: AsyncConnection[Any], grace: timedelta, busy: int) -> int:
    ((now, newest, midnight, grown),) = await (await connection.execute(_STATE, {"busy": busy})).fetchall()
    settled = (now - grace).astimezone(UTC)
    due = [(instant, True) for instant in midnights(midnight, settled) if newest is None or instant > newest]
    if grown and (newest is None or settled > newest):
        due.append((settled, False))
    if not due or not await _all_ended(connection):
        return 0
    kept = 0
    for as_of, every in due:
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 0")  # the first one reads the whole book
            kept += await _one(connection, _TAKE, as_of=as_of, every=every)
            failpoint("ledger.snapshot.before-commit")
        log.info("snapshots.taken", as_of=as_of.isoformat(), every=every, kept=kept)
    return kept


async def _all_ended(connection: AsyncConnection[Any]) -> bool:
    """Whether every transaction that runs now has ended within a few seconds; else the next look tries again."""
    running = await _one(connection, _RUNNING)
    for _ in range(_PATIENCE):
        if await _one(connection, _ENDED, running=running):
            return True
        await asyncio.sleep(_PAUSE)
    return False


def midnights(last: datetime | None, until: datetime) -> list[datetime]:
    """The midnights (UTC) after `last` and not after `until`; only the newest one when there was none before."""
    newest = until.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if last is None:
        return [newest]
    missed = min((newest - last.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)).days, _MISSED)
    return [newest - timedelta(days=back) for back in range(missed - 1, -1, -1)]


async def _one(connection: AsyncConnection[Any], statement: Any, **values: Any) -> Any:
    row = await (await connection.execute(statement, values)).fetchone()
    return None if row is None else row[0]
