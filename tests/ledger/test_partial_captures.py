"""Holds captured in parts, renewed, expired: money leaves a hold once and for all (H1)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hub.money import Money
from ledger.model import (
    FEE_INCOME,
    STP_SETTLEMENT,
    AccountRef,
    AmountNotAllowed,
    CurrencyMismatch,
    DuplicateOperation,
    HoldExpired,
    HoldFinal,
    HoldUnknown,
)
from ledger.verify import verify

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


async def held(bank: Any, lifetime: timedelta | None = None) -> None:
    """ana has 100; 60 of it and a fee of 1.50 are held."""
    await bank.open({"id": "ana", "opening_balance": "100.00"}, {"id": "bruno"})
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("60"), mxn("1.50"), lifetime=lifetime, reference="p1")


async def state(bank: Any) -> list[str]:
    """What ana has and holds, what bruno and fee income have."""
    return [
        await bank.booked("ana"),
        await bank.held("ana"),
        await bank.booked("bruno"),
        await bank.booked(FEE_INCOME),
    ]


async def test_a_final_capture_of_a_part_takes_the_whole_fee_and_frees_the_rest(own_bank):
    bank = own_bank
    await held(bank)
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO, mxn("20"))
    assert await state(bank) == ["78.50", "0.00", "20.00", "1.50"]
    with pytest.raises(HoldFinal, match="captured"):
        await bank.ledger.capture(bank.name, "p1:hold", "p1:more", BRUNO, mxn("1"))
    with pytest.raises(HoldFinal, match="captured"):
        await bank.ledger.release(bank.name, "p1:hold", "p1:release")
    report = await verify(bank.url)
    assert report.sound, report


async def test_captures_that_are_not_final_leave_the_rest_and_the_fee_held(own_bank):
    bank = own_bank
    await held(bank)
    await bank.ledger.capture(bank.name, "p1:hold", "p1:c1", BRUNO, mxn("20"), final=False)
    assert await state(bank) == ["80.00", "41.50", "20.00", "0.00"]
    await bank.ledger.capture(bank.name, "p1:hold", "p1:c2", STP_SETTLEMENT, mxn("10"), final=False)
    assert await state(bank) == ["70.00", "31.50", "20.00", "0.00"]
    assert (await verify(bank.url)).sound
    await bank.ledger.capture(bank.name, "p1:hold", "p1:c3", BRUNO)  # all that is left
    assert await state(bank) == ["38.50", "0.00", "50.00", "1.50"]
    assert (await verify(bank.url)).sound


async def test_a_capture_of_the_last_of_the_principal_is_final_whatever_is_said(bank):
    await held(bank)
    await bank.ledger.capture(bank.name, "p1:hold", "p1:c1", BRUNO, mxn("59.99"), final=False)
    await bank.ledger.capture(bank.name, "p1:hold", "p1:c2", BRUNO, mxn("0.01"), final=False)
    assert await state(bank) == ["38.50", "0.00", "60.00", "1.50"]


async def test_a_hold_released_after_a_part_was_captured_costs_no_fee(own_bank):
    bank = own_bank
    await held(bank)
    await bank.ledger.capture(bank.name, "p1:hold", "p1:c1", BRUNO, mxn("20"), final=False)
    await bank.ledger.release(bank.name, "p1:hold", "p1:release")
    assert await state(bank) == ["80.00", "0.00", "20.00", "0.00"]
    with pytest.raises(HoldFinal):
        await bank.ledger.capture(bank.name, "p1:hold", "p1:c2", BRUNO, mxn("1"))
    assert (await verify(bank.url)).sound


async def test_more_than_is_left_and_another_currency_are_refused_and_the_hold_stays(bank):
    await held(bank)
    await bank.ledger.capture(bank.name, "p1:hold", "p1:c1", BRUNO, mxn("20"), final=False)
    with pytest.raises(AmountNotAllowed):  # 40 of the principal are left; the fee is not to be had
        await bank.ledger.capture(bank.name, "p1:hold", "p1:c2", BRUNO, mxn("40.01"))
    with pytest.raises(CurrencyMismatch):
        await bank.ledger.capture(bank.name, "p1:hold", "p1:c2", BRUNO, Money.parse("1", "USD"))
    with pytest.raises(ValueError, match="names its amount"):
        await bank.ledger.capture(bank.name, "p1:hold", "p1:c2", BRUNO, final=False)
    assert await state(bank) == ["80.00", "41.50", "20.00", "0.00"]


async def test_a_repeated_partial_capture_is_answered_and_another_amount_under_its_name_refused(bank):
    await held(bank)
    first = await bank.ledger.capture(bank.name, "p1:hold", "p1:c1", BRUNO, mxn("20"), final=False)
    again = await bank.ledger.capture(bank.name, "p1:hold", "p1:c1", BRUNO, mxn("20"), final=False)
    assert (again.transaction, again.replayed) == (first.transaction, True)
    for amount, final in ((mxn("21"), False), (mxn("20"), True), (None, True)):
        with pytest.raises(DuplicateOperation):
            await bank.ledger.capture(bank.name, "p1:hold", "p1:c1", BRUNO, amount, final=final)
    assert await state(bank) == ["80.00", "41.50", "20.00", "0.00"]


async def test_parts_captured_at_once_never_exceed_the_hold(own_bank):
    bank = own_bank
    await held(bank)
    ended = await asyncio.gather(
        *(bank.ledger.capture(bank.name, "p1:hold", f"p1:c{n}", BRUNO, mxn("15"), final=False) for n in range(8)),
        return_exceptions=True,
    )
    assert sum(not isinstance(one, BaseException) for one in ended) == 4  # the fourth takes the last: it is final
    assert {type(one) for one in ended if isinstance(one, BaseException)} == {HoldFinal}
    assert await state(bank) == ["38.50", "0.00", "60.00", "1.50"]
    assert (await verify(bank.url)).sound


async def test_an_expired_hold_frees_only_what_was_not_captured(own_bank):
    bank = own_bank
    await held(bank, timedelta(seconds=0.5))
    await bank.ledger.capture(bank.name, "p1:hold", "p1:c1", BRUNO, mxn("20"), final=False)
    while not await bank.ledger.expire_holds():
        await asyncio.sleep(0.02)
    assert await state(bank) == ["80.00", "0.00", "20.00", "0.00"]
    assert (await verify(bank.url)).sound


async def test_a_renewed_hold_outlives_its_first_expiry(own_bank):  # H3
    bank = own_bank
    await held(bank, timedelta(seconds=0.5))
    first = await bank.ledger.renew_hold(bank.name, "p1:hold", "p1:renew", timedelta(hours=1))
    assert (await bank.ledger.renew_hold(bank.name, "p1:hold", "p1:renew", timedelta(hours=1))).replayed
    await asyncio.sleep(0.5)
    assert await bank.ledger.expire_holds() == 0
    ((_, hold),) = await bank.queries.open_holds(bank.name, ANA)
    assert hold.expires_at is not None
    assert hold.expires_at - first.booked_at > timedelta(minutes=59)
    assert (await verify(bank.url)).sound
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)


async def test_a_renewal_never_shortens_a_hold_and_gives_no_time_to_one_without(bank):
    await held(bank, timedelta(hours=2))
    ((_, before),) = await bank.queries.open_holds(bank.name, ANA)
    await bank.ledger.renew_hold(bank.name, "p1:hold", "p1:renew", timedelta(hours=1))
    ((_, after),) = await bank.queries.open_holds(bank.name, ANA)
    assert before.expires_at == after.expires_at > datetime.now(UTC) + timedelta(hours=1)
    await bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("1"))
    await bank.ledger.renew_hold(bank.name, "p2:hold", "p2:renew", timedelta(hours=1))
    assert (await bank.queries.open_holds(bank.name, ANA))[1][1].expires_at is None


async def test_what_has_ended_or_run_out_is_not_renewed(bank):
    await held(bank, timedelta(milliseconds=1))
    await asyncio.sleep(0.01)
    with pytest.raises(HoldExpired):
        await bank.ledger.renew_hold(bank.name, "p1:hold", "p1:renew", timedelta(hours=1))
    with pytest.raises(HoldExpired):
        await bank.ledger.capture(bank.name, "p1:hold", "p1:c1", BRUNO, mxn("1"), final=False)
    await bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("1"))
    await bank.ledger.capture(bank.name, "p2:hold", "p2:capture", BRUNO)
    with pytest.raises(HoldFinal, match="captured"):
        await bank.ledger.renew_hold(bank.name, "p2:hold", "p2:renew", timedelta(hours=1))
    with pytest.raises(HoldUnknown):
        await bank.ledger.renew_hold(bank.name, "p9:hold", "p9:renew", timedelta(hours=1))
    with pytest.raises(ValueError, match="lifetime"):
        await bank.ledger.renew_hold(bank.name, "p2:hold", "p2:renew", timedelta(0))
