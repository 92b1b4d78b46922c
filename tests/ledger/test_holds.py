"""Hold, capture, release: the life of money set aside (H1)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from hub.money import Money
from ledger.model import (
    FEE_INCOME,
    STP_SETTLEMENT,
    AccountClosed,
    AccountFrozen,
    AccountRef,
    CurrencyMismatch,
    HoldExpired,
    HoldFinal,
    HoldUnknown,
    InsufficientFunds,
    SameAccount,
    UnknownAccount,
)

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


async def people(bank: Any) -> None:
    await bank.open({"id": "ana", "opening_balance": "100.00"}, {"id": "bruno"})


async def test_a_hold_sets_amount_and_fee_aside_and_books_nothing(bank):  # H1
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("60.00"), mxn("1.50"), reference="p1")
    assert (await bank.booked("ana"), await bank.held("ana")) == ("100.00", "61.50")
    ((_, hold),) = await bank.queries.open_holds(bank.name, ANA)
    assert (hold.operation, hold.reference, hold.amount, hold.fee) == ("p1:hold", "p1", mxn("61.50"), mxn("1.50"))
    assert hold.expires_at is None


async def test_a_capture_pays_the_principal_to_the_payee_and_the_fee_to_fee_income(bank):  # H1
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("60.00"), mxn("1.50"), reference="p1")
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)
    assert [await bank.booked(account) for account in ("ana", "bruno", FEE_INCOME)] == ["38.50", "60.00", "1.50"]
    assert await bank.held("ana") == "0.00"
    hold, capture = await bank.queries.payment(bank.name, "p1")
    assert (hold.kind, list(hold.postings)) == ("hold", [])
    assert [(str(leg.credit), leg.amount, leg.debit_balance) for leg in capture.postings] == [
        ("customer-deposit:bruno", mxn("60.00"), mxn("40.00")),
        ("fee-income", mxn("1.50"), mxn("38.50")),
    ]


async def test_a_capture_over_a_rail_lowers_the_banks_own_money_at_the_rail(bank):
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("60.00"), mxn("1.50"))
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", STP_SETTLEMENT)
    assert [await bank.booked(one) for one in ("ana", STP_SETTLEMENT, FEE_INCOME)] == ["38.50", "-60.00", "1.50"]


async def test_a_capture_without_a_fee_has_one_posting(bank):
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("100.00"), reference="p1")
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)
    assert len((await bank.queries.payment(bank.name, "p1"))[1].postings) == 1
    assert await bank.booked("ana") == "0.00"


async def test_a_release_gives_everything_back_the_fee_included(bank):  # H1
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("60.00"), mxn("1.50"))
    await bank.ledger.release(bank.name, "p1:hold", "p1:release")
    assert (await bank.booked("ana"), await bank.held("ana")) == ("100.00", "0.00")
    assert await bank.queries.open_holds(bank.name, ANA) == []


async def test_money_that_is_held_cannot_be_held_again(bank):
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("60.00"))
    with pytest.raises(InsufficientFunds):
        await bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("40.01"))
    await bank.ledger.hold(bank.name, "p3:hold", ANA, mxn("40.00"))
    assert await bank.held("ana") == "100.00"


async def test_the_fee_counts_when_funds_are_checked(bank):
    await people(bank)
    with pytest.raises(InsufficientFunds):
        await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("100.00"), mxn("0.01"))
    assert await bank.held("ana") == "0.00"


async def test_an_account_with_an_agreed_overdraft_may_go_down_to_it(bank):
    await people(bank)
    await bank.ledger.set_policy(bank.name, ANA, "MXN", "floor", floor=-mxn("50.00"), reason="agreed")
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("150.00"))
    with pytest.raises(InsufficientFunds):
        await bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("0.01"))
    with pytest.raises(InsufficientFunds):  # the floor cannot be drawn above what is there
        await bank.ledger.set_policy(bank.name, ANA, "MXN", "floor", floor=mxn("0"), reason="withdrawn")


async def test_a_hold_is_refused_where_no_account_or_another_currency_is(bank):
    await bank.open({"id": "ana", "opening_balance": "100.00"}, {"id": "usd", "currency": "USD"})
    with pytest.raises(UnknownAccount):
        await bank.ledger.hold(bank.name, "p1:hold", AccountRef.customer("nobody"), mxn("1"))
    with pytest.raises(UnknownAccount):
        await bank.ledger.hold("no-such-bank", "p1:hold", ANA, mxn("1"))
    with pytest.raises(CurrencyMismatch):
        await bank.ledger.hold(bank.name, "p1:hold", AccountRef.customer("usd"), mxn("1"))


async def test_frozen_debits_refuse_holds_and_leave_credits_possible(bank):  # L85
    await bank.open(
        {"id": "ana", "opening_balance": "100.00"}, {"id": "bruno", "opening_balance": "5", "status": "frozen"}
    )
    with pytest.raises(AccountFrozen):
        await bank.ledger.hold(bank.name, "p1:hold", BRUNO, mxn("1"))
    await bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("1"))
    await bank.ledger.capture(bank.name, "p2:hold", "p2:capture", BRUNO)
    await bank.ledger.set_policy(bank.name, BRUNO, "MXN", "unfreeze-debits", reason="cleared")
    await bank.ledger.hold(bank.name, "p1:hold", BRUNO, mxn("6"))


async def test_a_closed_account_takes_neither_holds_nor_money(bank):
    await bank.open({"id": "ana", "opening_balance": "100.00"}, {"id": "bruno", "status": "closed"})
    with pytest.raises(AccountClosed):
        await bank.ledger.hold(bank.name, "p1:hold", BRUNO, mxn("1"))
    await bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("1"))
    with pytest.raises(AccountClosed):
        await bank.ledger.capture(bank.name, "p2:hold", "p2:capture", BRUNO)
    await bank.ledger.set_policy(bank.name, BRUNO, "MXN", "reopen", reason="asked for")
    await bank.ledger.capture(bank.name, "p2:hold", "p2:capture", BRUNO)
    assert await bank.booked("bruno") == "1.00"


async def test_a_refused_capture_keeps_the_hold(bank):
    await bank.open({"id": "ana", "opening_balance": "100.00"}, {"id": "usd", "currency": "USD"})
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("60.00"), mxn("1"))
    for to, refusal in (
        (AccountRef.customer("nobody"), UnknownAccount),
        (AccountRef.customer("usd"), CurrencyMismatch),
        (ANA, SameAccount),
        (FEE_INCOME, SameAccount),
    ):
        with pytest.raises(refusal):
            await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", to)
    assert (await bank.booked("ana"), await bank.held("ana")) == ("100.00", "61.00")
    await bank.ledger.release(bank.name, "p1:hold", "p1:release")


async def test_credits_frozen_refuse_the_payee(bank):
    await people(bank)
    await bank.ledger.set_policy(bank.name, BRUNO, "MXN", "freeze-credits", reason="court order")
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("1"))
    with pytest.raises(AccountFrozen):
        await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)
    await bank.ledger.set_policy(bank.name, BRUNO, "MXN", "unfreeze-credits", reason="lifted")
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)


async def test_a_payer_frozen_or_closed_after_the_hold_does_not_stop_its_capture(bank):
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("1"))
    await bank.ledger.set_policy(bank.name, ANA, "MXN", "freeze-debits", reason="court order")
    await bank.ledger.set_policy(bank.name, ANA, "MXN", "close", reason="asked for")
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", STP_SETTLEMENT)
    assert await bank.booked("ana") == "99.00"


async def test_a_hold_ends_once_whatever_is_asked_afterwards(bank):
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("1"))
    await bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("1"))
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)
    await bank.ledger.release(bank.name, "p2:hold", "p2:release")
    for hold, ended in (("p1", "captured"), ("p2", "released")):
        with pytest.raises(HoldFinal, match=ended):
            await bank.ledger.capture(bank.name, f"{hold}:hold", "another:capture", BRUNO)
        with pytest.raises(HoldFinal, match=ended):
            await bank.ledger.release(bank.name, f"{hold}:hold", "another:release")


async def test_what_was_never_held_can_be_neither_captured_nor_released(bank):
    await people(bank)
    with pytest.raises(HoldUnknown):
        await bank.ledger.capture(bank.name, "p9:hold", "p9:capture", BRUNO)
    with pytest.raises(HoldUnknown):
        await bank.ledger.release(bank.name, "p9:hold", "p9:release")
    with pytest.raises(HoldUnknown):  # an operation, but no hold
        await bank.ledger.release(bank.name, "seed:ana:opening", "p9:release")


async def test_another_tenants_hold_does_not_exist(bank):  # H16
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("1"))
    with pytest.raises(HoldUnknown):
        await bank.ledger.release(f"{bank.name}-other", "p1:hold", "p1:release")


async def test_a_late_capture_is_refused_even_before_the_sweeper_came(bank):
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("1"), lifetime=timedelta(milliseconds=1))
    await asyncio.sleep(0.01)
    with pytest.raises(HoldExpired):
        await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)
    assert await bank.held("ana") == "1.00"


async def test_the_sweeper_frees_what_expired_and_nothing_else(own_bank):
    bank = own_bank
    await people(bank)
    await bank.ledger.hold(bank.name, "late:hold", ANA, mxn("1"), lifetime=timedelta(milliseconds=1))
    await bank.ledger.hold(bank.name, "early:hold", ANA, mxn("2"), lifetime=timedelta(hours=1))
    await bank.ledger.hold(bank.name, "done:hold", ANA, mxn("3"), lifetime=timedelta(milliseconds=1))
    await bank.ledger.release(bank.name, "done:hold", "done:release")
    await asyncio.sleep(0.01)
    assert await bank.ledger.expire_holds() == 1
    assert await bank.ledger.expire_holds() == 0
    assert await bank.held("ana") == "2.00"
    with pytest.raises(HoldFinal, match="released"):
        await bank.ledger.release(bank.name, "late:hold", "late:release")


async def test_time_never_frees_the_hold_of_a_payment_whose_outcome_is_open(own_bank):  # H3
    bank = own_bank
    await people(bank)
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("60"), reference="p1")
    async with bank.engine.begin() as connection:
        # As if it had been placed a year ago; the triggers have to be told.
        await connection.execute(text("ALTER TABLE ledger.txn DISABLE TRIGGER ALL"))
        await connection.execute(text("UPDATE ledger.txn SET booked_at = booked_at - interval '1 year'"))
        await connection.execute(text("ALTER TABLE ledger.txn ENABLE ALWAYS TRIGGER append_only"))
    assert await bank.ledger.expire_holds() == 0
    assert await bank.held("ana") == "60.00"
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", STP_SETTLEMENT)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(days=401)])
async def test_a_lifetime_lies_between_nothing_and_a_bit_over_a_year(bank, lifetime):
    with pytest.raises(ValueError, match="lifetime"):
        await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("1"), lifetime=lifetime)


async def test_zero_and_negative_amounts_are_no_holds(bank):
    for amount, fee in ((Money(0, "MXN"), None), (Money(-1, "MXN"), None), (mxn("1"), Money(-1, "MXN"))):
        with pytest.raises(ValueError, match=r"zero|negative"):
            await bank.ledger.hold(bank.name, "p1:hold", ANA, amount, fee)
