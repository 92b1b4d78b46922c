"""What a caller may ask beyond the legs: conditions, a dry run, and accounts that the chart opens on first use."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.money import Money
from ledger.model import (
    FEE_INCOME,
    STP_SETTLEMENT,
    AccountRef,
    AmountNotAllowed,
    Condition,
    ConditionUnmet,
    DuplicateOperation,
    InsufficientFunds,
    Leg,
    Receipt,
    UnknownAccount,
)
from ledger.verify import verify

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


def at_least(account: AccountRef, amount: str) -> Condition:
    return Condition(account, "MXN", available_at_least=mxn(amount))


def version(account: AccountRef, number: int) -> Condition:
    return Condition(account, "MXN", version=number)


async def people(bank: Any) -> None:
    await bank.open({"id": "ana", "opening_balance": "100.00"}, {"id": "bruno"})


async def test_a_post_is_done_only_when_its_conditions_hold(bank):
    await people(bank)
    legs = [Leg(ANA, BRUNO, mxn("10"))]
    for condition in (at_least(ANA, "100.01"), at_least(BRUNO, "0.01"), version(ANA, 0), version(FEE_INCOME, 1)):
        with pytest.raises(ConditionUnmet, match="version" if condition.version is not None else "available"):
            await bank.ledger.post(bank.name, "t1", legs, conditions=[condition])
    met = [at_least(ANA, "100"), version(ANA, 1), version(STP_SETTLEMENT, 0)]
    with pytest.raises(ConditionUnmet):  # all of them
        await bank.ledger.post(bank.name, "t1", legs, conditions=[*met, version(BRUNO, 7)])
    assert await bank.booked("bruno") == "0.00"
    await bank.ledger.post(bank.name, "t1", legs, conditions=met)
    assert await bank.booked("bruno") == "10.00"
    assert (await bank.ledger.post(bank.name, "t1", legs, conditions=met)).replayed  # though they hold no longer
    with pytest.raises(DuplicateOperation):
        await bank.ledger.post(bank.name, "t1", legs)


async def test_a_hold_is_placed_only_when_its_conditions_hold(bank):
    await people(bank)
    with pytest.raises(ConditionUnmet):
        await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("10"), conditions=[version(ANA, 2)])
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("10"), conditions=[version(ANA, 1), at_least(ANA, "100")])
    with pytest.raises(ConditionUnmet):  # what is held is not available
        await bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("10"), conditions=[at_least(ANA, "90.01")])
    with pytest.raises(UnknownAccount):
        await bank.ledger.hold(
            bank.name, "p2:hold", ANA, mxn("10"), conditions=[version(AccountRef.customer("nobody"), 0)]
        )
    assert await bank.held("ana") == "10.00"


async def test_of_many_that_ask_for_one_version_exactly_one_is_done(bank):
    await people(bank)
    ended = await asyncio.gather(
        *(
            bank.ledger.post(bank.name, f"t{n}", [Leg(ANA, BRUNO, mxn("1"))], conditions=[version(ANA, 1)])
            for n in range(8)
        ),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in ended) == ["ConditionUnmet"] * 7 + ["Receipt"]
    assert await bank.booked("bruno") == "1.00"


def test_a_condition_asks_for_something_in_the_accounts_currency():
    with pytest.raises(ValueError, match="asks for"):
        Condition(ANA, "MXN")
    with pytest.raises(ValueError, match="currency"):
        Condition(ANA, "MXN", available_at_least=Money(1, "USD"))


async def test_a_dry_run_gives_the_same_answer_and_writes_nothing(own_bank):
    bank = own_bank
    await people(bank)
    legs = [Leg(ANA, BRUNO, mxn("10"))]
    assert isinstance(await bank.ledger.post(bank.name, "t1", legs, dry_run=True), Receipt)
    assert not (await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("10"), dry_run=True)).replayed
    with pytest.raises(InsufficientFunds):
        await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("100.01"), dry_run=True)
    with pytest.raises(ConditionUnmet):
        await bank.ledger.post(bank.name, "t1", legs, conditions=[version(ANA, 9)], dry_run=True)
    most = Money(2**63 - 1, "MXN")
    with pytest.raises(AmountNotAllowed):
        await bank.ledger.post(
            bank.name, "t1", [Leg(STP_SETTLEMENT, ANA, most), Leg(STP_SETTLEMENT, BRUNO, most)], dry_run=True
        )
    assert [await bank.booked("ana"), await bank.held("ana"), await bank.booked("bruno")] == ["100.00", "0.00", "0.00"]
    assert not (await bank.ledger.post(bank.name, "t1", legs)).replayed
    assert (await bank.ledger.post(bank.name, "t1", legs, dry_run=True)).replayed
    assert (await verify(bank.url)).sound


def declare(bank: Any) -> None:
    """A book whose chart opens a customer's account with the first money that comes in."""
    address = make_url(bank.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        connection.execute("INSERT INTO ledger.book (code) VALUES (%s)", [bank.name])
        connection.execute(
            "INSERT INTO ledger.chart (book_id, kind, side, auto_create, auto_create_for, floor_default) "
            "SELECT id, 'customer-deposit', 'C', true, 'customer', 0 FROM ledger.book WHERE code = %s",
            [bank.name],
        )


async def test_a_customers_account_is_opened_on_first_use_where_the_chart_declares_it(bank):  # L61
    declare(bank)
    await bank.open({"id": "ana", "opening_balance": "100"})
    new = AccountRef.customer("new")
    done = await asyncio.gather(
        *(bank.ledger.post(bank.name, f"t{n}", [Leg(ANA, new, mxn("1"))]) for n in range(8)),
    )
    assert len({receipt.transaction for receipt in done}) == 8
    assert await bank.booked("new") == "8.00"  # two first ones at once make one account
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("1"))
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", AccountRef.customer("newer"))
    assert await bank.booked("newer") == "1.00"


async def test_a_refused_first_use_opens_nothing(bank):
    declare(bank)
    await bank.open({"id": "ana", "opening_balance": "1"})
    new = AccountRef.customer("new")
    with pytest.raises(InsufficientFunds):
        await bank.ledger.post(bank.name, "t1", [Leg(ANA, new, mxn("2"))])
    with pytest.raises(InsufficientFunds):
        await bank.ledger.post(bank.name, "t1", [Leg(new, ANA, mxn("2"))])
    await bank.ledger.post(bank.name, "t1", [Leg(ANA, new, mxn("1"))], dry_run=True)
    assert await bank.queries.balances(bank.name, new) == []


async def test_without_a_declaration_nobody_is_opened(bank):
    await people(bank)
    for stranger in (AccountRef.customer("nobody"), AccountRef.parse("stp-settlement:somebody")):
        with pytest.raises(UnknownAccount):
            await bank.ledger.post(bank.name, "t1", [Leg(ANA, stranger, mxn("1"))])
        assert await bank.queries.balances(bank.name, stranger) == []
