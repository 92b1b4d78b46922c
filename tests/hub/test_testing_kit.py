"""The test kit itself: what a connector's tests rely on."""

from __future__ import annotations

import time
from typing import ClassVar

import clabe
import pytest

from hub.errors import Rejected, Unavailable, Uncertain
from hub.jobs import Job, JobFacts, Result, handles
from hub.messages import Engine, Message, Published
from hub.testing import Completed, Failed, FakeEngine, Thrown, job_facts, party, run
from hub.transfer import Reason


class AccountClosed(Rejected):
    reason = Reason.ACCOUNT_CLOSED


class Booked(Result):
    number: int


class Book(Job[Booked]):
    job_type: ClassVar[str] = "ledger.book"
    rejections: ClassVar[tuple[type[Rejected], ...]] = (AccountClosed,)
    account: str


class Clerk:
    @handles(Book)
    async def book(self, job: Book) -> Booked:
        match job.account:
            case "closed":
                raise AccountClosed("closed in May")
            case "away":
                raise Unavailable("no line")
            case "lost":
                raise Uncertain("no answer")
            case "broken":
                raise KeyError("x")
        return Booked(number=job.facts.retries)


class Paid(Message):
    message_name: ClassVar[str] = "paid"
    payment_id: str
    amount: int = 1

    @property
    def correlation_key(self) -> str:
        return self.payment_id

    @property
    def message_id(self) -> str:
        return f"{self.payment_id}:{self.amount}"


class TestRun:
    async def test_each_end_of_a_handler_is_shown_as_the_engine_would_be_told(self):
        assert await run(Clerk(), Book(account="open")) == Completed(Booked(number=Book.attempts))
        thrown = await run(Clerk(), Book(account="closed"))
        assert isinstance(thrown, Thrown)
        assert (thrown.code, thrown.variables["reason_detail"]) == ("account-closed", "closed in May")
        for account in ("away", "lost"):
            failed = await run(Clerk(), Book(account=account))
            assert isinstance(failed, Failed)
            assert failed.tries_left == Book.attempts - 1
        broken = await run(Clerk(), Book(account="broken"))
        assert isinstance(broken, Failed)
        assert broken.incident

    async def test_the_handler_sees_the_facts_it_was_given(self):
        job = Book(account="open")
        facts = job_facts(job, retries=3)
        assert await run(Clerk(), job, facts) == Completed(Booked(number=3))
        assert job.facts == facts

    async def test_facts_can_say_that_time_is_short(self):
        job = Book(account="open")
        facts = job_facts(job, seconds_left=5)
        assert isinstance(facts, JobFacts)
        assert 0 < facts.deadline - time.time() <= 5

    async def test_a_job_is_found_among_several_workers(self):
        class Idle: ...

        assert isinstance(await run([Idle(), Clerk()], Book(account="open")), Completed)

    async def test_a_job_that_nobody_handles_is_told(self):
        with pytest.raises(LookupError, match="no handler for Book"):
            await run([], Book(account="open"))


class TestFakeEngine:
    async def test_it_is_an_engine_that_remembers(self):
        engine = FakeEngine()
        as_seen_by_connectors: Engine = engine
        assert await as_seen_by_connectors.publish(Paid(payment_id="p")) is Published.NEW
        assert engine.published(Paid) == [Paid(payment_id="p")]

    async def test_it_refuses_a_repeat_of_name_key_and_id_together(self):
        class PaidElsewhere(Paid):
            message_name: ClassVar[str] = "paid-elsewhere"

        engine = FakeEngine()
        answers = [
            await engine.publish(message)
            for message in (
                Paid(payment_id="p"),
                Paid(payment_id="p"),
                Paid(payment_id="p", amount=2),
                PaidElsewhere(payment_id="p"),
                Paid(payment_id="q"),
            )
        ]
        assert [answer is Published.NEW for answer in answers] == [True, False, True, True, True]
        assert len(engine.messages) == 4

    async def test_after_the_time_to_live_a_repeat_is_new(self):
        engine = FakeEngine()
        await engine.publish(Paid(payment_id="p"))
        engine.forget()
        assert await engine.publish(Paid(payment_id="p")) is Published.NEW

    async def test_it_can_be_away(self):
        engine = FakeEngine()
        engine.away = True
        with pytest.raises(Unavailable):
            await engine.publish(Paid(payment_id="p"))
        with pytest.raises(Unavailable):
            await engine.ping()
        assert engine.messages == []
        engine.away = False
        assert await engine.publish(Paid(payment_id="p")) is Published.NEW
        assert engine.asked == 2

    async def test_it_can_lose_an_answer(self):
        engine = FakeEngine()
        engine.lose_answers = 1
        with pytest.raises(Unavailable):
            await engine.publish(Paid(payment_id="p"))
        assert await engine.publish(Paid(payment_id="p")) is Published.ALREADY_THERE
        assert len(engine.messages) == 1


def test_the_made_up_party_has_an_account_number_that_is_right():
    assert clabe.validate_clabe(party().identifier)
