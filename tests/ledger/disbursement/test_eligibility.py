"""Would this store be paid now, and if not why: the same answer for triggers, runs and people (L25 to L31, L55)."""

from __future__ import annotations

import pytest

from hub.money import Money
from ledger.disbursement.model import Collected, Frequency, NothingToPay, Trigger, VerdictCode


async def verdict(lender, store: str = "s1", *, by_hand: bool = False) -> VerdictCode:
    (found,) = await lender.eligibility.explain(lender.name, store=store, by_hand=by_hand)
    return VerdictCode(found.code)


async def not_paid(lender, why: VerdictCode, trigger: Trigger = Trigger.DAILY) -> None:
    """The trigger finds what the question foretold, and writes nothing."""
    statuses = await lender.statuses()
    made = await lender.fire(trigger)
    assert isinstance(made, NothingToPay), made
    assert made.verdict.code is why
    assert await lender.statuses() == statuses
    assert await lender.transfers.search(lender.name) == []


@pytest.mark.parametrize(("total", "paid"), [("99.99", False), ("100.00", False), ("100.01", True)])
async def test_a_transfer_is_made_only_of_more_than_the_minimum(lender, total, paid):  # L28
    await lender.store(minimum="100.00")
    await lender.delivered("c1", total)
    if not paid:
        assert await verdict(lender) is VerdictCode.BELOW_MINIMUM
        for trigger in (Trigger.DAILY, Trigger.MANUAL):
            await not_paid(lender, VerdictCode.BELOW_MINIMUM, trigger)
        return
    assert await verdict(lender) is VerdictCode.PAY
    assert (await lender.collected()).amount.decimal() == total


async def test_a_total_of_nothing_is_not_more_than_a_minimum_of_nothing(lender):  # L28
    await lender.store()
    await lender.delivered("c1", "10")
    await lender.cancel("c1")
    await not_paid(lender, VerdictCode.BELOW_MINIMUM)


async def test_a_negative_total_is_not_paid_until_later_updates_bring_it_up(lender):  # L29
    await lender.store()
    await lender.delivered("c1", "100")
    await lender.adjust("-130", "fine")
    await not_paid(lender, VerdictCode.NEGATIVE_TOTAL)
    await lender.delivered("c2", "50")
    assert (await lender.collected()).amount == Money(20_00, "MXN")


async def test_no_trigger_fires_while_automation_is_off_and_updates_accrue(lender):  # L30
    await lender.merchant("m2", automation=False)
    await lender.store(merchant="m2")
    await lender.delivered("c1", "10")
    await not_paid(lender, VerdictCode.AUTOMATION_OFF)
    assert await verdict(lender, by_hand=True) is VerdictCode.PAY
    assert (await lender.collected(Trigger.MANUAL)).amount == Money(10_00, "MXN")  # a person is no trigger


@pytest.mark.parametrize(
    ("store", "merchant", "why"),
    [
        ({}, {"validated": False}, VerdictCode.MERCHANT_NOT_VALIDATED),
        ({"validated": False}, {}, VerdictCode.STORE_NOT_VALIDATED),
        ({"account": False}, {}, VerdictCode.NO_BANK_ACCOUNT),
        ({"authenticated": False}, {}, VerdictCode.ACCOUNT_NOT_AUTHENTICATED),
    ],
)
async def test_only_a_validated_chain_and_an_authenticated_account_are_paid(lender, store, merchant, why):  # L52, L55
    await lender.merchant("m2", **merchant)
    await lender.store(merchant="m2", **store)
    await lender.delivered("c1", "10")
    assert await verdict(lender) is why
    assert await verdict(lender, by_hand=True) is why
    await not_paid(lender, why)
    await not_paid(lender, why, Trigger.MANUAL)


async def test_the_newest_account_counts_and_must_be_authenticated_itself(lender):  # L55
    await lender.store()
    await lender.delivered("c1", "10")
    await lender.account("s1", "002010077777777771", authenticated=False)
    await not_paid(lender, VerdictCode.ACCOUNT_NOT_AUTHENTICATED)
    await lender.account("s1", "002010077777777771")
    assert (await lender.collected()).clabe == "002010077777777771"


async def test_a_store_with_nothing_pending_is_not_paid(lender):  # L27
    await lender.store()
    await not_paid(lender, VerdictCode.NOTHING_PENDING)
    await lender.delivered("c1", "10")
    await lender.collected()
    assert await verdict(lender) is VerdictCode.NOTHING_PENDING


@pytest.mark.parametrize("frequency", list(Frequency))
async def test_a_store_is_paid_by_its_own_trigger_and_by_people_only(lender, frequency):  # L25
    await lender.store(frequency=frequency)
    await lender.delivered("c1", "10")
    for trigger in Trigger:
        if trigger not in (frequency.value, Trigger.MANUAL):
            await not_paid(lender, VerdictCode.OTHER_FREQUENCY, trigger)
    assert isinstance(await lender.fire(Trigger(frequency.value)), Collected)
    await lender.delivered("c2", "10")
    assert isinstance(await lender.fire(Trigger.MANUAL), Collected)


async def test_verdicts_tell_their_numbers_and_come_in_pages(lender):
    await lender.merchant("m2")
    for number in range(4):
        await lender.store(f"s{number}", merchant="m2" if number == 3 else "m1", minimum="5")
        await lender.delivered(f"c{number}", "4" if number == 1 else "10", store=f"s{number}")
    await lender.store("weekly", frequency="WEEKLY")
    explain, name = lender.eligibility.explain, lender.name
    first, second = await explain(name, limit=2)
    assert (first.store, first.code, first.pays, first.updates) == ("s0", VerdictCode.PAY, True, 1)
    assert (second.code, second.total, second.minimum) == (
        VerdictCode.BELOW_MINIMUM,
        Money(4_00, "MXN"),
        Money(5_00, "MXN"),
    )
    assert [one.store for one in await explain(name, after="s1")] == ["s2", "s3", "weekly"]
    assert [one.store for one in await explain(name, frequency=Frequency.WEEKLY)] == ["weekly"]
    assert [one.store for one in await explain(name, merchant="m2")] == ["s3"]
    assert await explain("another-tenant") == []
    due = lender.eligibility.due
    assert await due(name, Frequency.DAILY, limit=2) == ["s0", "s2"]
    assert await due(name, Frequency.DAILY, after="s2") == ["s3"]
    assert await due(name, Frequency.MONTHLY) == []
