"""A date compared: nothing when all agree, a break of the right class when not, each once, closed when it heals."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import sys
from datetime import date, datetime, time, timedelta

import pytest

from connectors.stp.breaks import BeginReconciliation, ReconcileDate
from connectors.stp.calendar import MEXICO_CITY, next_banking_day, operation_date
from connectors.stp.consults import ConsultBudget, Consults, Patience
from connectors.stp.dispatch import Profile, Profiles
from connectors.stp.reconciliation import Reconciliation, ReconciliationWorker, last_closed
from connectors.stp.reconciliation_store import ReconciliationStore
from connectors.stp.reconciliation_wiring import accounts
from connectors.stp.wire import Sender
from hub.money import Money
from hub.statements import open_statements
from hub.testing import job_facts
from hub.transfer import PaymentId, TenantId

_days = itertools.count()


@pytest.fixture
def day():
    """An operation date that no other test uses, long past: the command looks at the real clock."""
    return next_banking_day(date(2001, 1, 8) + timedelta(days=21 * next(_days)))


@pytest.fixture
def clock(clock, day):
    clock.set(datetime.combine(day, time(10), MEXICO_CITY))
    return clock


@pytest.fixture
async def database(migrated_url):
    async with open_statements(migrated_url) as statements:
        yield statements


@pytest.fixture
def store(database):
    return ReconciliationStore(database)


@pytest.fixture
def comparing(rail, bank, database, store):
    return Reconciliation(
        store=store,
        orders=rail.orders,
        consults=Consults(rail.stp, ConsultBudget(database, 1_000_000), Patience(timedelta(0), timedelta(0))),
        accounts=accounts(rail.worker._profiles),
        book=bank.settlements,
        booking_grace=timedelta(0),
        clock=rail.clock,
    )


@pytest.fixture
def settled(rail, bank, eventually):
    """Send a payment over STP and wait until it settled; booked too unless told otherwise."""

    async def settle(amount: int = 125_000, *, booked: bool = True, do: object = "settle"):
        job = rail.job(amount=amount, tenant_id=bank.tenant)
        await rail.rule(job, do)
        await rail.worker.send_order(job)
        if do == "settle":
            await eventually(lambda: rail.engine.told(job.payment_id))
        if booked:
            await bank.paid(job)
        return job

    return settle


async def classes(comparing, day):
    [done] = await comparing.reconcile(day)
    return sorted(one.kind for one in done.open_breaks)


def book_of(rail):
    return sqlite3.connect(rail.simulator._settings.book_file)


async def test_a_date_on_which_all_agree_is_matched(rail, comparing, settled, day):
    jobs = [await settled() for _ in range(3)]
    [done] = await comparing.reconcile(day)
    assert (done.matched, done.orders, done.deposits) == (True, 3, 0)
    keys = [rail.key(job) for job in jobs]
    receipts = await rail.rows("SELECT seal, url, name FROM stp.receipt WHERE tracking_key = ANY(:k)", k=keys)
    assert len(receipts) == 3
    assert all(seal.startswith("SIMULADO") and url and name for seal, url, name in receipts)
    assert (await comparing.reconcile(day))[0].matched
    assert len(await rail.rows("SELECT FROM stp.receipt WHERE tracking_key = ANY(:k)", k=keys)) == 3


async def test_every_difference_is_filed_once_and_closed_when_it_heals(rail, bank, comparing, settled, day, alerts):
    missing, amount, account, state, unbooked = [await settled() for _ in range(4)] + [await settled(booked=False)]
    vain = await settled(do="cancel", booked=True)
    with book_of(rail) as book:
        book.execute("DELETE FROM steps WHERE order_id = ?", (rail.at_stp(missing)[0].id,))
        book.execute("DELETE FROM orders WHERE clave = ?", (rail.key(missing),))
        book.execute("UPDATE orders SET centavos = 7 WHERE clave = ?", (rail.key(amount),))
        fields = rail.at_stp(account)[0].fields | {"cuentaBeneficiario": "012180001183597198"}
        book.execute("UPDATE orders SET fields = ? WHERE clave = ?", (json.dumps(fields), rail.key(account)))
        book.execute("UPDATE orders SET estado = 'CN' WHERE clave = ?", (rail.key(state),))
    stray = rail.job(tenant_id=bank.tenant)
    new = await rail.worker._new_order(stray, rail.worker._profiles.of(bank.tenant))
    await rail.stp.register(new.body)  # somebody else sends under our company
    await asyncio.sleep(0.2)
    found = {
        "account-differs", "amount-differs", "booked-in-vain", "missing-at-stp", "missing-here", "not-booked",
        "state-differs",
    }  # fmt: skip
    assert set(await classes(comparing, day)) == found
    assert {facts["break_class"] for kind, facts in alerts if kind == "reconciliation"} == {
        "amount-differs", "missing-here",
    }  # fmt: skip
    count = len(alerts)
    rail.advance(timedelta(days=1))
    assert set(await classes(comparing, day)) == found
    assert len(alerts) == count, "what is known is not told again"
    rows = await rail.rows("SELECT times FROM stp.reconciliation_break WHERE operation_date = :d", d=day)
    assert [times for (times,) in rows] == [2] * 7

    await bank.paid(unbooked)
    await bank.accounts.reverse(bank.tenant, vain.payment_id, reason="r")
    with book_of(rail) as book:
        book.execute("UPDATE orders SET centavos = 125000 WHERE clave = ?", (rail.key(amount),))
        book.execute("UPDATE orders SET estado = 'LQ' WHERE clave = ?", (rail.key(state),))
    assert set(await classes(comparing, day)) == {"account-differs", "missing-at-stp", "missing-here"}
    rows = await rail.rows(
        "SELECT class FROM stp.reconciliation_break WHERE operation_date = :d AND closed_at IS NOT NULL", d=day
    )
    assert {kind for (kind,) in rows} == {"amount-differs", "booked-in-vain", "not-booked", "state-differs"}
    with pytest.raises(Exception, match="never deleted"):
        await rail.rows("DELETE FROM stp.reconciliation_break")


async def test_a_callback_that_never_came_is_made_good(rail, comparing, settled, day, eventually):
    for do, outcome in (("unseen", "SETTLED"), ("unseen-cancel", "CANCELLED"), ("unseen-return", "RETURNED")):
        job = await settled(do=do, booked=outcome == "SETTLED")
        await eventually(lambda: rail.at_stp(job)[0].estado != "L")  # noqa: B023 (it is over before the next)
        assert await classes(comparing, day) == []
        assert (await rail.order(job)).state == outcome
        rail.advance(timedelta(minutes=1))
        await rail.callbacks.sweep()
        assert [told.outcome for told in rail.engine.told(job.payment_id)] == [outcome]


async def test_one_key_on_two_dates_is_money_that_moved_twice(rail, comparing, settled, day, eventually):
    job = await settled()
    body = (await rail.order(job)).body
    rail.set_clocks(datetime.combine(day, time(18, 5), MEXICO_CITY))
    assert (await rail.stp.register(body)).outcome == "ACCEPTED"  # what a careless connector would do
    await eventually(lambda: len(rail.at_stp(job)) == 2 and rail.at_stp(job)[1].estado == "LQ")
    assert await classes(comparing, day) == []
    following = operation_date(rail.clock())
    assert await classes(comparing, following) == ["moved-twice"]
    assert await classes(comparing, day) == ["moved-twice"]


async def test_an_order_that_stp_counts_to_the_next_date_heals(rail, comparing, settled, day, eventually):
    rail.clock.set(datetime.combine(day, time(17, 59), MEXICO_CITY))
    rail.simulator.clock_offset += 8 * 3600 + 60
    await settled()
    assert await classes(comparing, day) == ["missing-at-stp"]
    rail.advance(timedelta(hours=1))
    following = operation_date(rail.clock())
    assert await classes(comparing, following) == []
    assert await classes(comparing, day) == []


async def test_without_a_book_of_ours_orders_are_compared_with_stp_alone(rail, comparing, settled, day):
    await settled(booked=False)
    assert await classes(comparing, day) == ["not-booked"]
    comparing._book = None
    assert await classes(comparing, day) == ["not-booked"], "what was not looked at does not heal"


async def test_money_in_the_book_for_no_order_is_found(bank):
    since = datetime.now(MEXICO_CITY) - timedelta(minutes=1)
    payment = PaymentId("a-payment-that-stp-never-saw")
    await bank.accounts.hold(bank.tenant, payment, "ana", Money(700, "MXN"), Money(0, "MXN"))
    await bank.accounts.capture(bank.tenant, payment)
    until = datetime.now(MEXICO_CITY) + timedelta(minutes=1)
    assert await bank.settlements.moved(bank.tenant, since, until) == {payment: 700}
    assert await bank.settlements.moved(bank.tenant, since - timedelta(days=2), since) == {}
    assert await bank.settlements.net(bank.tenant, [payment, "another"]) == {payment: 700}
    assert bank.tenant in await bank.settlements.books()


# --- Deposits -------------------------------------------------------------------------------------------------------


async def test_money_that_came_in_and_was_never_told_is_found(rail, comparing, day):
    url = f"{rail.simulator_url}/control/deposits"
    arrived = {"monto": "10.00", "cuentaBeneficiario": "646180157000000017", "report": False, "claveRastreo": "B-7/1"}
    assert (await rail.http.post(url, json=arrived)).status_code == 202
    [done] = await comparing.reconcile(day)
    assert [(one.kind, one.subject, one.theirs) for one in done.open_breaks] == [
        ("missing-here", "40012:B-7/1", "10.00 CCO")
    ]


async def test_an_order_of_ours_that_came_back_is_no_deposit(rail, bank, comparing, settled, day, eventually):
    job = await settled(booked=False)
    order = rail.at_stp(job)[0]
    rail.simulator.book.move(order.id, "D", 1, None)
    rail.simulator.deposits.come_back(rail.simulator.book.order(order.id))
    assert await classes(comparing, day) == []
    assert (await rail.order(job)).state == "RETURNED"


# --- Companies ------------------------------------------------------------------------------------------------------


def test_each_company_is_compared_once_with_the_tenants_it_carries(rail):
    signer = rail.worker._profiles.of(TenantId("x")).signer
    green, blue = (Profile(Sender(name, rail.settings.payer_account), signer) for name in ("GREEN", "BLUE"))
    listed = {TenantId("a"): green, TenantId("b"): green, TenantId("c"): blue}
    found = {one.company: one for one in accounts(Profiles(listed))}
    assert {name: sorted(one.tenants or ()) for name, one in found.items()} == {"GREEN": ["a", "b"], "BLUE": ["c"]}
    shared = {one.company: one for one in accounts(Profiles(listed, everyone=blue))}
    assert [shared["BLUE"].carries(TenantId(name)) for name in "abcd"] == [False, False, True, True]


# --- The process's jobs ---------------------------------------------------------------------------------------------


@pytest.fixture
def worker(comparing, store, rail):
    return ReconciliationWorker(comparing, store, clock=rail.clock)


def begin(instance):
    job = BeginReconciliation()
    facts = job_facts(job)
    job.with_facts(facts.__class__(**{**{name: getattr(facts, name) for name in facts.__slots__},
                                      "process_instance_key": instance}))  # fmt: skip
    return job


async def test_a_date_belongs_to_one_process_instance(rail, worker, day):
    rail.set_clocks(datetime.combine(day, time(18, 15), MEXICO_CITY))
    assert (await worker.begin_reconciliation(begin(1))).reconciliation_date == day
    assert (await worker.begin_reconciliation(begin(2))).reconciliation_date is None
    assert (await worker.begin_reconciliation(begin(1))).reconciliation_date == day, "a job that is done again"


@pytest.mark.parametrize(
    ("moment", "closed"),
    [
        (datetime(2026, 11, 18, 17, 59, tzinfo=MEXICO_CITY), date(2026, 11, 17)),
        (datetime(2026, 11, 18, 18, 0, tzinfo=MEXICO_CITY), date(2026, 11, 18)),
        (datetime(2026, 11, 20, 18, 15, tzinfo=MEXICO_CITY), date(2026, 11, 20)),
        (datetime(2026, 11, 21, 18, 15, tzinfo=MEXICO_CITY), date(2026, 11, 20)),
        (datetime(2026, 11, 17, 9, 0, tzinfo=MEXICO_CITY), date(2026, 11, 13)),
    ],
)
def test_the_date_that_ended_last_is_a_banking_day(moment, closed):
    assert last_closed(moment) == closed


async def test_dates_that_nobody_compared_are_made_good(rail, worker, settled, store, day):
    await settled()
    following = next_banking_day(day)
    assert await store.missed(following) == [day]
    rail.set_clocks(datetime.combine(following, time(18, 15), MEXICO_CITY))
    done = await worker.reconcile_date(ReconcileDate(reconciliation_date=following, reconciliations=1))
    assert (done.open_breaks, done.reconciliations) == (0, 2)
    assert await store.missed(following) == []


# --- The command ----------------------------------------------------------------------------------------------------


async def payhub(rail, bank, *words, failpoint=""):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PAYHUB_")},
        "PAYHUB_FAILPOINT": failpoint,
        "PAYHUB_DATABASE_URL": rail.database_url,
        "PAYHUB_LEDGER_DATABASE_URL": bank.url,
        "PAYHUB_STP_BASE_URL": rail.settings.base_url,
        "PAYHUB_STP_COMPANY": rail.settings.company,
        "PAYHUB_STP_PAYER_ACCOUNT": rail.settings.payer_account,
        "PAYHUB_STP_PRIVATE_KEY_FILE": str(rail.settings.private_key_file),
        "PAYHUB_STP_PAGE_PAUSE": "0",
        "PAYHUB_STP_BOOKING_GRACE": "0",
        "PAYHUB_STP_CONSULTS_PER_HOUR": "1000000",
    }
    command = [sys.executable, "-m", "hub.cli", "stp", *words]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


async def test_the_command_says_by_its_exit_code_whether_a_date_matches(rail, bank, settled, day):
    unbooked = await settled(booked=False)
    code, out, errors = await payhub(rail, bank, "reconcile", "--date", day.isoformat(), "--json")
    assert code == 1, errors
    [one] = json.loads(out)["breaks"]
    assert (one["class"], one["payment"]) == ("not-booked", unbooked.payment_id)
    code, out, _ = await payhub(rail, bank, "breaks", "--date", day.isoformat())
    assert (code, "not-booked" in out) == (1, True)
    await bank.paid(unbooked)
    code, out, errors = await payhub(rail, bank, "reconcile", "--date", day.isoformat(), "--tenant", bank.tenant)
    assert (code, errors) == (0, "")


async def test_a_comparison_that_is_killed_goes_on_at_the_next_page(rail, bank, settled, day):
    rail.simulator.consults.page_size = 1
    for _ in range(3):
        await settled()
    asked = []
    page = rail.simulator.book.page

    def noted(*given, **more):
        if not more["incoming"]:
            asked.append(more["number"])
        return page(*given, **more)

    rail.simulator.book.page = noted
    words = ("reconcile", "--date", day.isoformat(), "--json")
    deadly = ("stp.reconcile-date.after-page:2", "stp.reconcile-date.before-finish", "stp.reconcile-date.after-finish")
    for failpoint in deadly:
        code, _, errors = await payhub(rail, bank, *words, failpoint=failpoint)
        assert code == -signal.SIGKILL, errors
    assert asked == [0, 1, 2, 3]
    runs = "SELECT orders, result FROM stp.reconciliation WHERE operation_date = :d"
    assert list(await rail.rows(runs, d=day)) == [(3, "matched")]
    code, out, errors = await payhub(rail, bank, *words)
    assert code == 0, out + errors
    assert list(await rail.rows(runs, d=day)) == [(3, "matched")] * 2
