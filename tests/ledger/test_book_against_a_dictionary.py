"""Any sequence of operations leaves the book as a dictionary would have it: same answers, same balances, and sound."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hub.money import Money
from hub.statements import open_statements
from ledger.book import Ledger
from ledger.model import STP_SETTLEMENT, AccountRef, LedgerRefused, Leg, Post, Receipt
from ledger.seed import Seed, seed
from ledger.verify import verify

PEOPLE = ("ana", "bruno", "carla")
OPENING = 1_000
AMOUNTS = st.integers(1, 700)
FEES = st.integers(0, 50)
NUMBERS = st.integers(0, 6)
"""Few operation ids, so that repeats and conflicts are common."""
STEPS = st.integers(0, 2)
PAYEES = st.sampled_from((*PEOPLE, "stp-settlement"))
LEGS = st.tuples(PAYEES, PAYEES, st.integers(1, 900))


@dataclass
class HoldState:
    account: str
    amount: int
    fee: int
    expired: bool
    captured: int = 0
    ended: bool = False

    @property
    def open(self) -> int:
        return 0 if self.ended else self.amount + self.fee - self.captured


Legs = list[tuple[str, str, int]]


class DictionaryBook:
    """What the book should do, in the plainest words. Each method answers `done`, `replayed` or a refusal's code."""

    def __init__(self) -> None:
        self.booked = dict.fromkeys((*PEOPLE, "fee-income", "stp-settlement"), 0) | dict.fromkeys(PEOPLE, OPENING)
        self.frozen: set[str] = set()
        self.holds: dict[str, HoldState] = {}
        self.operations: dict[str, Any] = {}
        self.legs: dict[str, Legs] = {}
        self.reversed: set[str] = set()

    def held(self, account: str) -> int:
        return sum(hold.open for hold in self.holds.values() if hold.account == account)

    def available(self, account: str) -> int:
        return self.booked[account] - self.held(account)

    def known(self, operation: str, content: object) -> str | None:
        """`replayed`, `duplicate-operation`, or nothing when the operation is new."""
        if operation not in self.operations:
            return None
        return "replayed" if self.operations[operation] == content else "duplicate-operation"

    def hold(self, operation: str, account: str, amount: int, fee: int, *, expired: bool) -> str:
        content = ("hold", account, amount, fee, expired)
        if known := self.known(operation, content):
            return known
        if account in self.frozen:
            return "account-frozen"
        if self.available(account) < amount + fee:
            return "insufficient-funds"
        self.operations[operation] = content
        self.holds[operation] = HoldState(account, amount, fee, expired)
        return "done"

    def capture(  # noqa: PLR0911 - a line per refusal
        self, hold: str, operation: str, to: str, part: int | None, *, final: bool
    ) -> str:
        content = ("capture", hold, to) if part is None else ("capture", hold, to, part, final)
        if hold not in self.holds:
            return "hold-unknown"
        found = self.holds[hold]
        if known := self.known(operation, content):
            return known
        if found.ended:
            return "hold-final"
        if found.expired:
            return "hold-expired"
        left = found.amount - found.captured
        amount = left if part is None else part
        if amount > left:
            return "amount-not-allowed"
        if found.account == to:
            return "same-account"
        found.ended = final or amount == left
        found.captured += amount
        legs = [(found.account, to, amount)]
        if found.ended and found.fee:
            legs.append((found.account, "fee-income", found.fee))
        self.write(operation, content, legs)
        return "done"

    def release(self, hold: str, operation: str) -> str:
        return self.step(hold, operation, ("release", hold))

    def renew(self, hold: str, operation: str) -> str:
        return self.step(hold, operation, ("renew", hold))

    def step(self, hold: str, operation: str, content: tuple[str, str]) -> str:
        if hold not in self.holds:
            return "hold-unknown"
        if known := self.known(operation, content):
            return known
        if self.holds[hold].ended:
            return "hold-final"
        if content[0] == "renew" and self.holds[hold].expired:
            return "hold-expired"
        self.operations[operation] = content
        self.holds[hold].ended = content[0] == "release"
        return "done"

    def expire(self) -> None:
        for hold in self.holds.values():
            hold.ended |= hold.expired

    def post(self, operation: str, legs: Legs) -> str:
        content = ("post", tuple(legs))
        if any(debit == credit for debit, credit, _ in legs):
            return "same-account"
        return self.known(operation, content) or self.book(operation, content, legs)

    def batch(self, posts: list[tuple[str, Legs]]) -> list[str]:
        """In order, each operation once; then those that were refused or come again, by themselves."""
        outcomes: list[str] = []
        for place, (operation, legs) in enumerate(posts):
            again = any(one == operation for one, _ in posts[:place])
            outcomes.append("again" if again else self.post(operation, legs))
        return [
            outcome if outcome in {"done", "replayed"} else self.post(*one)
            for outcome, one in zip(outcomes, posts, strict=True)
        ]

    def reverse(self, original: str, operation: str) -> str:
        content = ("reverse", original)
        if original not in self.operations:
            return "transaction-unknown"
        if known := self.known(operation, content):
            return known
        if original not in self.legs or self.operations[original][0] == "reverse":
            return "not-reversible"
        if original in self.reversed:
            return "already-reversed"
        outcome = self.book(
            operation, content, [(credit, debit, amount) for debit, credit, amount in self.legs[original]]
        )
        if outcome == "done":
            self.reversed.add(original)
        return outcome

    def book(self, operation: str, content: object, legs: Legs) -> str:
        if any(debit in self.frozen for debit, _, _ in legs):
            return "account-frozen"
        change = dict.fromkeys(self.booked, 0)
        for debit, credit, amount in legs:
            change[debit] -= amount
            change[credit] += amount
        if any(change[one] < 0 and self.available(one) + change[one] < 0 for one in PEOPLE):
            return "insufficient-funds"
        self.write(operation, content, legs)
        return "done"

    def write(self, operation: str, content: object, legs: Legs) -> None:
        self.operations[operation] = content
        self.legs[operation] = legs
        for debit, credit, amount in legs:
            self.booked[debit] += amount if debit == "stp-settlement" else -amount
            self.booked[credit] += -amount if credit == "stp-settlement" else amount


_BALANCES = (
    "SELECT coalesce(nullif(a.owner_id, ''), a.kind), "
    "CASE b.side WHEN 'C' THEN b.credits - b.debits ELSE b.debits - b.credits END, b.hold_out "
    "FROM ledger.book k JOIN ledger.account a ON a.book_id = k.id JOIN ledger.balance b ON b.account_id = a.id "
    "WHERE k.code = %(book)s AND a.kind IN ('customer-deposit', 'fee-income', 'stp-settlement')"
)


def mxn(amount: int) -> Money:
    return Money(amount, "MXN")


def ref(name: str) -> AccountRef:
    return STP_SETTLEMENT if name == "stp-settlement" else AccountRef.customer(name)


def leg(debit: str, credit: str, amount: int) -> Leg:
    return Leg(ref(debit), ref(credit), mxn(amount))


def told(one: Receipt | LedgerRefused) -> str:
    if isinstance(one, LedgerRefused):
        return one.code
    return "replayed" if one.replayed else "done"


async def outcome(attempt: Awaitable[Receipt]) -> str:
    try:
        return told(await attempt)
    except LedgerRefused as refused:
        return told(refused)


class BookMachine(RuleBasedStateMachine):
    url: str

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.book = f"machine-{uuid.uuid4().hex[:10]}"
        self.dictionary = DictionaryBook()
        accounts = [{"id": one, "currency": "MXN", "opening_balance": f"{OPENING // 100}.00"} for one in PEOPLE]
        self.opening = open_statements(self.url, 4)

        async def begin() -> None:
            await seed(self.url, Seed.model_validate({"tenants": [{"id": self.book, "accounts": accounts}]}))
            self.statements = await self.opening.__aenter__()
            self.ledger = Ledger(self.statements)

        self.runner.run(begin())

    def compare(self, expected: str, attempt: Any) -> None:
        assert self.runner.run(outcome(attempt)) == expected

    def hold_with(self, number: int, account: str, amount: int, fee: int, lifetime: timedelta | None) -> None:
        expired = lifetime is not None
        self.compare(
            self.dictionary.hold(f"hold-{number}", account, amount, fee, expired=expired),
            self.ledger.hold(
                self.book, f"hold-{number}", AccountRef.customer(account), mxn(amount), mxn(fee), lifetime=lifetime
            ),
        )

    @rule(number=NUMBERS, account=st.sampled_from(PEOPLE), amount=AMOUNTS, fee=FEES)
    def hold(self, number: int, account: str, amount: int, fee: int) -> None:
        self.hold_with(number, account, amount, fee, None)

    @rule(number=NUMBERS, account=st.sampled_from(PEOPLE), amount=AMOUNTS, fee=FEES)
    def hold_that_runs_out_at_once(self, number: int, account: str, amount: int, fee: int) -> None:
        self.hold_with(number, account, amount, fee, timedelta(microseconds=1))

    @rule(number=NUMBERS, step=STEPS, to=PAYEES)
    def capture(self, number: int, step: int, to: str) -> None:
        self.compare(
            self.dictionary.capture(f"hold-{number}", f"end-{number}-{step}", to, None, final=True),
            self.ledger.capture(self.book, f"hold-{number}", f"end-{number}-{step}", ref(to)),
        )

    @rule(number=NUMBERS, step=STEPS, to=PAYEES, part=st.integers(1, 400), final=st.booleans())
    def capture_a_part(self, number: int, step: int, to: str, part: int, *, final: bool) -> None:
        self.compare(
            self.dictionary.capture(f"hold-{number}", f"end-{number}-{step}", to, part, final=final),
            self.ledger.capture(self.book, f"hold-{number}", f"end-{number}-{step}", ref(to), mxn(part), final=final),
        )

    @rule(number=NUMBERS, step=STEPS)
    def release(self, number: int, step: int) -> None:
        self.compare(
            self.dictionary.release(f"hold-{number}", f"end-{number}-{step}"),
            self.ledger.release(self.book, f"hold-{number}", f"end-{number}-{step}"),
        )

    @rule(number=NUMBERS, step=STEPS)
    def renew(self, number: int, step: int) -> None:
        self.compare(
            self.dictionary.renew(f"hold-{number}", f"end-{number}-{step}"),
            self.ledger.renew_hold(self.book, f"hold-{number}", f"end-{number}-{step}", timedelta(hours=1)),
        )

    @rule()
    def expire(self) -> None:
        self.dictionary.expire()
        self.runner.run(self.ledger.expire_holds(1000))

    @rule(number=NUMBERS, part=st.integers(1, 100))
    def end_at_once_in_three_ways(self, number: int, part: int) -> None:
        hold = f"hold-{number}"
        if hold in self.dictionary.holds and self.dictionary.holds[hold].expired:
            return  # which refusal the slower ones get depends on who was first
        names = [f"{hold}-race-{way}" for way in range(3)]

        async def race() -> tuple[str, ...]:
            return await asyncio.gather(
                outcome(self.ledger.capture(self.book, hold, names[0], STP_SETTLEMENT)),
                outcome(self.ledger.capture(self.book, hold, names[1], STP_SETTLEMENT, mxn(part))),
                outcome(self.ledger.release(self.book, hold, names[2])),
            )

        found = self.runner.run(race())
        assert found.count("done") <= 1
        ways: list[Callable[[], str]] = [
            lambda: self.dictionary.capture(hold, names[0], "stp-settlement", None, final=True),
            lambda: self.dictionary.capture(hold, names[1], "stp-settlement", part, final=True),
            lambda: self.dictionary.release(hold, names[2]),
        ]
        # In the order it must have been: who won came first, unless what it found was no match for the amount left.
        for way in sorted(range(3), key=lambda way: (found[way] != "amount-not-allowed", found[way] != "done")):
            assert ways[way]() == found[way]

    @rule(number=NUMBERS, legs=st.lists(LEGS, min_size=1, max_size=3))
    def post(self, number: int, legs: Legs) -> None:
        self.compare(
            self.dictionary.post(f"post-{number}", legs),
            self.ledger.post(self.book, f"post-{number}", [leg(*one) for one in legs]),
        )

    @rule(posts=st.lists(st.tuples(NUMBERS, LEGS), min_size=1, max_size=6))
    def post_a_batch(self, posts: list[tuple[int, tuple[str, str, int]]]) -> None:
        expected = self.dictionary.batch([(f"post-{number}", [one]) for number, one in posts])
        found = self.runner.run(
            self.ledger.post_batch([Post(self.book, f"post-{number}", leg(*one)) for number, one in posts])
        )
        assert [told(one) for one in found] == expected

    @rule(
        original=st.one_of(NUMBERS.map("post-{}".format), st.builds("end-{}-{}".format, NUMBERS, STEPS)), number=NUMBERS
    )
    def reverse(self, original: str, number: int) -> None:
        self.compare(
            self.dictionary.reverse(original, f"back-{number}"),
            self.ledger.reverse(self.book, original, f"back-{number}", reason="returned"),
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
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
