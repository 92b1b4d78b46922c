"""One operation id, one effect (L65 in the book): a repeat is answered, another input is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hub.money import Money
from ledger.model import (
    STP_SETTLEMENT,
    AccountRef,
    DuplicateOperation,
    InsufficientFunds,
    Leg,
    Receipt,
    UnknownAccount,
)

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


async def people(bank: Any) -> None:
    await bank.open({"id": "ana", "opening_balance": "100.00"}, {"id": "bruno"})


def again(receipt: Receipt) -> Receipt:
    assert not receipt.replayed
    return replace(receipt, replayed=True)


async def test_a_repeat_of_every_verb_gets_the_first_answer_and_changes_nothing(bank):
    await people(bank)
    book, name = bank.ledger, bank.name
    hold = await book.hold(name, "p1:hold", ANA, mxn("60"), mxn("1"), reference="p1")
    assert await book.hold(name, "p1:hold", ANA, mxn("60"), mxn("1"), reference="p1") == again(hold)
    capture = await book.capture(name, "p1:hold", "p1:capture", BRUNO)
    assert await book.capture(name, "p1:hold", "p1:capture", BRUNO) == again(capture)
    assert await book.hold(name, "p1:hold", ANA, mxn("60"), mxn("1"), reference="p1") == again(hold)
    await book.hold(name, "p2:hold", ANA, mxn("5"))
    release = await book.release(name, "p2:hold", "p2:release")
    assert await book.release(name, "p2:hold", "p2:release") == again(release)
    post = await book.post(name, "t1", [Leg(STP_SETTLEMENT, ANA, mxn("1"))], reason="r")
    assert await book.post(name, "t1", [Leg(STP_SETTLEMENT, ANA, mxn("1"))], reason="r") == again(post)
    assert (await bank.booked("ana"), await bank.held("ana"), await bank.booked("bruno")) == ("40.00", "0.00", "60.00")


async def test_the_same_operation_with_other_input_is_refused_and_the_first_stands(bank):
    await people(bank)
    book, name = bank.ledger, bank.name
    await book.hold(name, "p1:hold", ANA, mxn("60"), mxn("1"), reference="p1")
    for changed in (
        book.hold(name, "p1:hold", ANA, mxn("59"), mxn("2"), reference="p1"),
        book.hold(name, "p1:hold", ANA, mxn("60"), mxn("1"), reference="p9"),
        book.hold(name, "p1:hold", ANA, mxn("60"), mxn("1.01"), reference="p1"),
        book.hold(name, "p1:hold", BRUNO, mxn("60"), mxn("1"), reference="p1"),
        book.hold(name, "p1:hold", AccountRef.customer("nobody"), mxn("60"), mxn("1"), reference="p1"),
        book.post(name, "p1:hold", [Leg(STP_SETTLEMENT, ANA, mxn("1"))]),
        book.post(name, "p1:hold", [Leg(STP_SETTLEMENT, AccountRef.customer("nobody"), mxn("1"))]),
        book.capture(name, "p1:hold", "p1:hold", BRUNO),
        book.release(name, "p1:hold", "p1:hold"),
    ):
        with pytest.raises(DuplicateOperation, match="p1:hold"):
            await changed
    await book.capture(name, "p1:hold", "p1:capture", BRUNO)
    with pytest.raises(DuplicateOperation):
        await book.capture(name, "p1:hold", "p1:capture", STP_SETTLEMENT)
    assert await bank.booked("bruno") == "60.00"


async def test_a_repeat_is_answered_even_when_it_would_be_refused_today(bank):
    await people(bank)
    book, name = bank.ledger, bank.name
    hold = await book.hold(name, "p1:hold", ANA, mxn("100"))
    await book.set_policy(name, ANA, "MXN", "close", reason="asked for")
    assert await book.hold(name, "p1:hold", ANA, mxn("100")) == again(hold)


async def test_a_refusal_is_not_remembered(bank):
    await people(bank)
    with pytest.raises(InsufficientFunds):
        await bank.ledger.hold(bank.name, "p1:hold", BRUNO, mxn("1"))
    await bank.ledger.post(bank.name, "t1", [Leg(ANA, BRUNO, mxn("1"))])
    assert not (await bank.ledger.hold(bank.name, "p1:hold", BRUNO, mxn("1"))).replayed


async def test_two_tenants_may_use_the_same_operation_id(bank):  # H16
    await people(bank)
    other = replace(bank, name=f"{bank.name}-other")
    await people(other)
    first = await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("1"))
    second = await bank.ledger.hold(other.name, "p1:hold", ANA, mxn("2"))
    assert first.transaction != second.transaction
    assert (await bank.held("ana"), await other.held("ana")) == ("1.00", "2.00")


@pytest.mark.parametrize("operation", ["", "x" * 201, "tab\there", "ñ", "expire:5", "with space"])
async def test_an_operation_id_is_plain_short_text_and_not_the_sweepers(bank, operation):
    with pytest.raises(ValueError, match="operation id"):
        await bank.ledger.release(bank.name, "p1:hold", operation)


async def test_an_unknown_hold_of_an_unknown_account_stays_repeatable(bank):
    await people(bank)
    for _ in range(2):
        with pytest.raises(UnknownAccount):
            await bank.ledger.hold(bank.name, "p1:hold", AccountRef.customer("nobody"), mxn("1"))
