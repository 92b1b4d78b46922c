"""Many at once: no deadlock, nothing lost, one final step."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hub.money import Money
from ledger.model import (
    FEE_INCOME,
    STP_SETTLEMENT,
    AccountRef,
    DuplicateOperation,
    HoldFinal,
    InsufficientFunds,
    LedgerRefused,
    Leg,
    Receipt,
)
from ledger.verify import verify


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


async def test_crossed_transfers_of_32_at_once_end_without_a_deadlock_and_conserve_money(own_bank):
    bank, people = own_bank, [AccountRef.customer(f"c{number}") for number in range(6)]
    await bank.open(*({"id": ref.owner, "opening_balance": "1000.00"} for ref in people))

    async def someone(number: int) -> int:
        chance, done = random.Random(number), 0
        for step in range(8):
            payer, payee = chance.sample(people, 2)
            name = f"{number}-{step}"
            try:
                match chance.randrange(3):
                    case 0:
                        legs = [Leg(payer, payee, mxn("3")), Leg(payee, FEE_INCOME, mxn("1"))]
                        await bank.ledger.post(bank.name, name, legs)
                    case 1:
                        await bank.ledger.hold(bank.name, f"{name}:hold", payer, mxn("5"), mxn("0.50"))
                        await bank.ledger.capture(bank.name, f"{name}:hold", f"{name}:capture", payee)
                    case _:
                        await bank.ledger.hold(bank.name, f"{name}:hold", payer, mxn("7"), mxn("0.70"))
                        await bank.ledger.capture(bank.name, f"{name}:hold", f"{name}:capture", STP_SETTLEMENT)
                done += 1
            except InsufficientFunds:
                pass
        return done

    done = await asyncio.gather(*(someone(number) for number in range(32)))
    assert sum(done) == 32 * 8
    report = await verify(bank.url)
    assert report.sound, report
    inside = [Money.parse(await bank.booked(ref.owner), "MXN").minor for ref in people]
    fees = Money.parse(await bank.booked(FEE_INCOME), "MXN").minor
    sent = Money.parse((await bank.booked(STP_SETTLEMENT)).lstrip("-"), "MXN").minor
    assert sum(inside) + fees + sent == 6 * 1000_00


async def race(*attempts: Any) -> tuple[list[Receipt], list[BaseException]]:
    ended = await asyncio.gather(*attempts, return_exceptions=True)
    return [one for one in ended if isinstance(one, Receipt)], [one for one in ended if isinstance(one, BaseException)]


async def test_many_final_steps_at_once_give_exactly_one(bank):
    await bank.open({"id": "ana", "opening_balance": "100"}, {"id": "bruno"})
    for turn in range(5):
        hold = f"{turn}:hold"
        await bank.ledger.hold(bank.name, hold, ANA, mxn("10"), mxn("1"))
        steps = [
            bank.ledger.capture(bank.name, hold, f"{turn}:capture-{n}", BRUNO if n % 2 else STP_SETTLEMENT)
            for n in range(8)
        ] + [bank.ledger.release(bank.name, hold, f"{turn}:release-{n}") for n in range(8)]
        random.Random(turn).shuffle(steps)
        done, refused = await race(*steps)
        assert len(done) == 1
        assert {type(refusal) for refusal in refused} == {HoldFinal}
        assert await bank.held("ana") == "0.00"


async def test_the_same_operation_sent_many_times_at_once_happens_once(bank):
    await bank.open({"id": "ana", "opening_balance": "10"}, {"id": "bruno"})
    attempts = (
        lambda: bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("10")),  # a second one would find no funds
        lambda: bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO),
        lambda: bank.ledger.post(bank.name, "t1", [Leg(BRUNO, ANA, mxn("10"))]),
        lambda: bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("10")),
        lambda: bank.ledger.release(bank.name, "p2:hold", "p2:release"),
    )
    for attempt in attempts:
        done, refused = await race(*(attempt() for _ in range(16)))
        assert refused == []
        assert len({receipt.transaction for receipt in done}) == 1
        assert sum(not receipt.replayed for receipt in done) == 1


async def test_one_operation_id_used_for_different_things_at_once_is_given_to_one(bank):
    people = [AccountRef.customer(f"c{number}") for number in range(8)]
    await bank.open(*({"id": ref.owner, "opening_balance": "10"} for ref in people))
    done, refused = await race(
        *(bank.ledger.hold(bank.name, "same", ref, mxn("1")) for ref in people),
        *(bank.ledger.post(bank.name, "same", [Leg(ref, FEE_INCOME, mxn("1"))]) for ref in people),
    )
    assert len(done) == 1
    assert {type(refusal) for refusal in refused} == {DuplicateOperation}
    moved = [await bank.booked(ref.owner) != "10.00" or await bank.held(ref.owner) != "0.00" for ref in people]
    assert sum(moved) == 1


async def test_funds_for_three_are_given_to_three_of_sixteen(bank):
    await bank.open({"id": "ana", "opening_balance": "30"})
    done, refused = await race(*(bank.ledger.hold(bank.name, f"{n}:hold", ANA, mxn("10")) for n in range(16)))
    assert len(done) == 3
    assert {type(refusal) for refusal in refused} == {InsufficientFunds}
    assert await bank.held("ana") == "30.00"


async def test_an_account_of_the_book_first_used_by_many_at_once_is_opened_once(own_bank):
    # L61: two first ones at once make one account.
    bank = own_bank
    await bank.open({"id": "ana", "opening_balance": "100"})
    suspense = AccountRef.parse("suspense")
    await _forget(bank, "suspense")
    done, refused = await race(
        *(bank.ledger.post(bank.name, f"t{n}", [Leg(ANA, suspense, mxn("1"))]) for n in range(16))
    )
    assert (len(done), refused) == (16, [])
    assert await bank.booked(suspense) == "16.00"
    assert (await verify(bank.url)).sound


async def _forget(bank: Any, kind: str) -> None:
    """As if a seed had never opened this account."""
    async with bank.engine.begin() as connection:
        for table, column in (("balance", "account_id"), ("account", "id")):
            await connection.exec_driver_sql(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER")
            await connection.exec_driver_sql(
                f"DELETE FROM ledger.{table} WHERE {column} IN (SELECT id FROM ledger.account WHERE kind = '{kind}')"
            )
            await connection.exec_driver_sql(f"ALTER TABLE ledger.{table} ENABLE TRIGGER USER")


async def test_freezing_while_holds_are_placed_lets_no_hold_through_afterwards(bank):
    await bank.open({"id": "ana", "opening_balance": "100"})
    order: list[str] = []

    async def hold(number: int) -> None:
        try:
            await bank.ledger.hold(bank.name, f"{number}:hold", ANA, mxn("1"))
            order.append("held")
        except LedgerRefused:
            order.append("refused")

    await asyncio.gather(
        *(hold(number) for number in range(12)),
        bank.ledger.set_policy(bank.name, ANA, "MXN", "freeze-debits", reason="court order"),
    )
    await hold(99)
    assert order[-1] == "refused"
    assert await bank.held("ana") == mxn(str(order.count("held"))).decimal()
