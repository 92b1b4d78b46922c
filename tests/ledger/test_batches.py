"""Many postings in one statement, and postings that coalesce in the process: the same answers as one by one."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from hub.errors import Unavailable
from hub.money import MAX_MINOR, Money
from ledger.coalescing import Coalescer
from ledger.model import (
    FEE_INCOME,
    OPENING_EQUITY,
    STP_SETTLEMENT,
    AccountClosed,
    AccountFrozen,
    AccountRef,
    BatchRefused,
    CurrencyMismatch,
    DuplicateOperation,
    InsufficientFunds,
    LedgerRefused,
    Leg,
    Post,
    Receipt,
    SameAccount,
    UnknownAccount,
)
from ledger.verify import verify

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


def said(outcomes: Sequence[Receipt | LedgerRefused]) -> list[str]:
    return [one.code if isinstance(one, LedgerRefused) else "replayed" if one.replayed else "done" for one in outcomes]


async def test_a_batch_books_each_post_in_order_with_gapless_sequences(own_bank):
    bank = own_bank
    await bank.open({"id": "ana", "opening_balance": "10"}, {"id": "bruno"})
    # bruno can pay only with what ana pays him first.
    legs = [Leg(ANA, BRUNO, mxn("6")), Leg(BRUNO, FEE_INCOME, mxn("5")), Leg(STP_SETTLEMENT, ANA, mxn("1"))]
    posts = [Post(bank.name, f"t{n}", leg, reference="p1", reason="r") for n, leg in enumerate(legs)]
    outcomes = await bank.ledger.post_batch(posts)
    assert said(outcomes) == ["done"] * 3
    assert [await bank.booked(one) for one in ("ana", "bruno", FEE_INCOME)] == ["5.00", "1.00", "5.00"]
    lines = await bank.queries.statement(bank.name, BRUNO, "MXN")
    assert [(line.sequence, line.operation, line.balance_after) for line in lines] == [
        (2, "t1", mxn("1")),
        (1, "t0", mxn("6")),
    ]
    report = await verify(bank.url)
    assert report.sound, report
    again = await bank.ledger.post_batch(posts)
    assert said(again) == ["replayed"] * 3
    assert [one.transaction for one in again] == [one.transaction for one in outcomes]
    assert (await bank.ledger.post(bank.name, "t0", [legs[0]], reference="p1", reason="r")).replayed  # alone as well


async def test_a_refused_post_has_its_name_and_does_not_stop_the_others(own_bank):
    bank, customer = own_bank, AccountRef.customer
    await bank.open(
        {"id": "ana", "opening_balance": "10"},
        {"id": "bruno"},
        {"id": "usd", "currency": "USD"},
        {"id": "cold", "opening_balance": "10", "status": "frozen"},
        {"id": "shut", "status": "closed"},
    )
    await bank.ledger.hold(bank.name, "h", ANA, mxn("2"))
    await bank.ledger.post(bank.name, "old", [Leg(ANA, BRUNO, mxn("1"))])
    attempts: list[tuple[str, Leg, type[LedgerRefused] | None]] = [
        ("t0", Leg(ANA, BRUNO, mxn("4")), None),
        ("t1", Leg(ANA, BRUNO, mxn("3.01")), InsufficientFunds),  # 10 - 1 - 4, and 2 are held
        ("t2", Leg(ANA, customer("nobody"), mxn("1")), UnknownAccount),
        ("t3", Leg(customer("usd"), ANA, mxn("1")), CurrencyMismatch),
        ("t4", Leg(customer("cold"), ANA, mxn("1")), AccountFrozen),
        ("t5", Leg(ANA, customer("shut"), mxn("1")), AccountClosed),
        ("t6", Leg(ANA, ANA, mxn("1")), SameAccount),
        ("old", Leg(ANA, BRUNO, mxn("2")), DuplicateOperation),
        ("h", Leg(ANA, BRUNO, mxn("2")), DuplicateOperation),
        ("t7", Leg(ANA, BRUNO, mxn("3")), None),
        ("t7", Leg(ANA, BRUNO, mxn("2")), DuplicateOperation),
    ]
    posts = [Post(bank.name, operation, leg) for operation, leg, _ in attempts]
    outcomes = await bank.ledger.post_batch([*posts, Post("no-such-bank", "t8", posts[0].leg)])
    expected = [Receipt if refusal is None else refusal for _, _, refusal in attempts]
    assert [type(one) for one in outcomes] == [*expected, UnknownAccount]
    assert [await bank.booked("ana"), await bank.booked("bruno")] == ["2.00", "8.00"]
    assert (await verify(bank.url)).sound


async def test_an_atomic_batch_is_all_or_nothing(own_bank):
    bank = own_bank
    await bank.open({"id": "ana", "opening_balance": "10"}, {"id": "bruno"})
    good = [Post(bank.name, f"t{n}", Leg(ANA, BRUNO, mxn("1"))) for n in range(3)]
    bad = Post(bank.name, "t9", Leg(ANA, BRUNO, mxn("9")))
    outcomes = await bank.ledger.post_batch([*good, bad], atomic=True)
    assert [type(one) for one in outcomes] == [BatchRefused] * 3 + [InsufficientFunds]
    assert await bank.booked("bruno") == "0.00"
    assert said(await bank.ledger.post_batch(good, atomic=True)) == ["done"] * 3
    assert said(await bank.ledger.post_batch(good, atomic=True)) == ["replayed"] * 3
    with pytest.raises(ValueError, match="twice"):
        await bank.ledger.post_batch([*good, good[0]], atomic=True)
    for posts in ([], [bad] * 1001):
        with pytest.raises(ValueError, match="1 to 1000"):
            await bank.ledger.post_batch(posts)
    assert (await verify(bank.url)).sound


async def test_a_batch_that_would_overflow_a_shared_account_is_answered_one_by_one(own_bank):
    bank, most = own_bank, Money(MAX_MINOR, "MXN")
    await bank.open({"id": "ana"}, {"id": "bruno"})
    posts = [
        Post(bank.name, "t0", Leg(OPENING_EQUITY, ANA, most)),
        Post(bank.name, "t1", Leg(OPENING_EQUITY, BRUNO, mxn("1"))),
        Post(bank.name, "t2", Leg(STP_SETTLEMENT, BRUNO, mxn("2"))),
    ]
    assert said(await bank.ledger.post_batch(posts)) == ["done", "amount-not-allowed", "done"]
    assert await bank.booked("bruno") == "2.00"
    assert (await verify(bank.url)).sound


async def test_batches_singles_and_holds_crossing_at_once_end_without_a_deadlock(own_bank):
    bank, people = own_bank, [AccountRef.customer(f"c{number}") for number in range(8)]
    await bank.open(*({"id": ref.owner, "opening_balance": "1000.00"} for ref in people))

    async def someone(number: int) -> int:
        chance, done = random.Random(number), 0
        for step in range(4):
            posts = []
            for place in range(12):
                # Every second batch repeats operations that another one sends, in another order.
                name = f"{number // 2}-{step}-{place}" if number % 4 < 2 else f"{number}-{step}-{place}"
                legs = random.Random(name).sample([*people, STP_SETTLEMENT, FEE_INCOME], 2)
                posts.append(Post(bank.name, name, Leg(legs[0], legs[1], mxn("1"))))
            chance.shuffle(posts)
            outcomes = await bank.ledger.post_batch(posts)
            assert set(said(outcomes)) <= {"done", "replayed"}
            done += said(outcomes).count("done")
            await bank.ledger.hold(bank.name, f"h-{number}-{step}", chance.choice(people), mxn("1"), mxn("0.10"))
            await bank.ledger.capture(bank.name, f"h-{number}-{step}", f"c-{number}-{step}", STP_SETTLEMENT)
            await bank.ledger.post(
                bank.name, f"s-{number}-{step}", [Leg(STP_SETTLEMENT, chance.choice(people), mxn("1"))]
            )
        return done

    done = await asyncio.gather(*(someone(number) for number in range(16)))
    async with bank.engine.connect() as connection:
        booked = await connection.exec_driver_sql(
            "SELECT count(*) FROM ledger.txn WHERE kind = 'post' AND idem_key ~ '^[0-9]'"
        )
        assert sum(done) == booked.scalar_one()
    report = await verify(bank.url)
    assert report.sound, report


async def test_posts_of_many_callers_coalesce_and_each_gets_its_own_answer(own_bank):
    bank = own_bank
    await bank.open({"id": "ana", "opening_balance": "30"}, {"id": "bruno"})
    attempts = [bank.ledger.post(bank.name, f"t{n % 48}", [Leg(ANA, BRUNO, mxn("1"))]) for n in range(64)]
    ended = await asyncio.gather(*attempts, return_exceptions=True)
    assert {type(one) for one in ended} == {Receipt, InsufficientFunds}
    booked = {one.transaction for one in ended if isinstance(one, Receipt)}
    assert len(booked) == 30
    assert sum(not one.replayed for one in ended if isinstance(one, Receipt)) == 30
    assert await bank.booked("bruno") == "30.00"
    async with bank.engine.connect() as connection:
        # Fewer database transactions than postings: that they went in groups can be seen.
        found = await connection.exec_driver_sql(
            "SELECT count(DISTINCT xact) FROM ledger.outbox WHERE topic = 'ledger.post'"
        )
        assert found.scalar_one() < 20
    assert (await verify(bank.url)).sound


class Database:
    """Stands for the database: remembers groups, and lets them through when told."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.groups: list[list[int]] = []

    async def one(self, item: int) -> int:
        (outcome,) = await self.many([item])
        if isinstance(outcome, Exception):
            raise outcome
        return int(outcome)

    async def many(self, items: Sequence[int]) -> list[Any]:
        self.groups.append(list(items))
        await self.open.wait()
        return [-item if item % 10 else LedgerRefused(str(item)) for item in items]


async def test_nobody_is_answered_before_the_group_is_done_and_who_gave_up_is_never_sent():
    database = Database()
    posts: Coalescer[int, int] = Coalescer(database.one, database.many, max_group=3, max_under_way=1)
    asked = [asyncio.ensure_future(posts.do(number)) for number in range(1, 8)]
    await asyncio.sleep(0)
    asked[2].cancel()
    await asyncio.sleep(0)
    assert database.groups == [[1]]
    assert not any(one.done() for one in asked if one is not asked[2])
    database.open.set()
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in ended if not isinstance(one, int)] == [asyncio.CancelledError]
    assert database.groups == [[1], [2, 4, 5], [6, 7]]
    with pytest.raises(LedgerRefused, match="10"):
        await posts.do(10)


async def test_who_is_cancelled_while_the_group_is_under_way_does_not_disturb_the_others():
    database = Database()
    posts: Coalescer[int, int] = Coalescer(database.one, database.many, max_under_way=1)
    first, second, third = (asyncio.ensure_future(posts.do(number)) for number in (1, 2, 3))
    await asyncio.sleep(0)
    first.cancel()  # it went by itself; its end lets the group go
    await asyncio.sleep(0.01)
    second.cancel()
    database.open.set()
    assert await third == -3
    assert database.groups == [[1], [2, 3]]
    assert await posts.do(4) == -4  # and the place is free again


async def test_a_full_queue_makes_callers_wait_and_then_tells_them(monkeypatch):
    monkeypatch.setattr("ledger.coalescing._WAIT_WITHIN", 0.05)
    database = Database()
    posts: Coalescer[int, int] = Coalescer(database.one, database.many, max_waiting=2, max_under_way=1)
    asked = [asyncio.ensure_future(posts.do(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many"):
        await posts.do(4)
    late = asyncio.ensure_future(posts.do(5))
    await asyncio.sleep(0)
    database.open.set()
    assert await asyncio.gather(*asked, late) == [-1, -2, -3, -5]


async def test_what_fails_for_a_group_fails_for_everybody_in_it():
    async def one(item: int) -> int:
        await asyncio.sleep(0.01)
        return item

    async def away(items: Sequence[int]) -> list[Any]:
        raise Unavailable("database")

    posts: Coalescer[int, int] = Coalescer(one, away, max_under_way=1)
    ended = await asyncio.gather(*(posts.do(number) for number in range(3)), return_exceptions=True)
    assert [type(one) for one in ended] == [int, Unavailable, Unavailable]


_PROGRAM = """
import asyncio, sys
from hub.statements import open_statements
from hub.money import Money
from ledger.book import Ledger
from ledger.model import STP_SETTLEMENT, AccountRef, Leg

async def main(url, book):
    async with open_statements(url, 4) as statements:
        ledger = Ledger(statements)
        async def post(number):
            await ledger.post(book, f"t{number}", [Leg(STP_SETTLEMENT, AccountRef.customer("ana"), Money(100, "MXN"))])
            print(number, flush=True)
        await asyncio.gather(*(post(number) for number in range(40)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("point", ["ledger.batch.before-commit", "ledger.batch.after-commit"])
async def test_a_process_that_dies_with_a_group_loses_only_what_nobody_was_answered_for(bank, point):
    await bank.open({"id": "ana"})
    command = [sys.executable, "-c", _PROGRAM, bank.url, bank.name]
    killed = await asyncio.to_thread(
        subprocess.run,
        command,
        env={**os.environ, "PAYHUB_FAILPOINT": point},
        check=False,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL
    answered = {int(number) for number in killed.stdout.split()}
    repeated = [await bank.ledger.post(bank.name, f"t{n}", [Leg(STP_SETTLEMENT, ANA, mxn("1"))]) for n in range(40)]
    assert answered <= {number for number, one in enumerate(repeated) if one.replayed}
    assert await bank.booked("ana") == "40.00"
