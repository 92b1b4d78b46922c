"""Which stores are due when: schedules in a time zone, runs made once, a verdict on every store looked at."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from ledger.disbursement.model import Frequency, VerdictCode
from ledger.disbursement.runs import BadSchedule, Cron, Defaults, Runs, RunUnknown, payment_of, run_id

NOW = datetime(2031, 6, 2, 15, 0, 30, tzinfo=UTC)
"""A Monday, nine in the morning in Mexico City, long after every store of these tests was made."""


def mine(lender, runs):
    """The runs of this test's tenant among what a look at all tenants made."""
    return [(run.frequency.value, run.scheduled_for) for run in runs if run.tenant == lender.name]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- Schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "moment", "last", "following"),
    [
        # The clocks go forward at 2:00 (07:00 UTC): 2:30 does not exist and fires once, right after the gap.
        ("30 2 * * *", "2026-03-08 06:59", "2026-03-07 07:30", "2026-03-08 07:00"),
        ("30 2 * * *", "2026-03-08 12:00", "2026-03-08 07:00", "2026-03-09 06:30"),
        # The clocks go back at 2:00 (06:00 UTC): 1:30 comes twice and fires at the first; every hour is an hour.
        ("30 1 * * *", "2026-11-01 12:00", "2026-11-01 05:30", "2026-11-02 06:30"),
        ("0 * * * *", "2026-11-01 06:15", "2026-11-01 06:00", "2026-11-01 07:00"),
        ("0 * * * *", "2026-11-01 05:15", "2026-11-01 05:00", "2026-11-01 06:00"),
        ("0 9 * * 1", "2026-11-02 14:00", "2026-11-02 14:00", "2026-11-09 14:00"),
        ("0 9 1 * *", "2026-11-02 14:00", "2026-11-01 14:00", "2026-12-01 14:00"),
    ],
)
def test_a_schedule_fires_once_a_day_when_the_clocks_change_too(line, moment, last, following):  # L26
    cron = Cron(line, "America/New_York")
    assert (cron.last(at(moment)), cron.next(at(moment))) == (at(last), at(following))


@pytest.mark.parametrize(
    ("line", "zone"),
    [
        ("", "UTC"), ("* * * *", "UTC"), ("0 0 9 * * *", "UTC"), ("61 * * * *", "UTC"), ("0 0 31 2 *", "UTC"),
        ("0 9 * * *", "Mexico"), ("0 9 * * *", ""), ("0 9 * * *", "../etc/passwd"), ("0 9 * * *", "America"),
    ],
)  # fmt: skip
async def test_what_is_no_schedule_is_refused_and_changes_nothing(lender, line, zone):
    runs = Runs(lender.statements)
    with pytest.raises(BadSchedule):
        await runs.set_schedule(lender.name, Frequency.DAILY, line, zone, "ops")
    assert all(schedule.set_by is None for schedule in await runs.schedules(lender.name))


async def test_a_tenants_own_schedule_counts_from_when_it_was_set(lender):  # L26
    await lender.store()
    runs = Runs(lender.statements)
    await runs.set_schedule(lender.name, Frequency.DAILY, "0 6 * * *", "America/Tijuana", "ops")
    await runs.set_schedule(lender.name, Frequency.DAILY, "15 8 * * *", "America/Mexico_City", "ops")
    found = {schedule.frequency: schedule for schedule in await runs.schedules(lender.name, NOW)}
    daily = found[Frequency.DAILY]
    assert (daily.cron, daily.set_by, daily.next_at) == ("15 8 * * *", "ops", at("2031-06-03 14:15"))
    assert (found[Frequency.HOURLY].cron, found[Frequency.HOURLY].set_by) == ("0 * * * *", None)
    assert mine(lender, await runs.plan(datetime.now(UTC))) == [], "the firing lies before the schedule"
    assert mine(lender, await runs.plan(NOW)) == [("DAILY", at("2031-06-02 14:15"))]


# --- Planning -------------------------------------------------------------------------------------------------------


async def test_each_frequency_that_has_stores_is_due_at_its_time(lender):  # L25
    for frequency in Frequency:
        await lender.store(frequency.lower(), frequency=frequency)
    made = mine(lender, await Runs(lender.statements).plan(NOW))
    nine, first = at("2031-06-02 15:00"), at("2031-06-01 15:00")
    assert made == [("DAILY", nine), ("HOURLY", nine), ("MONTHLY", first), ("WEEKLY", nine)]


async def test_firings_that_were_missed_make_one_run(lender):  # L26
    await lender.store(frequency="HOURLY")
    runs = Runs(lender.statements)
    assert mine(lender, await runs.plan(NOW)) == [("HOURLY", at("2031-06-02 15:00"))]
    assert mine(lender, await runs.plan(NOW + timedelta(minutes=59))) == []
    assert mine(lender, await runs.plan(NOW + timedelta(days=2, hours=3))) == [("HOURLY", at("2031-06-04 18:00"))]
    assert mine(lender, await runs.plan(NOW)) == [], "a clock that stands still or goes back makes none"


async def test_two_who_plan_at_once_make_one_run(lender):  # L31
    await lender.store()
    runs = Runs(lender.statements)
    planned = await asyncio.gather(*(runs.plan(NOW) for _ in range(8)))
    assert [run for runs in planned for run in mine(lender, runs)] == [("DAILY", at("2031-06-02 15:00"))]


async def test_a_store_that_is_newer_than_the_firing_waits_for_the_next(lender):  # L26
    await lender.store(frequency="MONTHLY")
    now = datetime.now(UTC)
    assert mine(lender, await Runs(lender.statements).plan(now)) == []


async def test_instant_stores_have_a_run_only_when_one_was_left_behind(lender):  # L26 L30
    await lender.store(frequency="INSTANT")
    runs = Runs(lender.statements)
    await lender.statements.rows(
        "UPDATE disbursement.merchant SET automation = false WHERE tenant_id = %(t)s", {"t": lender.name}
    )
    await lender.delivered("c1", "100.00")
    assert await lender.outbox() == []
    assert mine(lender, await runs.plan(NOW)) == []
    await lender.statements.rows(
        "UPDATE disbursement.merchant SET automation = true WHERE tenant_id = %(t)s", {"t": lender.name}
    )
    [run] = [run for run in await runs.plan(NOW) if run.tenant == lender.name]
    assert (run.frequency, run.scheduled_for) == (Frequency.INSTANT, at("2031-06-02 14:30"))
    assert [each.store for each in (await runs.select(run.id)).due] == ["s1"]


async def test_a_default_that_is_set_elsewhere_counts(lender):
    await lender.store()
    defaults = Defaults("UTC", dict.fromkeys(Frequency, "0 4 * * *"))
    assert mine(lender, await Runs(lender.statements, defaults).plan(NOW)) == [("DAILY", at("2031-06-02 04:00"))]


# --- Carrying out ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def planned(own_lender):
    """A daily run of six stores in a database of its own, which has another store too."""
    await own_lender.merchant("off", automation=False)
    await own_lender.store("a-pays")
    await own_lender.store("b-empty")
    await own_lender.store("c-small", minimum="100.00")
    await own_lender.store("d-off", merchant="off")
    await own_lender.store("e-no-account", account=False)
    await own_lender.store("f-pays")
    await own_lender.store("g-instant", frequency="INSTANT")
    for store in ("a-pays", "c-small", "d-off", "e-no-account", "f-pays"):
        await own_lender.delivered(f"credit-{store}", "100.00", store=store)
    runs = Runs(own_lender.statements)
    [run] = await runs.plan(NOW)
    return own_lender, runs, run


async def test_a_run_keeps_why_each_store_was_skipped(planned):  # L25 L28 L30 L55
    lender, runs, run = planned
    page = await runs.select(run.id)
    assert page.after is None
    assert [(due.store, due.payment_id) for due in page.due] == [
        (store, payment_of(run.id, store)) for store in ("a-pays", "f-pays")
    ]
    found = {each.verdict.store: each.verdict.code.value for each in await runs.stores(lender.name, run.id)}
    assert found == {
        "a-pays": "PAY", "b-empty": "NOTHING_PENDING", "c-small": "BELOW_MINIMUM", "d-off": "AUTOMATION_OFF",
        "e-no-account": "NO_BANK_ACCOUNT", "f-pays": "PAY",
    }  # fmt: skip
    tally = await runs.tally(lender.name, run.id)
    assert (tally.stores[VerdictCode.PAY], tally.asked.decimal()) == (2, "200.00")
    [small] = await runs.stores(lender.name, run.id, verdict=VerdictCode.BELOW_MINIMUM)
    assert (small.verdict.total.decimal(), small.verdict.minimum.decimal(), small.payment_id) == (
        "100.00", "100.00", None,
    )  # fmt: skip


async def test_a_run_goes_page_by_page_and_a_page_that_is_asked_for_again_is_the_same(planned):  # L31
    lender, runs, run = planned
    first = await runs.select(run.id, None, 3)
    assert ([due.store for due in first.due], first.after) == (["a-pays"], "c-small")
    await lender.collected(store="a-pays")  # its payment goes its way, and then the page is asked for again
    assert await runs.select(run.id, None, 3) == first
    second = await runs.select(run.id, first.after, 3)
    assert ([due.store for due in second.due], second.after) == (["f-pays"], "f-pays")
    third = await runs.select(run.id, second.after, 3)
    assert (third.due, third.after) == ([], None)


async def test_a_run_belongs_to_one_process_instance_until_it_is_closed(planned):
    _, runs, run = planned
    assert [claimed.id for claimed in [await runs.claim(1), await runs.claim(1)] if claimed] == [run.id, run.id]
    assert await runs.claim(2) is None
    closed = await runs.close(run.id)
    assert closed.closed_at is not None
    assert (await runs.close(run.id)).closed_at == closed.closed_at
    assert await runs.claim(1) is None


async def test_a_run_whose_process_has_gone_is_taken_over_after_a_day(planned, database_server):
    lender, runs, run = planned
    await runs.claim(1)
    await lender.statements.rows(
        "UPDATE disbursement.run SET claimed_at = claimed_at - interval '25 hours' WHERE id = %(id)s", {"id": run.id}
    )
    taken = await runs.claim(2)
    assert taken is not None
    assert (taken.id, taken.process_instance_key) == (run.id, 2)


async def test_two_process_instances_share_the_runs(own_lender):
    for frequency in ("HOURLY", "DAILY", "WEEKLY"):
        await own_lender.store(frequency.lower(), frequency=frequency)
    runs = Runs(own_lender.statements)
    await runs.plan(NOW)
    claimed = await asyncio.gather(*(runs.claim(key) for key in range(6)))
    assert len({run.id for run in claimed if run}) == 3


async def test_a_person_asks_for_a_run_and_the_schedule_goes_on(own_lender):  # L26
    await own_lender.store()
    runs = Runs(own_lender.statements)
    asked = await runs.request(own_lender.name, Frequency.DAILY, "maria")
    assert [(message, key) for message, key, _ in await own_lender.outbox()] == [
        ("disbursement.run-requested", asked.id)
    ]
    claimed = await runs.claim(5)
    assert claimed is not None
    assert (claimed.id, claimed.requested_by) == (asked.id, "maria")
    await own_lender.statements.rows(  # somebody asks after the firing and before it is looked at
        "INSERT INTO disbursement.run (id, tenant_id, frequency, scheduled_for, requested_by) "
        "VALUES ('asked', %(tenant)s, 'DAILY', %(at)s, 'ana')",
        {"tenant": own_lender.name, "at": NOW},
    )
    assert mine(own_lender, await runs.plan(NOW)) == [("DAILY", at("2031-06-02 15:00"))]
    listed = await runs.search(own_lender.name)
    assert [run.requested_by for run in listed] == [None, "ana", "maria"]
    assert await runs.search(own_lender.name, before=listed[-1].number) == []


async def test_another_tenants_run_does_not_exist(planned):  # H16
    lender, runs, run = planned
    assert await runs.find(lender.name, run.id) == run
    assert await runs.find("another", run.id) is None
    await runs.select(run.id)
    assert await runs.stores("another", run.id) == []
    assert (await runs.tally("another", run.id)).stores == {}
    for verb in (runs.select, runs.close):
        with pytest.raises(RunUnknown):
            await verb(run_id("another", Frequency.DAILY, NOW))
