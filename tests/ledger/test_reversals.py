"""Reversals: a new transaction that mirrors an old one and names it, once (L15, L16 in the book)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from hub.money import Money
from ledger.model import (
    FEE_INCOME,
    STP_SETTLEMENT,
    AccountClosed,
    AccountRef,
    AlreadyReversed,
    DuplicateOperation,
    InsufficientFunds,
    Leg,
    NotReversible,
    Receipt,
    TransactionUnknown,
)
from ledger.verify import verify

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


async def people(bank: Any) -> None:
    await bank.open({"id": "ana", "opening_balance": "100.00"}, {"id": "bruno"})


async def test_a_reversal_mirrors_every_leg_and_names_the_original(bank):  # L15
    await people(bank)
    legs = [Leg(ANA, BRUNO, mxn("10")), Leg(BRUNO, FEE_INCOME, mxn("1"))]
    first = await bank.ledger.post(bank.name, "t1", legs, reference="p1")
    back = await bank.ledger.reverse(bank.name, "t1", "t1:back", reason="returned")
    assert [await bank.booked(one) for one in ("ana", "bruno", FEE_INCOME)] == ["100.00", "0.00", "0.00"]
    original, reversal = await bank.queries.payment(bank.name, "p1")  # it stands under the original's reference
    assert (original.id, reversal.id, reversal.kind) == (first.transaction, back.transaction, "reverse")
    assert [(leg.debit, leg.credit, leg.amount) for leg in reversal.postings] == [
        (BRUNO, ANA, mxn("10")),
        (FEE_INCOME, BRUNO, mxn("1")),
    ]
    async with bank.engine.connect() as connection:
        found = await connection.exec_driver_sql(f"SELECT reverses_id FROM ledger.txn WHERE id = {back.transaction}")
        assert found.scalar_one() == first.transaction


async def test_a_captured_hold_is_given_back_with_its_fee_and_the_hold_stays_ended(bank):  # L38 in the book
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("60"), mxn("1.50"), reference="p1")
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", STP_SETTLEMENT)
    then = datetime(2025, 3, 1, tzinfo=UTC)
    await bank.ledger.reverse(bank.name, "p1:capture", "p1:returned", reason="returned", effective_at=then)
    assert [await bank.booked(one) for one in ("ana", STP_SETTLEMENT, FEE_INCOME)] == ["100.00", "0.00", "0.00"]
    assert await bank.held("ana") == "0.00"
    assert (await bank.queries.payment(bank.name, "p1"))[2].effective_at == then


async def test_a_reversal_is_made_once_and_its_repeat_answered(bank):  # L16
    await people(bank)
    await bank.ledger.post(bank.name, "t1", [Leg(ANA, BRUNO, mxn("10"))])
    first = await bank.ledger.reverse(bank.name, "t1", "t1:back", reason="returned")
    again = await bank.ledger.reverse(bank.name, "t1", "t1:back", reason="returned")
    assert (again.transaction, first.replayed, again.replayed) == (first.transaction, False, True)
    with pytest.raises(DuplicateOperation):
        await bank.ledger.reverse(bank.name, "t1", "t1:back", reason="another")
    with pytest.raises(AlreadyReversed, match="t1:back"):
        await bank.ledger.reverse(bank.name, "t1", "t1:back-2", reason="returned")
    assert await bank.booked("ana") == "100.00"


async def test_what_moved_no_money_and_what_is_a_reversal_cannot_be_reversed(bank):
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("1"))
    await bank.ledger.post(bank.name, "t1", [Leg(ANA, BRUNO, mxn("10"))])
    await bank.ledger.reverse(bank.name, "t1", "t1:back", reason="returned")
    for original, kind in (("p1:hold", "hold"), ("t1:back", "reverse")):
        with pytest.raises(NotReversible, match=kind):
            await bank.ledger.reverse(bank.name, original, "x", reason="returned")
    with pytest.raises(TransactionUnknown):
        await bank.ledger.reverse(bank.name, "t9", "x", reason="returned")
    with pytest.raises(TransactionUnknown):  # H16
        await bank.ledger.reverse(f"{bank.name}-other", "t1", "x", reason="returned")
    with pytest.raises(ValueError, match="reason"):
        await bank.ledger.reverse(bank.name, "t1", "x", reason="")


async def test_money_that_was_spent_or_locked_away_is_not_taken_back(bank):
    await people(bank)
    await bank.ledger.post(bank.name, "t1", [Leg(ANA, BRUNO, mxn("10"))])
    await bank.ledger.post(bank.name, "t2", [Leg(BRUNO, FEE_INCOME, mxn("4"))])
    with pytest.raises(InsufficientFunds):
        await bank.ledger.reverse(bank.name, "t1", "t1:back", reason="returned")
    await bank.ledger.set_policy(bank.name, ANA, "MXN", "close", reason="asked for")
    with pytest.raises(AccountClosed):
        await bank.ledger.reverse(bank.name, "t1", "t1:back", reason="returned")
    assert (await bank.booked("ana"), await bank.booked("bruno")) == ("90.00", "6.00")


async def test_an_adjustment_needs_a_reason_and_can_be_reversed(bank):  # L11
    await people(bank)
    with pytest.raises(ValueError, match="reason"):
        await bank.ledger.post(bank.name, "a1", [Leg(FEE_INCOME, ANA, mxn("1"))], kind="adjust")
    await bank.ledger.post(bank.name, "a1", [Leg(FEE_INCOME, ANA, mxn("1"))], kind="adjust", reason="goodwill")
    await bank.ledger.reverse(bank.name, "a1", "a1:back", reason="mistaken")
    assert await bank.booked("ana") == "100.00"


async def test_of_two_reversals_at_once_of_each_transaction_exactly_one_wins(own_bank):  # L16
    bank, count = own_bank, 20
    await people(bank)
    # Half of them touch no customer, so that no balance of one puts the two in order.
    for number in range(count):
        legs = [Leg(ANA, BRUNO, mxn("1"))] if number % 2 else [Leg(STP_SETTLEMENT, FEE_INCOME, mxn("1"))]
        await bank.ledger.post(bank.name, f"t{number}", legs)
    ended = await asyncio.gather(
        *(
            bank.ledger.reverse(bank.name, f"t{number}", f"t{number}:back-{turn}", reason="returned")
            for number in range(count)
            for turn in range(2)
        ),
        return_exceptions=True,
    )
    pairs = [{type(one) for one in ended[place : place + 2]} for place in range(0, 2 * count, 2)]
    assert pairs == [{Receipt, AlreadyReversed}] * count
    assert [await bank.booked(one) for one in ("ana", "bruno", FEE_INCOME)] == ["100.00", "0.00", "0.00"]
    assert (await verify(bank.url)).sound
