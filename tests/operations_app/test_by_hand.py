"""The command line's acts on the hub's own processes and on payments: which are refused, and that each is logged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from hub.errors import Unavailable
from hub.messages import Message, Published
from hub.operator import OutcomeDecided
from hub.transfer import Outcome, PaymentId
from operations_app.by_hand import NotRepairable, decide, resolve, stuck
from operations_app.journal import Journal
from tests.operations_app.conftest import ACME, Operations, Told

STUCK = "4503599627370497"


@dataclass
class Engine:
    """Keeps what it is told; away when it is to be."""

    away: bool = False
    retried: list[tuple[int, int | None]] = field(default_factory=list)
    published: list[Message] = field(default_factory=list)

    async def retry(self, incident_key: int, job_key: int | None = None) -> None:
        if self.away:
            raise Unavailable("the engine is away")
        self.retried.append((incident_key, job_key))

    async def publish(self, message: Message) -> Published:
        if self.away:
            raise Unavailable("the engine is away")
        self.published.append(message)
        return Published.NEW


@pytest.fixture
def stuck_run(told: Told) -> Iterator[None]:
    """An incident of a run, which is no tenant's."""
    body = {
        "incidentKey": STUCK,
        "processInstanceKey": "4503599627370400",
        "bpmnProcessId": "disbursement-run",
        "elementId": "select-stores",
        "elementInstanceKey": "4503599627370401",
        "jobKey": "4503599627370402",
        "state": "OPEN",
        "errorType": "JOB_NO_RETRIES",
        "errorMessage": "Unavailable: the database is away",
        "createdAt": "2026-11-21T10:00:00.000Z",
        "partitionId": 1,
        "position": 1,
    }
    index = f"{told.prefix}-incidents"
    told.client.index(index=index, id=f"1-{STUCK}", document=body, refresh=True)
    yield
    told.client.delete(index=index, id=f"1-{STUCK}", refresh=True)


async def logged(operations: Operations, target: str) -> list[tuple[str, str, str | None, str | None]]:
    entries = await Journal(operations.database).after(0, 10_000)
    return [(one.action, one.outcome, one.tenant_id, one.reason) for one in entries if one.target == target]


async def test_a_run_that_is_stuck_is_shown_and_tried_again_and_both_are_in_the_log(
    operations: Operations, stuck_run: None
):  # H6
    engine = Engine()
    given = operations.views, Journal(operations.database), engine
    (shown,) = await stuck(operations.views)
    assert (shown.incident_key, shown.element_id, shown.payment_id) == (STUCK, "select-stores", None)
    assert STUCK not in str(await operations.ok("/incidents")), "a tenant's operators see their own"
    engine.away = True
    with pytest.raises(Unavailable):
        await resolve(*given, STUCK, "tried too early")
    engine.away = False
    await resolve(*given, STUCK, "the database is back")
    assert engine.retried == [(int(STUCK), int(STUCK) - 95)]
    assert await logged(operations, f"incident:{STUCK}") == [
        ("incident.resolve", "asked", None, "tried too early"),
        ("incident.resolve", "failed", None, "tried too early"),
        ("incident.resolve", "asked", None, "the database is back"),
        ("incident.resolve", "done", None, "the database is back"),
    ]


async def test_an_incident_of_a_payment_a_resolved_and_an_unknown_one_are_left_alone(
    operations: Operations, told: Told, stuck_run: None
):
    engine = Engine()
    given = operations.views, Journal(operations.database), engine
    found = await operations.ok("/incidents", state=["OPEN", "RESOLVED"])
    of_payment = found["items"][0]
    with pytest.raises(NotRepairable, match=f"transfers/{of_payment['paymentId']}/actions"):
        await resolve(*given, of_payment["incidentKey"], "why not")
    with pytest.raises(NotRepairable, match="no incident 12"):
        await resolve(*given, "12", "why not")
    index = f"{told.prefix}-incidents"
    resolved = {"state": "RESOLVED", "resolvedAt": "2026-11-21T11:00:00.000Z"}
    await asyncio.to_thread(told.client.update, index=index, id=f"1-{STUCK}", doc=resolved, refresh=True)
    with pytest.raises(NotRepairable, match="was resolved at 2026-11-21T11"):
        await resolve(*given, STUCK, "why not")
    assert await stuck(operations.views) == []
    assert engine.retried == []
    assert await logged(operations, f"incident:{of_payment['incidentKey']}") == []


async def test_a_decided_payment_is_in_its_tenants_log_and_an_unknown_one_is_refused(
    operations: Operations, told: Told
):  # H3 H6
    engine, (payment, *_) = Engine(), told.where()
    decided = OutcomeDecided(payment_id=PaymentId(payment), outcome=Outcome.SETTLED, reason_detail="the bank said so")
    assert await decide(operations.database, engine, decided) is Published.NEW
    assert engine.published == [decided]
    assert await logged(operations, f"transfer:{payment}") == [
        ("payment.decide", "asked", ACME, "the bank said so"),
        ("payment.decide", "done", ACME, "the bank said so"),
    ]
    with pytest.raises(LookupError, match="no payment p-1"):
        await decide(operations.database, engine, decided.model_copy(update={"payment_id": PaymentId("p-1")}))
    assert engine.published == [decided]
