"""Money is conserved: what left STP's account is what the book says left, whatever goes wrong on the way.

A thousand payments, with deposits and late returns at once, while by chance requests and answers get lost, come late or
mangled, callbacks vanish or come twenty times, and consults fail. At the end the pretend STP's book, the ledger and the
outcomes that the processes were told are one, and reconciliation finds nothing. Three careless connectors show that the
same check would notice: one sends again blindly, one releases money on a time-out, one credits twice.

`PAYHUB_TEST_STP_PAYMENTS` and `PAYHUB_TEST_STP_SEED` make another run of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from connectors.ams.model import AccountSystemConflict
from connectors.stp.accounts import AccountKind
from connectors.stp.calendar import MEXICO_CITY
from connectors.stp.consults import ConsultBudget, Consults, Patience
from connectors.stp.deposit_store import DepositStore, Receiver
from connectors.stp.deposits import DepositWorker
from connectors.stp.model import (
    ClaimDeposit,
    ConfirmDeposit,
    DepositArrived,
    OrderReturnedLate,
    SendOrder,
)
from connectors.stp.poller import Pace, Poller
from connectors.stp.reconciliation import Reconciliation
from connectors.stp.reconciliation_store import ReconciliationStore
from connectors.stp.reconciliation_wiring import accounts
from hub.money import Money
from hub.repetition import repeat
from hub.statements import open_statements
from hub.testing import Completed, Failed, Thrown, run
from hub.transfer import Outcome, PaymentId
from ledger.verify import verify

PAYMENTS = int(os.environ.get("PAYHUB_TEST_STP_PAYMENTS", "1000"))
SEED = int(os.environ.get("PAYHUB_TEST_STP_SEED", "20261118"))
AT_ONCE = 40
FAULTS = {
    "seed": SEED,
    "orders": {
        "lose-answer": 0.05, "lose-request": 0.04, "hide-a-while": 0.03, "error-500": 0.03, "error-502": 0.03,
        "error-403": 0.03, "sluggish": 0.01, "truncated": 0.02, "garbage": 0.02, "no-response": 0.03,
        "no-response-not-taken": 0.03, "taken-yet-duplicate": 0.03, "undocumented": 0.02, "launder": 0.02,
        "refuse": 0.03, "consults-only": 0.02, "twice": 0.03, "repeat": 0.02, "reorder": 0.02, "unknown-status": 0.02,
        "unknown-key": 0.01, "unseen": 0.04, "unseen-cancel": 0.02, "unseen-return": 0.02, "cancel": 0.04,
        "return": 0.04, "return-later": 0.04, "callback-first": 0.03,
    },
    "consults": {"500": 0.03, "lost": 0.03, "garbage": 0.02, "limit": 0.02},
    "callbacks": {"lost": 0.08, "unheard": 0.08, "late": 0.03, "twice": 0.08},
}  # fmt: skip
GONE = {"LQ"}
"""States at STP in which an order's money is away."""


@pytest.fixture
def clock(clock):
    clock.set(datetime(2003, 3, 5, 10, 0, tzinfo=MEXICO_CITY))
    return clock


@dataclass
class Processes:
    """What the drawn processes do with payments, deposits and late returns, on the real handlers and the real book."""

    rail: Any
    bank: Any
    deposits: DepositWorker
    outcomes: dict[str, str | None] = field(default_factory=dict)
    credited: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    # --- payer-transfer and rail-stp

    async def pay(self, job: SendOrder) -> None:
        await self.bank.hold(job)
        outcome = self.outcomes[job.payment_id] = await self._over_stp(job)
        if outcome == Outcome.SETTLED:
            await self.bank.accounts.capture(self.bank.tenant, job.payment_id)
        elif outcome is not None:
            await self.bank.accounts.release(self.bank.tenant, job.payment_id)

    async def _over_stp(self, job: SendOrder) -> str | None:
        for attempt in range(30):
            ending = await run(self.rail.worker, job)
            if not isinstance(ending, Failed):
                break
            assert not ending.incident, ending.message
            await asyncio.sleep(0.05 * attempt)
        if isinstance(ending, Thrown):
            return ending.variables["outcome"]
        assert isinstance(ending, Completed)
        for round_ in range(30):
            for _ in range(10):
                await asyncio.sleep(0.1)
                if told := self.rail.engine.told(job.payment_id):
                    return str(told[0].outcome)
            asked = await run(self.rail.worker, self.rail.ask(job, round_))
            assert isinstance(asked, Completed), asked
            if asked.variables["outcome"] is not None:
                return str(asked.variables["outcome"])
        return None

    # --- payee-transfer and late-return

    async def listen(self) -> None:
        """Start a process for each message that starts one."""
        while True:
            for place, message in enumerate(list(self.rail.engine.messages)):
                if place in self._seen:
                    continue
                self._seen.add(place)
                if isinstance(message, DepositArrived) and message.tenant_id == self.bank.tenant:
                    self._start(self._payee_transfer(message))
                elif isinstance(message, OrderReturnedLate) and message.tenant_id == self.bank.tenant:
                    self._start(self._late_return(message))
            await asyncio.sleep(0.01)

    def _start(self, process) -> None:
        task = asyncio.ensure_future(process)
        self._running.add(task)

    async def _payee_transfer(self, message: DepositArrived) -> None:
        claim = await run(self.deposits, ClaimDeposit(payment_id=message.payment_id, tenant_id=message.tenant_id))
        assert isinstance(claim, Completed)
        if claim.variables["duplicate"]:
            return
        amount = Money(message.amount, "MXN")
        await self.bank.accounts.credit(self.bank.tenant, message.payment_id, "ana", amount)
        await run(self.deposits, ConfirmDeposit(payment_id=message.payment_id, tenant_id=message.tenant_id))
        self.credited.append(message.payment_id)

    async def _late_return(self, message: OrderReturnedLate) -> None:
        for _ in range(300):
            with suppress(AccountSystemConflict):  # not captured yet
                await self.bank.accounts.reverse(self.bank.tenant, message.payment_id, reason="returned")
                self.returned.append(message.payment_id)
                return
            await asyncio.sleep(0.1)
        pytest.fail(f"{message.payment_id} came back and was never captured")

    async def quiet(self) -> None:
        """Every process that began has ended well."""
        await asyncio.gather(*self._running)


@pytest.fixture
async def world(rail, bank):
    """The rail, the bank and the processes that use them."""
    store = DepositStore(rail.orders._database)
    return Processes(rail, bank, DepositWorker(store))


@asynccontextmanager
async def beside(world):
    """Sweeps, marks, poller, and the start of processes, as in the hub."""
    rail = world.rail
    poller = Poller(
        database=rail.orders._database, orders=rail.orders, dispatch=rail.dispatch,
        budget=ConsultBudget(rail.orders._database, 1_000_000), pace=Pace(timedelta(seconds=3)), clock=rail.clock,
    )  # fmt: skip
    loops = [
        world.listen(), rail.callbacks.mark_for_ever(), repeat("callbacks", rail.callbacks.sweep, 0.5),
        repeat("deposits", rail.deposits.sweep, 0.5), repeat("open orders", poller.poll, 2),
    ]  # fmt: skip
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unconserved(world, jobs) -> list[str]:
    """Every way in which STP's book, the ledger and the outcomes differ."""
    rail, bank = world.rail, world.bank
    company = rail.simulator.company
    deposits = [one for one in rail.simulator.book.deposits() if one.order.estado == "CCO"]
    found = []
    net = await bank.settlements.net(bank.tenant, [job.payment_id for job in jobs])
    for job in jobs:
        at_stp = sum(order.centavos for order in rail.at_stp(job) if order.estado in GONE)
        booked, outcome = net.get(job.payment_id, 0), world.outcomes.get(job.payment_id)
        if at_stp != booked:
            found.append(f"{job.payment_id}: {at_stp} left STP, {booked} left the book, {outcome}")
        final = Outcome.RETURNED if job.payment_id in world.returned else outcome
        if (final == Outcome.SETTLED) != (at_stp == job.amount):
            found.append(f"{job.payment_id}: {final}, and {at_stp} left STP")
    moved = await bank.settlements.moved(
        bank.tenant, datetime.now(MEXICO_CITY) - timedelta(hours=1), datetime.now(MEXICO_CITY) + timedelta(hours=1)
    )
    left, left_stp = sum(moved.values()), company.opening_balance - company.balance
    if left != left_stp:
        found.append(f"{left} left the book, {left_stp} left STP; {len(deposits)} deposits came in")
    async with open_statements(bank.url, 1) as statements:
        query = "SELECT b.hold_out FROM ledger.balance b JOIN ledger.account a ON a.id = b.account_id"
        where = " JOIN ledger.book k ON k.id = a.book_id WHERE k.code = %(tenant)s AND b.hold_out <> 0"
        if held := await statements.rows(query + where, {"tenant": bank.tenant}):
            found.append(f"still held: {held}")
    report = await verify(bank.url)
    return found if report.sound else [*found, str(report)]


def receiver() -> str:
    """First digits of CLABEs that no other test's deposits go to."""
    return f"646180{uuid.uuid4().int % 10**8:08d}"


async def deposit(rail, account: str, **more) -> int:
    given = {"monto": "10.00", "cuentaBeneficiario": account, **more}
    answer = await rail.http.post(f"{rail.simulator_url}/control/deposits", json=given)
    assert answer.status_code == 202, answer.text
    return int(answer.json()["id"])


@pytest.mark.timeout(900)
async def test_nothing_is_lost_or_made_whatever_goes_wrong(world, eventually):  # H1 H2 H3 L36 L37 L38 L41
    rail, bank = world.rail, world.bank
    chance, prefix = random.Random(SEED), receiver()
    known = Receiver(AccountKind.CLABE, prefix, bank.tenant)
    assert await DepositStore(rail.orders._database).put_receivers([known]) == []
    assert (await rail.http.post(f"{rail.simulator_url}/control/faults", json=FAULTS)).status_code == 200
    jobs = [
        rail.job(amount=1_000_000 + 100 * place, tenant_id=bank.tenant, payment_id=PaymentId(str(uuid.uuid4())))
        for place in range(PAYMENTS)
    ]
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(job: SendOrder) -> None:
        async with turns:
            if chance.random() < 0.15:
                account = f"{prefix}{chance.randrange(10**4):04d}" if chance.random() < 0.8 else "646180157999999999"
                await deposit(rail, account, times=chance.choice([1, 1, 2, 3]))
            await world.pay(job)

    async with beside(world):
        await asyncio.gather(*(one(job) for job in jobs))
        assert None not in world.outcomes.values()
        await eventually(lambda: not rail.simulator.book.open_steps(), 60)
        await eventually(lambda: not rail.simulator.book.open_deposits(), 60)
        late = [job for job in jobs if rail.at_stp(job)[:1] and rail.at_stp(job)[0].estado == "LQ"][:: PAYMENTS // 10]
        rail.simulator.faults.orders.clear()
        for number, job in enumerate(late):  # months later, and now and then shown once more as incoming
            body = {"estado": "D", "causa": 1, "as_deposit": number % 2 == 0}
            url = f"{rail.simulator_url}/control/orders/{rail.at_stp(job)[0].id}/state"
            assert (await rail.http.post(url, json=body)).status_code == 200
        await eventually(lambda: {job.payment_id for job in late} <= set(world.returned), 60)
        await eventually(lambda: not rail.simulator.book.open_steps(), 60)
        await eventually(lambda: not rail.simulator.book.open_deposits(), 60)
        await world.quiet()
        assert await unconserved(world, jobs) == []
        assert all(len(rail.at_stp(job)) <= 1 for job in jobs)
        rail.simulator.faults.consults.clear()
        assert [str(one) for one in await breaks(world)] == []
    came = {deposit.order.estado for deposit in rail.simulator.book.deposits()}
    assert {"CCO", "D", "LQ"} <= came, "credited, sent back, and returns that were shown again"
    assert len(set(world.outcomes.values())) == 4


async def breaks(world):
    """What reconciliation finds, the book included."""
    rail = world.rail
    budget = ConsultBudget(rail.orders._database, 1_000_000)
    comparing = Reconciliation(
        store=ReconciliationStore(rail.orders._database),
        orders=rail.orders,
        consults=Consults(rail.stp, budget, Patience(timedelta(0), timedelta(0))),
        accounts=accounts(rail.worker._profiles),
        book=world.bank.settlements,
        booking_grace=timedelta(0),
        clock=rail.clock,
    )
    [done] = await comparing.reconcile(rail.clock().astimezone(MEXICO_CITY).date())
    return done.open_breaks


# --- Careless connectors, which the same check catches --------------------------------------------------------------


class BlindResend(Processes):
    """Takes no answer for no order, and sends the same bytes again; the operation date has changed meanwhile."""

    async def _over_stp(self, job: SendOrder) -> str | None:
        new = await self.rail.worker._new_order(job, self.rail.worker._profiles.of(job.tenant_id))
        answer = await self.rail.stp.register(new.body)
        if answer.outcome == "UNKNOWN":
            self.rail.advance(timedelta(hours=9))
            answer = await self.rail.stp.register(new.body)
        return "SETTLED" if answer.outcome == "ACCEPTED" else "REJECTED"


class ReleasesOnTimeout(Processes):
    """Takes no answer for a no, and gives the money back to the payer."""

    async def _over_stp(self, job: SendOrder) -> str | None:
        new = await self.rail.worker._new_order(job, self.rail.worker._profiles.of(job.tenant_id))
        return "SETTLED" if (await self.rail.stp.register(new.body)).outcome == "ACCEPTED" else "REJECTED"


@pytest.mark.parametrize("careless", [BlindResend, ReleasesOnTimeout])
async def test_a_careless_connector_is_caught(rail, bank, careless, eventually):
    world, job = (
        careless(rail, bank, DepositWorker(DepositStore(rail.orders._database))),
        rail.job(tenant_id=bank.tenant),
    )
    await rail.rule(job, {"answer": "lost", "times": 1})
    await world.pay(job)
    await eventually(lambda: all(order.estado == "LQ" for order in rail.at_stp(job)))
    assert len(await unconserved(world, [job])) > 0
    honest, other = Processes(rail, bank, world.deposits), rail.job(tenant_id=bank.tenant)
    await rail.rule(other, {"answer": "lost", "times": 1})
    await honest.pay(other)
    world.outcomes |= honest.outcomes
    found = await unconserved(world, [job, other])
    assert not any(other.payment_id in one for one in found), "the careful connector adds nothing to it"


async def test_a_connector_that_credits_each_post_is_caught(world, monkeypatch, eventually):
    rail, bank = world.rail, world.bank

    async def credited_each_time(body):
        await bank.accounts.credit(bank.tenant, PaymentId(str(uuid.uuid4())), "ana", Money(1000, "MXN"))
        return 200, '{"mensaje":"confirmar"}'

    monkeypatch.setattr(rail.simulator.company.deposits, "post", credited_each_time)
    await deposit(rail, "646180157000000017", times=2)
    await eventually(lambda: len(rail.simulator.book.deposit_posts()) == 2)
    assert len(await unconserved(world, [])) == 1


async def test_a_deposit_that_is_posted_three_times_is_credited_once(world, eventually):  # H2 L41
    rail, bank = world.rail, world.bank
    prefix = receiver()
    await DepositStore(rail.orders._database).put_receivers([Receiver(AccountKind.CLABE, prefix, bank.tenant)])
    async with beside(world):
        await deposit(rail, f"{prefix}0017", times=3)
        await eventually(lambda: len(rail.simulator.book.deposit_posts()) == 3)
        await eventually(lambda: len(world.credited) == 1)
        await world.quiet()
    assert await unconserved(world, []) == []
    booked = await bank.accounts.balance(bank.tenant, "ana", "MXN")
    assert booked.booked == Money.parse("100000009.00", "MXN")
