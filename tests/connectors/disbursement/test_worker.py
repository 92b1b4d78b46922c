"""The jobs of disbursements and runs, the relay of their outbox, and a process that dies at each of its points."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from sqlalchemy.engine import make_url

from connectors.disbursement.model import (
    CloseRun,
    CollectUpdates,
    NextStep,
    PlanRuns,
    RecordOutcome,
    RecordSent,
    ReportTransfer,
    RequestDisbursement,
    RunRequested,
    SelectStores,
    SettleDecision,
    StoreDue,
    TransferDecided,
)
from connectors.disbursement.relay import Relay
from connectors.disbursement.settings import DisbursementSettings
from connectors.disbursement.worker import DisbursementWorker, RunWorker, Terms
from hub.errors import Unavailable
from hub.jobs import Job
from hub.messages import Message, Published
from hub.migrations import migrate
from hub.money import Money
from hub.settings import SettingsError, read
from hub.statements import Statements, open_statements
from hub.testing import Completed, Failed, FakeEngine, job_facts, run
from ledger.disbursement.balances import Balances
from ledger.disbursement.model import Frequency, TransferStatus, TransitionRefused
from ledger.disbursement.report import Reports
from ledger.disbursement.runs import Runs, payment_of
from ledger.disbursement.transfers import Transfers
from ledger.seed import Seed, seed
from ledger.settings import APP_ROLE

BANK = "lender"
TERMS = Terms("Pago a comercio", timedelta(hours=1))


@pytest.fixture(scope="module")
def template(new_database: Callable[[], str]) -> str:
    """A database with a lender, its merchant, and stores that are owed money; nobody connects to it."""
    url = new_database()
    migrate("ledger.migrations", url)
    migrate("ledger.disbursement.migrations", url)
    asyncio.run(_fill(url))
    return url


async def _fill(url: str) -> None:
    await seed(url, Seed.model_validate({"tenants": [{"id": BANK, "fees": [], "accounts": []}]}))
    async with open_statements(url, role=APP_ROLE) as statements:
        await statements.rows(
            "INSERT INTO disbursement.merchant (tenant_id, id, name, tax_id, validated) "
            "VALUES ('lender', 'm1', 'Muebles', 'MUE010101AAA', true)"
        )
        for name, manual in (("s1", False), ("s2", False), ("s3", False), ("manual", True)):
            given = {"id": name, "manual": manual, "frequency": "WEEKLY" if manual else "DAILY"}
            await statements.rows(
                "INSERT INTO disbursement.store (tenant_id, id, merchant_id, name, frequency, manual_confirmation, "
                "validated) VALUES ('lender', %(id)s, 'm1', 'Centro', %(frequency)s, %(manual)s, true)",
                given,
            )
            await statements.rows(
                "INSERT INTO disbursement.bank_account (tenant_id, store_id, clabe, holder_name, tax_id, "
                "authenticated_at, authenticated_by) VALUES ('lender', %(id)s, '646180110400000007', 'Muebles SA', "
                "'MUE010101AAA', now(), 'treasury')",
                given,
            )
            await Balances(statements).adjust(
                BANK, name, Money(10_000, "MXN"), operation=f"opening-{name}", reason="opening", actor="treasury"
            )


@pytest.fixture
def url(database_server: str, template: str) -> str:
    """A database of its own with the lender's stores."""
    server = make_url(database_server)
    name = f"disbursing_{uuid.uuid4().hex[:12]}"
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {make_url(template).database}".encode())
    return server.set(database=name).render_as_string(hide_password=False)


@dataclass
class Desk:
    """Both workers on one database, and the engine they tell."""

    statements: Statements
    engine: FakeEngine
    transfers: Transfers
    runs: Runs
    worker: DisbursementWorker
    runner: RunWorker

    def relay(self, lease: timedelta = timedelta(seconds=30)) -> Relay:
        return Relay(self.statements, self.engine, lease)

    async def done(self, job: Job[Any], instance: int = 2) -> dict[str, Any]:
        """Do a job for a process instance; returns what is written into the process."""
        ending = await run([self.worker, self.runner], job, replace(job_facts(job), process_instance_key=instance))
        assert isinstance(ending, Completed), ending
        return dict(ending.variables)

    async def collects(self, store: str = "s1", payment_id: str | None = None, instance: int = 2) -> dict[str, Any]:
        given = {"payment_id": payment_id or str(uuid.uuid4()), "tenant_id": BANK, "store_id": store}
        trigger = "WEEKLY" if store == "manual" else "DAILY"
        done = await self.done(CollectUpdates.model_validate({**given, "trigger": trigger}), instance)
        return {**given, **done}

    async def status(self, payment_id: str) -> TransferStatus:
        found = await self.transfers.find(BANK, payment_id)
        assert found is not None
        return found.status


@asynccontextmanager
async def opened_desk(url: str, engine: FakeEngine) -> AsyncIterator[Desk]:
    async with open_statements(url, role=APP_ROLE) as statements:
        transfers, runs = Transfers(statements), Runs(statements)
        worker = DisbursementWorker(transfers, Reports(statements), TERMS)
        yield Desk(statements, engine, transfers, runs, worker, RunWorker(runs, engine, page=2))


@pytest.fixture
async def desk(url: str) -> AsyncIterator[Desk]:
    async with opened_desk(url, FakeEngine()) as opened:
        yield opened


def about(done: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"payment_id": done["payment_id"], "tenant_id": BANK, **more}


# --- One disbursement -----------------------------------------------------------------------------------------------


async def test_a_stores_updates_become_one_order_for_stp(desk):  # L18 L27
    done = await desk.collects()
    assert (done["next_step"], done["amount"], done["currency"], done["payer"], done["purpose"]) == (
        "send", 10_000, "MXN", None, "disbursement",
    )  # fmt: skip
    payee = done["payee"]
    assert (payee["id_type"], payee["identifier"], payee["name"], payee["tax_id"]) == (
        "CLABE", "646180110400000007", "Muebles SA", "MUE010101AAA",
    )  # fmt: skip
    assert await desk.collects(payment_id=done["payment_id"]) == done, "a job that is done again hands the same on"


async def test_only_one_process_instance_has_a_transfer(desk):  # L31
    first = await desk.collects(instance=2)
    again = await desk.collects(payment_id=first["payment_id"], instance=3)
    other = await desk.collects(instance=4)
    assert [done["next_step"] for done in (first, again, other)] == ["send", "nothing", "nothing"]


async def test_a_transfer_that_somebody_must_confirm_is_sent_when_it_was(desk):  # L23
    done = await desk.collects("manual")
    assert (done["next_step"], done["confirm_within"]) == ("confirm", "PT3600S")
    job = SettleDecision.model_validate(about(done))
    assert (await desk.done(job))["next_step"] == "confirm", "nobody has decided"
    await desk.transfers.confirm(BANK, done["payment_id"], "maria")
    assert (await desk.done(job))["next_step"] == "send"
    overdue = SettleDecision.model_validate(about(done, overdue=True))
    assert (await desk.done(overdue))["next_step"] == "send", "the timer fired when it was confirmed already"


async def test_a_transfer_that_nobody_confirms_in_time_is_cancelled(desk):  # L23 H3
    done = await desk.collects("manual")
    for _ in range(2):
        overdue = SettleDecision.model_validate(about(done, overdue=True))
        assert (await desk.done(overdue))["next_step"] == NextStep.NOTHING
    assert await desk.status(done["payment_id"]) is TransferStatus.CANCELLED
    assert (await desk.collects("manual"))["amount"] == 10_000, "the next one has the updates"


async def test_whoever_confirms_while_the_time_ends_is_first_or_finds_it_cancelled(desk):  # L21
    done = await desk.collects("manual")
    overdue = SettleDecision.model_validate(about(done, overdue=True))
    settling = asyncio.create_task(desk.done(overdue))
    confirmed = True
    try:
        await desk.transfers.confirm(BANK, done["payment_id"], "maria")
    except TransitionRefused:
        confirmed = False
    settled = await settling
    sent = settled["next_step"] == NextStep.SEND
    assert sent is confirmed
    assert (await desk.status(done["payment_id"]) is TransferStatus.CANCELLED) != sent


@pytest.mark.parametrize(("said", "kept"), [("2026-03-01T15:30:00Z", True), ("2099-01-01T00:00:00Z", False)])
async def test_a_transfer_is_settled_when_stp_says_it_was_and_never_in_the_future(desk, said, kept):  # L35
    done = await desk.collects()
    job = RecordOutcome.model_validate(about(done, outcome="SETTLED", reason="none", happened_at=said))
    await desk.done(job)
    found = await desk.transfers.find(BANK, done["payment_id"])
    [*_, heard] = await desk.transfers.history(BANK, done["payment_id"])
    assert found is not None
    assert found.settled_at is not None
    assert (found.settled_at == job.happened_at) is kept
    assert (heard.at - found.settled_at > timedelta(days=1)) is kept, "when it was heard stands in the history"


async def test_a_settlement_that_is_heard_after_the_return_is_no_mistake(desk):  # L38
    done = await desk.collects()
    for outcome in ("RETURNED", "SETTLED", "SETTLED"):
        await desk.done(RecordOutcome.model_validate(about(done, outcome=outcome, reason="none")))
    assert await desk.status(done["payment_id"]) is TransferStatus.REJECTED


async def test_a_late_return_waits_until_the_settlement_is_recorded(desk):  # L38
    done = await desk.collects()
    late = RecordOutcome.model_validate(about(done, outcome="RETURNED", reason="none", after_settlement=True))
    ending = await run(desk.worker, late)
    assert isinstance(ending, Failed)
    assert ending.retries > 0
    await desk.done(RecordOutcome.model_validate(about(done, outcome="SETTLED", reason="none")))
    for _ in range(2):
        await desk.done(late)
    assert await desk.status(done["payment_id"]) is TransferStatus.REJECTED
    types = [update.type.value for update in await Balances(desk.statements).updates(BANK, "s1")]
    assert types == ["DISBURSEMENT_OVERRIDE", "DISBURSEMENT", "BALANCE_ADJUSTMENT"]


async def test_a_settled_transfer_is_reported_to_its_merchant_once(desk):  # L56
    done = await desk.collects()
    await desk.done(RecordOutcome.model_validate(about(done, outcome="SETTLED", reason="none")))
    for _ in range(2):
        await desk.done(ReportTransfer.model_validate(about(done)))
    [report] = await Reports(desk.statements).find(BANK, done["payment_id"])
    assert report.content["amount"] == "100.00"


async def test_an_outcome_that_contradicts_the_recorded_one_is_for_an_operator(desk):  # L21 L22
    done = await desk.collects()
    await desk.done(RecordOutcome.model_validate(about(done, outcome="SETTLED", reason="none")))
    job = RecordOutcome.model_validate(about(done, outcome="CANCELLED", reason="scheme-cancelled"))
    ending = await run(desk.worker, job)
    assert isinstance(ending, Failed)
    assert ending.retries == 0
    assert await desk.status(done["payment_id"]) is TransferStatus.APPLIED


async def test_an_outcome_of_a_transfer_that_nobody_made_is_for_an_operator(desk):  # L41
    job = RecordOutcome.model_validate(about({"payment_id": str(uuid.uuid4())}, outcome="SETTLED", reason="none"))
    ending = await run(desk.worker, job)
    assert isinstance(ending, Failed)
    assert ending.retries == 0


# --- The outbox -----------------------------------------------------------------------------------------------------


async def leave(desk: Desk, message: str, payload: dict[str, Any]) -> None:
    await desk.statements.rows(
        "INSERT INTO disbursement.outbox (message, correlation, payload) VALUES (%(message)s, 'k', %(payload)s)",
        {"message": message, "payload": Jsonb(payload)},
    )


def due(number: int) -> dict[str, Any]:
    return {"payment_id": f"p{number}", "tenant_id": BANK, "store_id": "s1", "trigger": "INSTANT", "run_id": None}


async def test_what_was_left_is_published_once(desk):  # L26
    done = await desk.collects("manual")
    await desk.transfers.confirm(BANK, done["payment_id"], "maria")
    asked = await desk.runs.request(BANK, Frequency.DAILY, "maria")
    await leave(desk, "disbursement.store-due", due(1))
    assert await desk.relay().step() == 3
    assert await desk.relay().step() == 0
    assert [message.payment_id for message in desk.engine.published(TransferDecided)] == [done["payment_id"]]
    assert [message.run_id for message in desk.engine.published(RunRequested)] == [asked.id]
    assert [message.store_id for message in desk.engine.published(StoreDue)] == ["s1"]


async def test_several_relays_share_the_work(desk):
    for number in range(120):
        await leave(desk, "disbursement.store-due", due(number))
    while any(await asyncio.gather(*(desk.relay().step() for _ in range(4)))):
        pass
    assert len(desk.engine.messages) == 120
    assert desk.engine.asked == 120


async def test_with_the_engine_away_messages_wait_and_are_published_later(desk):  # H15
    await leave(desk, "disbursement.store-due", due(1))
    desk.engine.away = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await desk.relay().step()
    desk.engine.away = False
    assert await desk.relay().step() == 1
    await leave(desk, "disbursement.store-due", due(2))
    desk.engine.lose_answers = 1
    with pytest.raises(Unavailable):
        await desk.relay().step()
    assert await desk.relay().step() == 1
    assert [message.payment_id for message in desk.engine.published(StoreDue)] == ["p1", "p2"]


async def test_a_message_that_nobody_can_publish_stops_no_other(desk):
    await leave(desk, "disbursement.unheard-of", {})
    await leave(desk, "disbursement.store-due", {})
    await leave(desk, "disbursement.store-due", due(3))
    assert await desk.relay().step() == 1
    assert await desk.relay().step() == 0, "the others come again when their leases are over"
    waiting = await desk.statements.rows("SELECT count(*) FROM disbursement.outbox WHERE published_at IS NULL")
    assert waiting == [(2,)]


# --- Dying anywhere -------------------------------------------------------------------------------------------------


class WrittenDown(FakeEngine):
    """An engine that every process of a test tells, one after the other."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    async def publish(self, message: Message) -> Published:
        published = await super().publish(message)
        with self._file.open("a") as file:
            file.write(f"{message.message_name} {message.message_id}\n")
        return published


async def everything(url: str, file: Path) -> None:
    """What the engine has the workers do for one run, each job done again if it was cut off."""
    async with opened_desk(url, WrittenDown(file)) as desk:
        await desk.relay(timedelta(0)).step()
        while (planned := await desk.done(PlanRuns()))["run_id"]:
            run_id, after = planned["run_id"], None
            while True:
                page = await desk.done(SelectStores(run_id=run_id, after_store=after))
                for store in page["due"]:
                    await desk.done(RequestDisbursement.model_validate({**planned, "due_store": store}))
                    await pay(desk, store)
                if (after := page["after_store"]) is None:
                    break
            await desk.done(CloseRun(run_id=run_id))


async def pay(desk: Desk, store: dict[str, str]) -> None:
    done = await desk.collects(store["store_id"], store["payment_id"])
    await desk.done(RecordSent.model_validate(about(done)))
    await desk.done(RecordOutcome.model_validate(about(done, outcome="SETTLED", reason="none")))
    await desk.done(ReportTransfer.model_validate(about(done)))


def _until_it_dies(point: str, url: str, file: Path) -> None:
    os.environ["PAYHUB_FAILPOINT"] = point
    asyncio.run(everything(url, file))


@pytest.mark.parametrize(
    "point",
    [
        "disbursement.relay.after-lease",
        "disbursement.relay.after-publish",
        "disbursement.plan-runs.after-plan",
        "disbursement.plan-runs.after-claim",
        "disbursement.select-stores.after-commit",
        "disbursement.select-stores.after-commit:2",
        "disbursement.request-disbursement.before-publish",
        "disbursement.request-disbursement.after-publish:2",
        "disbursement.collect.before-commit:2",
        "disbursement.event.after-log:3",
        "disbursement.report-transfer.before-make:2",
        "disbursement.close-run.after-commit",
    ],
)
def test_a_run_goes_on_wherever_its_worker_died_and_pays_each_store_once(url, tmp_path, point):  # L31
    told = tmp_path / "told"

    async def ask() -> str:
        async with opened_desk(url, FakeEngine()) as desk:
            return (await desk.runs.request(BANK, Frequency.DAILY, "maria")).id

    asked = asyncio.run(ask())
    dying = multiprocessing.get_context("fork").Process(target=_until_it_dies, args=(point, url, told))
    dying.start()
    dying.join(60)
    assert dying.exitcode == -signal.SIGKILL
    asyncio.run(everything(url, told))

    async def look() -> None:
        async with opened_desk(url, FakeEngine()) as desk:
            transfers = await desk.transfers.search(BANK)
            expected = {payment_of(asked, store) for store in ("s1", "s2", "s3")}
            assert {transfer.id for transfer in transfers} == expected
            assert {transfer.status for transfer in transfers} == {TransferStatus.APPLIED}
            [run] = await desk.runs.search(BANK)
            assert run.closed_at is not None
            times = Counter(told.read_text().splitlines())
            due = {f"disbursement.store-due {payment}" for payment in expected}
            assert set(times) == due | {f"disbursement.run-requested {asked}"}
            assert max(times.values()) <= 2

    asyncio.run(look())


# --- Settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("DAILY", "9 o'clock"), ("TIME_ZONE", "Mexico"), ("WEEKLY", "0 0 31 2 *")])
def test_a_schedule_that_is_none_stops_the_process_with_a_sentence(monkeypatch, name, value):
    monkeypatch.setenv(f"PAYHUB_DISBURSEMENT_{name}", value)
    with pytest.raises(SettingsError, match=r"PAYHUB_DISBURSEMENT_.*(cron line|time zone)"):
        read(DisbursementSettings)
