"""Postings: several legs or none, sequences without a gap, amounts up to the edge."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hub.money import MAX_MINOR, Money
from ledger.model import (
    FEE_INCOME,
    OPENING_EQUITY,
    STP_SETTLEMENT,
    AccountClosed,
    AccountFrozen,
    AccountRef,
    AmountNotAllowed,
    CurrencyMismatch,
    InsufficientFunds,
    Leg,
    SameAccount,
    Side,
    UnknownAccount,
)
from ledger.verify import verify

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


def leg(debit: AccountRef, credit: AccountRef, amount: str) -> Leg:
    return Leg(debit, credit, mxn(amount))


async def test_money_that_comes_in_raises_both_the_customer_and_the_banks_account(bank):
    await bank.open({"id": "ana"})
    await bank.ledger.post(bank.name, "d1:credit", [leg(STP_SETTLEMENT, ANA, "12.34")], reference="d1")
    assert (await bank.booked("ana"), await bank.booked(STP_SETTLEMENT)) == ("12.34", "12.34")


async def test_several_legs_are_one_transaction_with_running_balances(bank):
    await bank.open({"id": "ana", "opening_balance": "10"}, {"id": "bruno"})
    await bank.ledger.post(
        bank.name, "t1", [leg(ANA, BRUNO, "6"), leg(BRUNO, FEE_INCOME, "1"), leg(ANA, FEE_INCOME, "4")], reason="split"
    )
    lines = await bank.queries.statement(bank.name, ANA, "MXN")
    assert [(line.sequence, line.side, line.amount, line.balance_after, line.contra) for line in lines] == [
        (3, Side.DEBIT, mxn("4"), mxn("0"), FEE_INCOME),
        (2, Side.DEBIT, mxn("6"), mxn("4"), BRUNO),
        (1, Side.CREDIT, mxn("10"), mxn("10"), OPENING_EQUITY),
    ]
    assert [line.balance_after for line in await bank.queries.statement(bank.name, FEE_INCOME, "MXN")] == [
        mxn("5"),
        mxn("1"),
    ]
    assert {line.transaction for line in lines[:2]} == {lines[0].transaction}
    assert lines[0].reason == "split"


async def test_one_refused_leg_refuses_them_all(bank):
    await bank.open({"id": "ana", "opening_balance": "10"}, {"id": "bruno"}, {"id": "shut", "status": "closed"})
    with pytest.raises(AccountClosed):
        await bank.ledger.post(
            bank.name, "t1", [leg(ANA, BRUNO, "1"), leg(ANA, AccountRef.customer("shut"), "1")], reference="t1"
        )
    assert (await bank.booked("ana"), await bank.booked("bruno")) == ("10.00", "0.00")
    assert await bank.queries.payment(bank.name, "t1") == []


async def test_only_the_sum_of_all_legs_must_be_covered(bank):
    await bank.open({"id": "ana"}, {"id": "bruno", "opening_balance": "5"})
    await bank.ledger.post(bank.name, "t1", [leg(ANA, FEE_INCOME, "1"), leg(BRUNO, ANA, "5")])
    assert await bank.booked("ana") == "4.00"
    with pytest.raises(InsufficientFunds):
        await bank.ledger.post(bank.name, "t2", [leg(ANA, FEE_INCOME, "5"), leg(BRUNO, ANA, "0.01")])
    with pytest.raises(InsufficientFunds):
        await bank.ledger.post(bank.name, "t3", [leg(ANA, BRUNO, "4.01")])


async def test_what_is_held_cannot_be_posted_away(bank):
    await bank.open({"id": "ana", "opening_balance": "10"}, {"id": "bruno"})
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("8"))
    with pytest.raises(InsufficientFunds):
        await bank.ledger.post(bank.name, "t1", [leg(ANA, BRUNO, "3")])
    await bank.ledger.post(bank.name, "t1", [leg(ANA, BRUNO, "2")])


async def test_refusals_of_a_posting_have_their_names(bank):
    await bank.open(
        {"id": "ana", "opening_balance": "10"}, {"id": "usd", "currency": "USD"}, {"id": "cold", "status": "frozen"}
    )
    for legs, refusal in (
        ([leg(ANA, AccountRef.customer("nobody"), "1")], UnknownAccount),
        ([leg(ANA, AccountRef.customer("usd"), "1")], CurrencyMismatch),
        ([leg(ANA, ANA, "1")], SameAccount),
        ([leg(AccountRef.customer("cold"), ANA, "1")], AccountFrozen),
    ):
        with pytest.raises(refusal):
            await bank.ledger.post(bank.name, "t1", legs)
    with pytest.raises(UnknownAccount):
        await bank.ledger.post("no-such-bank", "t1", [leg(ANA, BRUNO, "1")])
    assert await bank.booked("ana") == "10.00"


async def test_two_currencies_in_one_transaction_never_mix(bank):
    await bank.open({"id": "ana", "opening_balance": "10"}, {"id": "ana-usd", "currency": "USD"})
    usd = AccountRef.customer("ana-usd")
    await bank.ledger.post(
        bank.name, "t1", [leg(ANA, FEE_INCOME, "2"), Leg(OPENING_EQUITY, usd, Money.parse("3", "USD"))]
    )
    assert (await bank.booked(FEE_INCOME), await bank.booked("ana-usd", "USD")) == ("2.00", "3.00")
    assert await bank.booked(FEE_INCOME, "USD") == "0.00"


async def test_the_value_date_may_differ_from_the_booking_date(bank):
    await bank.open({"id": "ana"})
    then = datetime(2025, 12, 31, 23, 59, tzinfo=UTC)
    await bank.ledger.post(bank.name, "t1", [leg(STP_SETTLEMENT, ANA, "1")], effective_at=then)
    (line,) = await bank.queries.statement(bank.name, ANA, "MXN")
    assert line.effective_at == then
    assert line.booked_at.year > 2025
    with pytest.raises(ValueError, match="time zone"):
        await bank.ledger.post(bank.name, "t2", [leg(STP_SETTLEMENT, ANA, "1")], effective_at=datetime(2025, 1, 1))  # noqa: DTZ001


async def test_amounts_reach_the_edge_of_what_a_balance_can_hold_and_not_beyond(own_bank):
    bank, most = own_bank, Money(MAX_MINOR, "MXN")
    await bank.open({"id": "ana", "opening_balance": most.decimal()}, {"id": "bruno"})
    await bank.ledger.hold(bank.name, "p1:hold", ANA, most, reference="p1")
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)
    assert (await bank.booked("ana"), await bank.booked("bruno")) == ("0.00", most.decimal())
    with pytest.raises(AmountNotAllowed):
        await bank.ledger.post(bank.name, "t1", [leg(OPENING_EQUITY, BRUNO, "0.01")], reference="t1")
    with pytest.raises(AmountNotAllowed):
        await bank.ledger.post(bank.name, "t1", [Leg(ANA, BRUNO, most), Leg(ANA, BRUNO, most)], reference="t1")
    with pytest.raises(InsufficientFunds):
        await bank.ledger.hold(bank.name, "p2:hold", ANA, most)
    assert await bank.booked("bruno") == most.decimal()
    assert await bank.queries.payment(bank.name, "t1") == []
    assert (await verify(bank.url)).sound


async def test_nothing_and_less_than_nothing_cannot_be_booked(bank):
    await bank.open({"id": "ana"})
    for amount in (0, -1):
        with pytest.raises(ValueError, match="greater than zero"):
            await bank.ledger.post(bank.name, "t1", [Leg(STP_SETTLEMENT, ANA, Money(amount, "MXN"))])
    with pytest.raises(ValueError, match="1 to 100 legs"):
        await bank.ledger.post(bank.name, "t1", [])
    with pytest.raises(ValueError, match="1 to 100 legs"):
        await bank.ledger.post(bank.name, "t1", [leg(STP_SETTLEMENT, ANA, "1")] * 101)


async def test_a_statement_is_read_on_page_by_page(bank):
    await bank.open({"id": "ana"})
    for number in range(5):
        await bank.ledger.post(bank.name, f"t{number}", [leg(STP_SETTLEMENT, ANA, "1")])
    seen, before = [], None
    while page := await bank.queries.statement(bank.name, ANA, "MXN", before=before, limit=2):
        seen += [line.sequence for line in page]
        before = page[-1].sequence
    assert seen == [5, 4, 3, 2, 1]
