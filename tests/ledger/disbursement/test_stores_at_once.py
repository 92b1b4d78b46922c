"""Many at once on one store: no gap, no second transfer, one of two decisions."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial

from hub.money import Money
from ledger.disbursement.model import (
    Collected,
    NothingToPay,
    Outcome,
    Recorded,
    TransferStatus,
    TransitionRefused,
    Trigger,
)
from ledger.disbursement.verify import verify
from ledger.verify import verify as verify_book


async def sound(lender) -> None:
    for check in (verify, verify_book):
        report = await check(lender.url)
        assert report.sound, report


async def test_sixteen_contributions_at_once_keep_the_chain_gapless(own_lender):  # L3
    lender = own_lender
    await lender.store("s1")
    await lender.store("s2")
    for number in range(16):
        await lender.credit(f"c{number}", "10", "1", store="s1" if number % 4 else "s2")
    # Each twice, as by a partner whose first try got no answer; cancelled by whoever comes after.
    made = await asyncio.gather(*(lender.contribute(f"c{number % 16}") for number in range(32)))
    assert len({update.id for update in made}) == 16
    await asyncio.gather(*(lender.cancel(f"c{number}") for number in range(8)))
    updates = await lender.balances.updates(lender.name, "s1")
    assert [update.sequence for update in updates] == list(range(18, 0, -1))
    assert (await lender.balance("s1"), await lender.balance("s2")) == ("54.00", "18.00")
    await sound(lender)


async def test_triggers_that_fire_at_once_make_one_transfer(own_lender):  # L31
    lender = own_lender
    await lender.store()
    await lender.delivered("c1", "100")
    fired = await asyncio.gather(*(lender.fire() for _ in range(8)))
    assert sorted(type(one).__name__ for one in fired) == ["Collected", *["NothingToPay"] * 7]
    await lender.delivered("c2", "50")
    same = str(uuid.uuid4())
    fired = await asyncio.gather(*(lender.fire(payment_id=same) for _ in range(8)))
    assert {one.transfer.id for one in fired} == {same}
    assert sum(not one.again for one in fired) == 1
    assert len(await lender.transfers.search(lender.name)) == 2
    await sound(lender)


async def test_a_cancellation_at_the_moment_of_a_trigger_is_in_the_transfer_or_waits_for_the_next(own_lender):  # L10
    lender = own_lender
    await lender.store()
    for number in range(6):
        credit = f"c{number}"
        await lender.delivered(credit, "100")
        await lender.delivered(f"d{number}", "130")
        fired, _ = await asyncio.gather(lender.fire(), lender.cancel(credit))
        assert isinstance(fired, Collected)
        assert fired.transfer.amount.minor == (130_00 if fired.updates == 3 else 230_00)
        await lender.told(fired.transfer, Outcome.SETTLED)
        found = await lender.balances.balance(lender.name, "s1")
        assert found.balance.minor == (0 if fired.updates == 3 else -100_00)
        if found.balance.minor:
            await lender.adjust("100", f"even-{number}")
            assert isinstance(await lender.fire(), NothingToPay)
            await lender.adjust("1", f"up-{number}")
            await lender.told(await lender.collected(), Outcome.SETTLED)
    await sound(lender)


async def test_of_a_confirmation_and_a_cancellation_at_once_one_is_done(own_lender):  # L23
    lender = own_lender
    await lender.store(manual=True)
    for number in range(6):
        await lender.delivered(f"c{number}", "10")
        transfer = await lender.collected(Trigger.MANUAL)
        done = await asyncio.gather(
            lender.transfers.confirm(lender.name, transfer.id, "ana"),
            lender.transfers.cancel(lender.name, transfer.id, "beto", "no"),
            return_exceptions=True,
        )
        assert [type(one) for one in done].count(TransitionRefused) == 1
        assert len(await lender.outbox()) == number + 1
        if await lender.status(transfer) != TransferStatus.CANCELLED:
            await lender.told(transfer, Outcome.SETTLED)
    await sound(lender)


async def test_callbacks_that_come_at_once_are_recorded_once_in_an_order_that_is_allowed(own_lender):  # L21, L41
    lender = own_lender
    await lender.store()
    for number in range(4):
        await lender.delivered(f"c{number}", "10")
        transfer = await lender.sent()
        told = await asyncio.gather(
            *(lender.told(transfer, outcome) for outcome in [Outcome.SETTLED, Outcome.RETURNED] * 3),
            return_exceptions=True,
        )
        assert all(one in (*Recorded,) or isinstance(one, TransitionRefused) for one in told)
        assert await lender.status(transfer) == TransferStatus.REJECTED
        assert await lender.balance() == f"{10 * (number + 1)}.00"
        events = await lender.transfers.events(lender.name, transfer.id)
        assert len(events) == 6
        assert all(event.outcome in ("handled", "repeated", "refused") for event in events)
    await sound(lender)


async def test_one_operation_on_two_stores_at_once_is_done_on_one_and_a_duplicate_on_the_other(own_lender):
    lender = own_lender
    for number in range(8):
        for store in ("a", "b"):
            await lender.store(f"{store}{number}")
            await lender.credit(f"{store}-{number}", "100", "10", store=f"{store}{number}")
        change = partial(
            lender.balances.change_amount,
            lender.name,
            amount=Money(50_00, "MXN"),
            commission=Money(5_00, "MXN"),
            actor="operator",
        )
        done = await asyncio.gather(
            *(change(credit=f"{store}-{number}", operation=f"edit-{number}") for store in ("a", "b")),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in done) == ["AmountChanged", "DuplicateOperation"]
    await sound(lender)
