"""Balances at past instants, on either date: what is kept and what is added up agree with a plain sum (L79)."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.money import Money
from hub.statements import open_statements
from ledger import snapshots
from ledger.model import FEE_INCOME, STP_SETTLEMENT, AccountRef, Leg
from ledger.settings import APP_ROLE
from ledger.snapshots import midnights, take_due
from ledger.verify import verify

NOW = datetime.now(UTC)
PLAIN = (
    "SELECT coalesce(sum(e.amount) FILTER (WHERE e.side = 'D'), 0), coalesce(sum(e.amount) FILTER "
    "(WHERE e.side = 'C'), 0) FROM ledger.entry e JOIN ledger.txn t ON t.id = e.txn_id "
    "WHERE e.account_id = %(account)s AND CASE %(axis)s WHEN 'booked' THEN t.booked_at ELSE t.effective_at END < %(at)s"
)


def days(*back: float) -> list[datetime]:
    return [NOW - timedelta(days=each) for each in back]


def spread(url: str) -> None:
    """Let the book's transactions lie over ten days instead of a second, in their order but for a few neighbours, and
    some value-dated: as the owner of the tables could only do by switching the guards off."""
    chance = random.Random(7)
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as owner:
        owner.execute("ALTER TABLE ledger.txn DISABLE TRIGGER ALL")
        ids = [row[0] for row in owner.execute("SELECT id FROM ledger.txn ORDER BY id")]
        times = [NOW - timedelta(days=10) + timedelta(days=9) * number / len(ids) for number in range(len(ids))]
        for number in range(0, len(ids) - 1, 7):
            times[number], times[number + 1] = times[number + 1], times[number]
        for each, booked in zip(ids, times, strict=True):
            off = timedelta(days=chance.choice([-3, 2])) if chance.random() < 0.2 else -timedelta(seconds=2)
            values = {"id": each, "booked": booked, "effective": booked + off}
            owner.execute(
                "UPDATE ledger.txn SET booked_at = %(booked)s, effective_at = %(effective)s WHERE id = %(id)s", values
            )
        owner.execute("ALTER TABLE ledger.txn ENABLE TRIGGER ALL")
        owner.execute("ALTER TABLE ledger.txn ENABLE ALWAYS TRIGGER append_only")


@pytest.fixture
async def lived(own_bank):
    bank, chance = own_bank, random.Random(5)
    await bank.open({"id": "ana", "opening_balance": "500"}, {"id": "bruno", "opening_balance": "500"})
    accounts = [AccountRef.customer("ana"), AccountRef.customer("bruno"), STP_SETTLEMENT, FEE_INCOME]
    for number in range(90):
        one, other = chance.sample(accounts, 2)
        await bank.ledger.post(bank.name, f"t{number}", [Leg(one, other, Money(chance.randrange(1, 900), "MXN"))])
    spread(bank.url)
    async with open_statements(bank.url, 2, role=APP_ROLE) as statements:
        yield bank, statements


async def test_a_past_balance_is_the_sum_of_what_came_before_on_either_date_with_and_without_snapshots(lived):
    bank, statements = lived
    instants = [NOW - timedelta(days=14), *(NOW - timedelta(days=11) + timedelta(hours=9) * step for step in range(32))]

    async def agree() -> None:
        for (account,) in await statements.rows("SELECT id FROM ledger.account ORDER BY id"):
            for axis in ("booked", "effective"):
                for at in instants:
                    values = {"account": account, "axis": axis, "at": at}
                    (plain,) = await statements.rows(PLAIN, values)
                    (kept,) = await statements.rows(
                        "SELECT * FROM ledger.sums_before(%(account)s, %(at)s, %(axis)s)", values
                    )
                    assert kept == plain, values
        for before, after in pairwise(instants[::6]):
            values = {"axis": "effective", "from": before, "to": after}
            ((between, whole),) = await statements.rows(
                "SELECT (SELECT sum(e.amount) FROM ledger.account a, "
                "ledger.entries_between(a.id, %(from)s, %(to)s, %(axis)s) e), "
                "(SELECT sum(e.amount) FROM ledger.entry e JOIN ledger.txn t ON t.id = e.txn_id "
                "WHERE t.effective_at >= %(from)s AND t.effective_at < %(to)s)",
                values,
            )
            assert between == whole, values

    await agree()
    for as_of, every in [
        *((day, True) for day in days(9, 8, 6)),
        (NOW - timedelta(days=5.5), False),
        (days(3)[0], True),
    ]:
        await statements.rows("SELECT ledger.take_snapshots(%(as_of)s, %(every)s)", {"as_of": as_of, "every": every})
    ((rows,),) = await statements.rows("SELECT count(*) FROM ledger.snapshot")
    assert rows > 15
    await agree()
    report = await verify(bank.url)
    assert [one for one in report.findings if not one.sound] == []


async def test_a_trial_balance_is_the_sum_of_its_accounts_at_any_instant(lived):
    _, statements = lived
    for day in days(8, 6, 3):
        await statements.rows("SELECT ledger.take_snapshots(%(day)s, true)", {"day": day})
    for axis in ("booked", "effective"):
        for at in days(12, 8.5, 6, 4.7, 2, 0):
            values = {"axis": axis, "at": at}
            rows = await statements.rows("SELECT * FROM ledger.trial_balance(1, %(at)s, %(axis)s)", values)
            (sums,) = await statements.rows(
                "SELECT sum(s.debits), sum(s.credits) FROM ledger.account a, "
                "ledger.sums_before(a.id, %(at)s, %(axis)s) s",
                values,
            )
            assert (sum(row[4] for row in rows), sum(row[5] for row in rows)) == sums, values
            assert sums[0] == sums[1]
    now = await statements.rows("SELECT * FROM ledger.trial_balance(1, NULL, 'booked') ORDER BY 1")
    assert now == await statements.rows("SELECT * FROM ledger.trial_balance(1, 'infinity', 'booked') ORDER BY 1")


async def test_due_snapshots_are_taken_once_and_busy_accounts_of_the_book_in_between(lived, monkeypatch):
    bank, statements = lived
    monkeypatch.setattr(snapshots, "_PAUSE", 0.01)
    monkeypatch.setattr(snapshots, "_PATIENCE", 2000)  # whatever runs on the server counts, in other databases too
    assert await take_due(statements) == 5
    assert await take_due(statements) == 0
    await bank.ledger.post(bank.name, "new", [Leg(STP_SETTLEMENT, AccountRef.customer("ana"), Money(1, "MXN"))])
    assert await take_due(statements, busy=1) == 0  # what is younger than the grace is not settled
    assert await take_due(statements, busy=1, grace=timedelta(0)) == 1
    assert await take_due(statements, busy=1, grace=timedelta(0)) == 0
    assert (await verify(bank.url)).sound


async def test_nothing_is_kept_while_a_transaction_of_before_is_under_way(lived, monkeypatch):
    bank, statements = lived
    monkeypatch.setattr(snapshots, "_PAUSE", 0.01)
    address = make_url(bank.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as other:
        other.execute("SELECT pg_current_xact_id()")
        assert await take_due(statements) == 0
        other.commit()
    monkeypatch.setattr(snapshots, "_PATIENCE", 2000)
    assert await take_due(statements) == 5


def test_missed_midnights_are_made_up_for_within_reason():
    until = datetime(2026, 3, 5, 14, tzinfo=UTC)
    assert midnights(None, until) == [datetime(2026, 3, 5, tzinfo=UTC)]
    assert midnights(datetime(2026, 3, 5, tzinfo=UTC), until) == []
    assert midnights(datetime(2026, 3, 2, tzinfo=UTC), until) == [
        datetime(2026, 3, day, tzinfo=UTC) for day in (3, 4, 5)
    ]
    assert len(midnights(datetime(2025, 1, 1, tzinfo=UTC), until)) == 31
