"""What whoever runs the hub does at the command line, past the operations API.

Nobody approves it: who may use it reaches the database and the engine anyway. Each act stands in the operator log
before it is done, and once more with what came of it.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Protocol

from hub.messages import Engine, Published
from hub.operator import OutcomeDecided
from hub.settings import DatabaseSettings, read
from hub.statements import Statements, open_statements
from operations_app.actions.ways import PLACES
from operations_app.incidents import NEWEST_FIRST, IncidentShown
from operations_app.journal import Act, Journal
from operations_app.views import EVERYBODY, INCIDENTS, Views

COMMAND_LINE: Final = "command-line"
"""The role under which these acts stand in the log."""

OF_PAYMENTS: Final = frozenset(process for process, _ in PLACES)
"""Processes whose incidents an operator repairs by an action for the payment."""

_MOST: Final = 1000
_OWNER: Final = """
    SELECT tenant_id FROM channel.payment WHERE id::text = %(id)s
    UNION SELECT tenant_id FROM stp.deposit WHERE payment_id = %(id)s
    UNION SELECT tenant_id FROM disbursement.bank_transfer WHERE id = %(id)s
    """


class NotRepairable(Exception):
    """An incident that is not there, was resolved, or is repaired otherwise; the text says which."""


class Commands(Protocol):
    """What is asked of the engine: `hub.zeebe.operate.Operations`."""

    async def retry(self, incident_key: int, job_key: int | None = None) -> None: ...


@asynccontextmanager
async def written_down(journal: Journal, action: str, target: str, **what: Any) -> AsyncIterator[None]:
    """An act at the command line: in the log before it begins, and again as done or failed. Raises `Unavailable`."""
    act = Act(actor=_user(), roles=(COMMAND_LINE,), action=action, target=target, outcome="asked", **what)
    await journal.append(act)
    try:
        yield
    except Exception as error:
        await journal.append(replace(act, outcome="failed", after={"error": type(error).__name__}))
        raise
    await journal.append(replace(act, outcome="done"))


@asynccontextmanager
async def open_journal() -> AsyncIterator[Journal]:
    """The operator log in the database of the settings."""
    async with open_statements(read(DatabaseSettings).url, 1) as database:
        yield Journal(database)


def _user() -> str:
    """The name of the system's user; the number of one that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


async def decide(database: Statements, engine: Engine, decided: OutcomeDecided) -> Published:
    """Tell a payment that waits for an operator its outcome; how the engine took it.

    Raises `LookupError` when there is no such payment, and `Unavailable`.
    """
    async with database.connection() as connection:
        row = await (await connection.execute(_OWNER, {"id": decided.payment_id})).fetchone()
    if row is None:
        raise LookupError(f"there is no payment {decided.payment_id}")
    async with written_down(
        Journal(database),
        "payment.decide",
        f"transfer:{decided.payment_id}",
        tenant_id=row[0],
        payment_id=decided.payment_id,
        reason=decided.reason_detail,
        after={"outcome": decided.outcome},
    ):
        return await engine.publish(decided)


async def stuck(views: Views) -> Sequence[IncidentShown]:
    """Open incidents of the hub's own processes, newest first, at most a thousand. Raises `Unavailable`.

    No tenant's operators see most of them, and no action for a payment reaches any.
    """
    found = await views.search(
        INCIDENTS,
        EVERYBODY,
        filters=[{"term": {"state": "OPEN"}}],
        excluded=[{"terms": {"bpmnProcessId": sorted(OF_PAYMENTS)}}],
        sort=NEWEST_FIRST,
        size=_MOST,
    )
    return [IncidentShown.of(hit.body) for hit in found.hits]


async def resolve(views: Views, journal: Journal, commands: Commands, incident_key: str, note: str) -> IncidentShown:
    """Give the incident's job its tries again and resolve it; it fails anew when its cause is still there.

    Raises `NotRepairable`, `EngineRefused` and `Unavailable`.
    """
    incident = await _own(views, incident_key)
    async with written_down(
        journal,
        "incident.resolve",
        f"incident:{incident_key}",
        tenant_id=None,
        payment_id=incident.payment_id,
        reason=note,
        before={"process": incident.process_id, "element": incident.element_id},
    ):
        job_key = None if incident.job_key is None else int(incident.job_key)
        await commands.retry(int(incident.incident_key), job_key)
    return incident


async def _own(views: Views, incident_key: str) -> IncidentShown:
    found = await views.search(
        INCIDENTS, EVERYBODY, filters=[{"term": {"incidentKey": incident_key}}], sort=NEWEST_FIRST, size=1
    )
    if not found.hits:
        raise NotRepairable(f"the views show no incident {incident_key}; `payhub incident list` shows the open ones")
    incident = IncidentShown.of(found.hits[0].body)
    if incident.process_id in OF_PAYMENTS:
        raise NotRepairable(
            f"incident {incident_key} is of payment {incident.payment_id}: its operators repair it by "
            f"POST /api/v1/transfers/{incident.payment_id}/actions"
        )
    if incident.state != "OPEN":
        raise NotRepairable(f"incident {incident_key} was resolved at {incident.resolved_at}")
    return incident
