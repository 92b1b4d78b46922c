"""Any sequence of contributions, cancellations, changes, triggers, decisions and callbacks, repeated, reordered, late
or cut off by a crash, leaves the stores as plain Python would have them: same answers, same chains, and sound."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hub.money import Money
from ledger.disbursement import events, updates
from ledger.disbursement.model import Collected, DisbursementRefused, Outcome, Trigger
from ledger.disbursement.verify import verify
from ledger.verify import verify as verify_book

CREDITS = {f"c{number}": "free" if number < 3 else "careful" for number in range(5)}
STORES = ("free", "careful")
MINIMUM = {"free": 0, "careful": 500}
MANUAL = {"free": False, "careful": True}

CREDIT = st.sampled_from(sorted(CREDITS))
STORE = st.sampled_from(STORES)
AGAIN = st.integers(0, 9)
"""Which of the last operations or payments is used once more; from 3 on it is a new one."""
WHICH = st.integers(0, 30)
"""A transfer of those there are."""
AMOUNT = st.integers(1, 2_000)
STEP = st.sampled_from(("sent", "SETTLED", "SETTLED", "RETURNED", "CANCELLED", "REJECTED"))
TRIGGER = st.sampled_from((*[Trigger.DAILY] * 6, Trigger.MANUAL, Trigger.HOURLY))


@dataclass
class Update:
    type: str
    effect: int
    status: str = "PENDING"
    overwritten: bool = False
    credit: str | None = None


@dataclass
class Transfer:
    store: str
    items: list[Update]
    status: str = "WAITING_FOR_CONFIRMATION"
    confirmed: bool = False
    by_hand: bool = False
    disbursement: Update | None = None

    @property
    def amount(self) -> int:
        return sum(item.effect for item in self.items)

    @property
    def must_wait(self) -> bool:
        return self.status == "WAITING_FOR_CONFIRMATION" and MANUAL[self.store] and not self.confirmed


@dataclass
class Refused(Exception):
    code: str


@dataclass
class Shops:
    """What the stores should do, in the plainest words. Each method answers a word or raises `Refused`."""

    chains: dict[str, list[Update]] = field(default_factory=lambda: {store: [] for store in STORES})
    amounts: dict[str, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys(CREDITS, (1_000, 100)))
    operations: dict[str, Any] = field(default_factory=dict)
    transfers: dict[str, Transfer] = field(default_factory=dict)
    automation: bool = True

    def seen(self, operation: str, *what: Any) -> bool:
        if operation in self.operations and self.operations[operation] != what:
            raise Refused("duplicate-operation")
        return operation in self.operations

    def of(self, credit: str) -> list[Update]:
        return [update for update in self.chains[CREDITS[credit]] if update.credit == credit]

    def live(self, credit: str) -> Update:
        there = [one for one in self.of(credit) if one.type == "CONTRIBUTION" and not one.overwritten]
        if not self.of(credit):
            raise Refused("not-contributed")
        if not there:
            raise Refused("already-overwritten")
        return there[0]

    def add_contribution(self, credit: str) -> None:
        amount, commission = self.amounts[credit]
        self.chains[CREDITS[credit]].append(Update("CONTRIBUTION", amount - commission, credit=credit))

    def add_cancellation(self, credit: str, live: Update) -> None:
        live.overwritten = True
        self.chains[CREDITS[credit]].append(Update("CREDIT_CANCELLATION", -live.effect, credit=credit))

    def contribute(self, credit: str, operation: str) -> str:
        if not self.seen(operation, "contribute", credit):
            if any(one.type == "CONTRIBUTION" and not one.overwritten for one in self.of(credit)):
                raise Refused("already-contributed")
            if self.of(credit):
                raise Refused("already-overwritten")
            self.add_contribution(credit)
            self.operations[operation] = ("contribute", credit)
        return "done"

    def cancel_credit(self, credit: str, operation: str) -> str:
        if not self.seen(operation, "cancel", credit):
            self.add_cancellation(credit, self.live(credit))
            self.operations[operation] = ("cancel", credit)
        return "done"

    def change(self, credit: str, amount: int, commission: int, operation: str) -> str:
        what = ("change", credit, amount, commission)
        if not self.seen(operation, *what):
            live = self.live(credit) if self.of(credit) else None
            self.amounts[credit] = (amount, commission)
            if live is not None:
                self.add_cancellation(credit, live)
                self.add_contribution(credit)
            self.operations[operation] = what
        return "done"

    def adjust(self, store: str, effect: int, operation: str) -> str:
        if not self.seen(operation, "adjust", store, effect):
            self.chains[store].append(Update("BALANCE_ADJUSTMENT", effect))
            self.operations[operation] = ("adjust", store, effect)
        return "done"

    def collect(self, store: str, payment: str, trigger: Trigger) -> str:
        if payment in self.transfers:
            if self.transfers[payment].store != store:
                raise Refused("duplicate-operation")
            return "again"
        pending = [one for one in self.chains[store] if one.status == "PENDING"]
        total = sum(one.effect for one in pending)
        for speaks_against, why in (
            (trigger is Trigger.HOURLY, "OTHER_FREQUENCY"),
            (not self.automation and trigger is not Trigger.MANUAL, "AUTOMATION_OFF"),
            (not pending, "NOTHING_PENDING"),
            (total < 0, "NEGATIVE_TOTAL"),
            (total <= MINIMUM[store], "BELOW_MINIMUM"),
        ):
            if speaks_against:
                return why
        for one in pending:
            one.status = "IN_TRANSIT"
        self.transfers[payment] = Transfer(store, pending)
        return "made"

    def sent(self, payment: str) -> str:
        transfer = self.transfers[payment]
        if transfer.must_wait or transfer.status == "CANCELLED":
            raise Refused("transition-refused")
        if transfer.status != "WAITING_FOR_CONFIRMATION":
            return "REPEATED"
        transfer.status = "IN_TRANSIT"
        return "CHANGED"

    def confirm(self, payment: str) -> str:
        transfer = self.transfers[payment]
        if not transfer.confirmed:
            if not transfer.must_wait:
                raise Refused("transition-refused")
            transfer.confirmed = True
        return "done"

    def cancel(self, payment: str) -> str:
        transfer = self.transfers[payment]
        if not (transfer.status == "CANCELLED" and transfer.by_hand):
            if not transfer.must_wait:
                raise Refused("transition-refused")
            transfer.by_hand = True
            self.end(transfer, "CANCELLED")
        return "done"

    def end(self, transfer: Transfer, status: str) -> None:
        transfer.status = status
        for one in transfer.items:
            one.status = "PENDING"

    def told(self, payment: str, outcome: Outcome) -> str:
        transfer = self.transfers[payment]
        chain = self.chains[transfer.store]
        target = {"SETTLED": "APPLIED", "RETURNED": "REJECTED"}.get(outcome, "CANCELLED")
        if transfer.status == target:
            return "REPEATED"
        ends = {"APPLIED": {"RETURNED"}, "CANCELLED": set(), "REJECTED": set()}.get(transfer.status, set(Outcome))
        if outcome not in ends or (transfer.must_wait and outcome in ("SETTLED", "RETURNED")):
            raise Refused("transition-refused")
        if target == "APPLIED":
            transfer.status = target
            for one in transfer.items:
                one.status = "APPLIED"
            transfer.disbursement = Update("DISBURSEMENT", -transfer.amount, "APPLIED")
            chain.append(transfer.disbursement)
            return "CHANGED"
        if transfer.disbursement is not None:
            transfer.disbursement.overwritten = True
            chain.append(Update("DISBURSEMENT_OVERRIDE", transfer.amount, "APPLIED"))
        self.end(transfer, target)
        return "CHANGED"

    def disbursed(self) -> set[str]:
        return {
            credit
            for credit in CREDITS
            if any(one.type == "CONTRIBUTION" and one.status == "APPLIED" for one in self.of(credit))
        }

    def check(self) -> None:
        """What holds of any store, whatever happened."""
        for chain in self.chains.values():
            assert sum(one.effect for one in chain if one.status == "APPLIED") == 0
        live = [
            id(one) for t in self.transfers.values() if t.status not in ("CANCELLED", "REJECTED") for one in t.items
        ]
        assert len(live) == len(set(live))


class Died(BaseException):
    """The process ends at this point."""


def there_are_transfers(machine: StoresMachine) -> bool:
    return bool(machine.shops.transfers)


class StoresMachine(RuleBasedStateMachine):
    url: str
    open_lender: Any
    patch: pytest.MonkeyPatch

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.shops = Shops()
        self.crash: str | None = None
        self.operations: list[str] = []
        self.payments: list[str] = []
        self.opening = self.open_lender(self.url)

        def point(name: str) -> None:
            if self.crash is not None and name.endswith(self.crash):
                raise Died

        for module in (updates, events):
            self.patch.setattr(module, "failpoint", point)

        async def open_shops() -> None:
            self.lender = await self.opening.__aenter__()
            for store in STORES:
                minimum = f"{MINIMUM[store] // 100}.00"
                await self.lender.store(store, minimum=minimum, manual=MANUAL[store])
            for credit, store in CREDITS.items():
                await self.lender.credit(credit, "10", "1", store=store)

        self.runner.run(open_shops())
        for credit in ("c0", "c1", "c3", "c4"):
            self.contribute(credit, 9)

    def operation(self, again: int) -> str:
        """A new one, or one of the last three."""
        if again < 3 and self.operations:
            return self.operations[-1 - again % len(self.operations)]
        self.operations.append(f"op{len(self.operations)}")
        return self.operations[-1]

    def payment(self, again: int) -> str:
        if again < 3 and self.payments:
            return self.payments[-1 - again % len(self.payments)]
        self.payments.append(str(uuid.uuid4()))
        return self.payments[-1]

    def made(self, which: int) -> str:
        """A payment that has a transfer; the newest ones are likelier."""
        there = list(self.shops.transfers)
        return there[-1 - which % len(there)]

    def do(self, expected: Callable[[], str], attempt: Callable[[], Awaitable[str]]) -> None:
        """Do it, after a process that died of it when a crash is due; the model does what that one left behind."""
        if self.crash is not None:
            try:
                self.runner.run(_answer(attempt))
                left = True
            except Died:
                left = self.crash == "after-commit"
            self.crash = None
            if left:
                _expected(expected)
        assert self.runner.run(_answer(attempt)) == _expected(expected)

    @rule(point=st.sampled_from(("before-commit", "after-commit", "after-log")))
    def a_crash_is_due(self, point: str) -> None:
        self.crash = point

    @rule(credit=CREDIT, again=AGAIN)
    def contribute(self, credit: str, again: int) -> None:
        operation = self.operation(again)

        async def attempt() -> str:
            await self.lender.balances.contribute(self.lender.name, credit, operation=operation, actor="partner")
            return "done"

        self.do(lambda: self.shops.contribute(credit, operation), attempt)

    @rule(credit=CREDIT, again=AGAIN)
    def cancel_credit(self, credit: str, again: int) -> None:
        operation = self.operation(again)

        async def attempt() -> str:
            await self.lender.balances.cancel_credit(
                self.lender.name, credit, operation=operation, reason="returned goods", actor="partner"
            )
            return "done"

        self.do(lambda: self.shops.cancel_credit(credit, operation), attempt)

    @rule(credit=CREDIT, amount=AMOUNT, share=st.integers(0, 100), again=AGAIN)
    def change_amount(self, credit: str, amount: int, share: int, again: int) -> None:
        operation, commission = self.operation(again), amount * share // 100

        async def attempt() -> str:
            await self.lender.balances.change_amount(
                self.lender.name, credit, mxn(amount), mxn(commission), operation=operation, actor="operator"
            )
            return "done"

        self.do(lambda: self.shops.change(credit, amount, commission, operation), attempt)

    @rule(store=STORE, effect=st.integers(-1_500, 1_500).filter(bool), again=AGAIN)
    def adjust(self, store: str, effect: int, again: int) -> None:
        operation = self.operation(again)

        async def attempt() -> str:
            await self.lender.balances.adjust(
                self.lender.name, store, mxn(effect), operation=operation, reason="ticket", actor="treasury"
            )
            return "done"

        self.do(lambda: self.shops.adjust(store, effect, operation), attempt)

    @rule(store=STORE, again=AGAIN, trigger=TRIGGER)
    def fire(self, store: str, again: int, trigger: Trigger) -> None:
        payment = self.payment(again)

        async def attempt() -> str:
            made = await self.lender.transfers.collect(self.lender.name, store, payment, trigger)
            if isinstance(made, Collected):
                return "again" if made.again else "made"
            return str(made.verdict.code)

        self.do(lambda: self.shops.collect(store, payment, trigger), attempt)

    @precondition(there_are_transfers)
    @rule(which=WHICH)
    def sent(self, which: int) -> None:
        payment = self.made(which)

        async def attempt() -> str:
            return str(await self.lender.transfers.record_sent(self.lender.name, payment))

        self.do(lambda: self.shops.sent(payment), attempt)

    @precondition(there_are_transfers)
    @rule(which=WHICH, decided=st.booleans())
    def somebody_decides(self, which: int, *, decided: bool) -> None:
        transfers, name, payment = self.lender.transfers, self.lender.name, self.made(which)

        async def attempt() -> str:
            await (transfers.confirm(name, payment, "ana") if decided else transfers.cancel(name, payment, "ana", "no"))
            return "done"

        self.do(lambda: self.shops.confirm(payment) if decided else self.shops.cancel(payment), attempt)

    @precondition(there_are_transfers)
    @rule(which=WHICH, outcome=st.sampled_from([*[Outcome.SETTLED] * 3, Outcome.RETURNED, *Outcome]))
    def callback(self, which: int, outcome: Outcome) -> None:
        payment = self.made(which)

        async def attempt() -> str:
            return str(await self.lender.transfers.record_outcome(self.lender.name, payment, outcome, reason="1"))

        self.do(lambda: self.shops.told(payment, outcome), attempt)

    @rule(store=STORE, steps=st.lists(STEP, min_size=1, max_size=4))
    def a_transfer_takes_its_course(self, store: str, steps: list[str]) -> None:
        """What chance alone would seldom put together."""
        self.adjust(store, 1_500, 9)
        self.fire(store, 9, Trigger.MANUAL)
        if self.payments[-1] not in self.shops.transfers:
            return
        newest = len(self.shops.transfers) - 1 - list(self.shops.transfers).index(self.payments[-1])
        if MANUAL[store]:
            self.somebody_decides(newest, decided=True)
        for step in steps:
            if step == "sent":
                self.sent(newest)
            else:
                self.callback(newest, Outcome(step))

    @rule()
    def automation_is_switched(self) -> None:
        self.shops.automation = not self.shops.automation
        self.runner.run(
            self.lender.statements.rows(
                "UPDATE disbursement.merchant SET automation = %(on)s WHERE tenant_id = %(tenant)s",
                {"on": self.shops.automation, "tenant": self.lender.name},
            )
        )

    @invariant()
    def the_stores_are_as_the_model_has_them(self) -> None:
        if not hasattr(self, "shops"):
            return
        self.shops.check()
        chains, transfers, disbursed = self.runner.run(self.found())
        assert chains == {
            store: [[one.type, one.effect, one.status, one.overwritten] for one in chain] or None
            for store, chain in self.shops.chains.items()
        }
        assert transfers == {
            payment: (transfer.status, transfer.amount) for payment, transfer in self.shops.transfers.items()
        }
        assert disbursed == self.shops.disbursed()

    async def found(self) -> tuple[dict[str, Any], dict[str, tuple[str, int]], set[str]]:
        async with self.lender.statements.connection() as connection:
            chains, transfers, credits_ = [
                await (await connection.execute(query, {"tenant": self.lender.name})).fetchall()
                for query in (_CHAINS, _TRANSFERS, _DISBURSED)
            ]
        return dict(chains), {row[0]: (row[1], row[2]) for row in transfers}, {row[0] for row in credits_}

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return

        async def end() -> list[str]:
            reports = [await verify(self.url), await verify_book(self.url)]
            await self.opening.__aexit__(None, None, None)
            return [str(report) for report in reports if not report.sound]

        said = self.runner.run(end())
        self.runner.close()
        assert not said


_CHAINS = (
    "SELECT s.id, (SELECT json_agg(json_build_array(u.type, u.effect, u.status, u.overwritten) ORDER BY u.seq) "
    "FROM disbursement.balance_update u WHERE u.tenant_id = s.tenant_id AND u.store_id = s.id) "
    "FROM disbursement.store s WHERE s.tenant_id = %(tenant)s"
)
_TRANSFERS = "SELECT id, status, amount FROM disbursement.bank_transfer WHERE tenant_id = %(tenant)s"
_DISBURSED = "SELECT id FROM disbursement.credit WHERE tenant_id = %(tenant)s AND disbursed"


def mxn(minor: int) -> Money:
    return Money(minor, "MXN")


async def _answer(attempt: Callable[[], Awaitable[str]]) -> str:
    try:
        return str(await attempt())
    except DisbursementRefused as refused:
        return refused.code


def _expected(model: Callable[[], str]) -> str:
    try:
        return model()
    except Refused as refused:
        return refused.code


def test_the_stores_do_what_the_model_does(new_stores, open_lender, monkeypatch) -> None:  # L1 to L44
    made = open_lender

    class Machine(StoresMachine):
        url = new_stores()
        open_lender = staticmethod(made)
        patch = monkeypatch

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
