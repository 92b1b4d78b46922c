"""Balances are made again from postings and holds, and equal the kept ones after any history (L79)."""

from __future__ import annotations

import random
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.money import Money
from hub.statements import open_statements
from ledger.chain import Sealer
from ledger.model import FEE_INCOME, STP_SETTLEMENT, AccountRef, LedgerRefused, Leg
from ledger.rebuild import NotRebuilt, rebuild
from ledger.verify import verify


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
async def lived(own_bank):
    """A book with a random life of some hundred operations, refusals included."""
    bank, chance = own_bank, random.Random(4)
    await bank.open(*({"id": f"c{number}", "opening_balance": "50"} for number in range(4)))
    accounts = [AccountRef.customer(f"c{number}") for number in range(4)]
    holds: list[str] = []
    for step in range(120):
        one, other = chance.sample([*accounts, STP_SETTLEMENT, FEE_INCOME], 2)
        amount = Money(chance.randrange(1, 3000), "MXN")
        try:
            match chance.randrange(4):
                case 0:
                    lifetime = chance.choice([None, timedelta(microseconds=1)])
                    await bank.ledger.hold(bank.name, f"h{step}", chance.choice(accounts), amount, lifetime=lifetime)
                    holds.append(f"h{step}")
                case 1 if holds:
                    await bank.ledger.capture(bank.name, chance.choice(holds), f"c{step}", other)
                case 2 if holds:
                    await bank.ledger.release(bank.name, chance.choice(holds), f"r{step}")
                case _:
                    await bank.ledger.post(bank.name, f"p{step}", [Leg(one, other, amount)])
        except LedgerRefused:
            pass
    await bank.ledger.expire_holds()
    return bank


def damage(bank, *statements: str) -> None:
    with psycopg.connect(plain(bank.url)) as connection:
        for table in ("balance", "posting"):
            connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL".encode())
        for statement in statements:
            connection.execute(statement.encode())


async def test_balances_made_again_after_a_random_life_equal_the_kept_ones_and_wrong_ones_are_mended(lived):
    made = await rebuild(lived.url)
    assert made.equal, made
    assert made.balances == 11
    assert (await rebuild(lived.url, write=True, reason="nothing to do")).written is False

    damage(lived, "UPDATE ledger.balance SET credits = credits + 5, ver = ver + 1 WHERE account_id = 8")
    made = await rebuild(lived.url)
    assert [(one.account_id, one.kept.credits - one.rebuilt.credits) for one in made.wrong] == [(8, 5)]
    assert not (await verify(lived.url)).sound  # looking changes nothing

    made = await rebuild(lived.url, write=True, reason="ticket 4711")
    assert made.written
    assert "They were replaced." in str(made)
    assert (await verify(lived.url)).sound
    with psycopg.connect(plain(lived.url)) as connection:
        ((account, was, became, reason),) = connection.execute(
            "SELECT account_id, was->>'ver', became->>'ver', reason FROM ledger.rebuilt_balance"
        ).fetchall()
    assert (account, int(was) - int(became), reason) == (8, 1, "ticket 4711")


async def test_balances_are_not_replaced_while_the_postings_themselves_are_in_doubt(lived):
    async with open_statements(lived.url, 1) as statements:
        assert await Sealer(statements).seal() > 50
    damage(
        lived,
        "UPDATE ledger.posting SET amount = amount + 1, dr_after = dr_after - 1 WHERE txn_id = 1",
        "UPDATE ledger.balance SET credits = credits + 1 WHERE account_id = 1",
    )
    with pytest.raises(NotRebuilt):
        await rebuild(lived.url, write=True, reason="cover up")
    assert not (await rebuild(lived.url)).equal


async def test_a_replaced_balance_needs_a_reason(lived):
    with pytest.raises(ValueError, match="reason"):
        await rebuild(lived.url, write=True)
