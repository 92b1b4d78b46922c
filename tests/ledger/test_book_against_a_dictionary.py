"""Any sequence of operations leaves the book as a dictionary would have it: same answers, same balances, and sound."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hub.money import Money
from hub.statements import open_statements
from ledger.book import Ledger
from ledger.model import STP_SETTLEMENT, AccountRef, LedgerRefused, Leg, Receipt
from ledger.seed import Seed, seed
from ledger.verify import verify

PEOPLE = ("ana", "bruno", "carla")
OPENING = 1_000
AMOUNTS = st.integers(1, 700)
FEES = st.integers(0, 50)
NUMBERS = st.integers(0, 6)
"""Few operation ids, so that repeats and conflicts are common."""


@dataclass
class HoldState:
    account: str
    amount: int
    fee: int
    ended: bool = False


class DictionaryBook:
    """What the book should do, in the plainest words."""

    def __init__(self) -> None:
        self.booked = dict.fromkeys((*PEOPLE, "fee-income", "stp-settlement"), 0) | dict.fromkeys(PEOPLE, OPENING)
        self.frozen: set[str] = set()
        self.holds: dict[str, HoldState] = {}
        self.operations: dict[str, Any] = {}

    def held(self, account: str) -> int:
        return sum(h.amount + h.fee for h in self.holds.values() if h.account == account and not h.ended)

    def available(self, account: str) -> int:
        return self.booked[account] - self.held(account)

    def known(self, operation: str, content: object) -> str | None:
        """`replayed`, `duplicate-operation`, or nothing when the operation is new."""
        if operation not in self.operations:
            return None
        return "replayed" if self.operations[operation] == content else "duplicate-operation"

    def hold(self, operation: str, account: str, amount: int, fee: int) -> str:
        content = ("hold", account, amount, fee)
        if known := self.known(operation, content):
            return known
        if account in self.frozen:
            return "account-frozen"
        if self.available(account) < amount + fee:
            return "insufficient-funds"
        self.operations[operation] = content
        self.holds[operation] = HoldState(account, amount, fee)
        return "done"

    def capture(self, hold: str, operation: str, to: str) -> str:
        content = ("capture", hold, to)
        if hold not in self.holds:
            return "hold-unknown"
        found = self.holds[hold]
        if known := self.known(operation, content):
            return known
        if found.ended:
            return "hold-final"
        if found.account == to:
            return "same-account"
        self.operations[operation] = content
        found.ended = True
        self.booked[found.account] -= found.amount + found.fee
        self.booked["fee-income"] += found.fee
        self.booked[to] += -found.amount if to == "stp-settlement" else found.amount
        return "done"

    def release(self, hold: str, operation: str) -> str:
        content = ("release", hold)
        if hold not in self.holds:
            return "hold-unknown"
        if known := self.known(operation, content):
            return known
        if self.holds[hold].ended:
            return "hold-final"
        self.operations[operation] = content
        self.holds[hold].ended = True
        return "done"

    def post(self, operation: str, legs: list[tuple[str, str, int]]) -> str:
        content = ("post", tuple(legs))
        if any(debit == credit for debit, credit, _ in legs):
            return "same-account"
        if known := self.known(operation, content):
            return known
        if any(debit in self.frozen for debit, _, _ in legs):
            return "account-frozen"
        change = dict.fromkeys(self.booked, 0)
        for debit, credit, amount in legs:
            change[debit] -= amount
            change[credit] += amount
        if any(change[one] < 0 and self.available(one) + change[one] < 0 for one in PEOPLE):
            return "insufficient-funds"
        self.operations[operation] = content
        for account in PEOPLE:
            self.booked[account] += change[account]
        return "done"


_BALANCES = (
    "SELECT coalesce(nullif(a.owner_id, ''), a.kind), "
    "CASE b.side WHEN 'C' THEN b.credits - b.debits ELSE b.debits - b.credits END, b.hold_out "
    "FROM ledger.book k JOIN ledger.account a ON a.book_id = k.id JOIN ledger.balance b ON b.account_id = a.id "
    "WHERE k.code = %(book)s AND a.kind IN ('customer-deposit', 'fee-income', 'stp-settlement')"
)


class BookMachine(RuleBasedStateMachine):
    url: str

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.book = f"machine-{uuid.uuid4().hex[:10]}"
        self.dictionary = DictionaryBook()
        accounts = [{"id": one, "currency": "MXN", "opening_balance": f"{OPENING // 100}.00"} for one in PEOPLE]
        self.opening = open_statements(self.url, 1)

        async def begin() -> None:
            await seed(self.url, Seed.model_validate({"tenants": [{"id": self.book, "accounts": accounts}]}))
            self.statements = await self.opening.__aenter__()
            self.ledger = Ledger(self.statements)

        self.runner.run(begin())

    def compare(self, expected: str, attempt: Any) -> None:
        async def outcome() -> str:
            try:
                receipt: Receipt = await attempt
            except LedgerRefused as refused:
                return refused.code
            return "replayed" if receipt.replayed else "done"

        assert self.runner.run(outcome()) == expected

    @rule(number=NUMBERS, account=st.sampled_from(PEOPLE), amount=AMOUNTS, fee=FEES)
    def hold(self, number: int, account: str, amount: int, fee: int) -> None:
        self.compare(
            self.dictionary.hold(f"hold-{number}", account, amount, fee),
            self.ledger.hold(
                self.book, f"hold-{number}", AccountRef.customer(account), Money(amount, "MXN"), Money(fee, "MXN")
            ),
        )

    @rule(number=NUMBERS, step=st.integers(0, 2), to=st.sampled_from((*PEOPLE, "stp-settlement")))
    def capture(self, number: int, step: int, to: str) -> None:
        ref = STP_SETTLEMENT if to == "stp-settlement" else AccountRef.customer(to)
        self.compare(
            self.dictionary.capture(f"hold-{number}", f"end-{number}-{step}", to),
            self.ledger.capture(self.book, f"hold-{number}", f"end-{number}-{step}", ref),
        )

    @rule(number=NUMBERS, step=st.integers(0, 2))
    def release(self, number: int, step: int) -> None:
        self.compare(
            self.dictionary.release(f"hold-{number}", f"end-{number}-{step}"),
            self.ledger.release(self.book, f"hold-{number}", f"end-{number}-{step}"),
        )

    @rule(
        number=NUMBERS,
        legs=st.lists(
            st.tuples(st.sampled_from(PEOPLE), st.sampled_from(PEOPLE), st.integers(1, 900)), min_size=1, max_size=3
        ),
    )
    def post(self, number: int, legs: list[tuple[str, str, int]]) -> None:
        self.compare(
            self.dictionary.post(f"post-{number}", legs),
            self.ledger.post(
                self.book,
                f"post-{number}",
                [
                    Leg(AccountRef.customer(debit), AccountRef.customer(credit), Money(amount, "MXN"))
                    for debit, credit, amount in legs
                ],
            ),
        )

    @rule(account=st.sampled_from(PEOPLE))
    def freeze_or_unfreeze(self, account: str) -> None:
        frozen = account in self.dictionary.frozen
        self.dictionary.frozen ^= {account}
        self.runner.run(
            self.ledger.set_policy(
                self.book,
                AccountRef.customer(account),
                "MXN",
                "unfreeze-debits" if frozen else "freeze-debits",
                reason="a rule of the test",
            )
        )

    @invariant()
    def balances_agree(self) -> None:
        if not hasattr(self, "dictionary"):
            return

        async def found() -> tuple[dict[str, int], dict[str, int]]:
            rows = await self.statements.rows(_BALANCES, {"book": self.book})
            return {name: booked for name, booked, _ in rows}, {name: held for name, _, held in rows}

        booked, held = self.runner.run(found())
        assert booked == self.dictionary.booked
        assert held == {name: self.dictionary.held(name) for name in booked}

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return

        async def end() -> str:
            report = await verify(self.url)
            await self.opening.__aexit__(None, None, None)
            return "" if report.sound else str(report)

        said = self.runner.run(end())
        self.runner.close()
        assert not said


def test_the_book_does_what_a_dictionary_would(own_url: str) -> None:
    class Machine(BookMachine):
        url = own_url

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
