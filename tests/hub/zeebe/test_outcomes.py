"""What each end of a handler means to the engine (the four kinds of failure, one consequence each)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import ClassVar

import pytest
from pydantic import BaseModel, ValidationError

from hub.errors import Rejected, Unavailable, Uncertain
from hub.jobs import Handler, Job, Result, handlers_of, handles
from hub.transfer import Reason
from hub.zeebe.outcomes import COUNTED, Completed, Failed, Thrown, faults, misfit, settle, stack, tries_left


class InsufficientFunds(Rejected):
    reason = Reason.INSUFFICIENT_FUNDS


class AccountClosed(Rejected):
    reason = Reason.ACCOUNT_CLOSED


class Held(Result):
    hold_id: str


class Payer(BaseModel):
    name: str
    tax_id: str | None = None


class Hold(Job[Held]):
    job_type: ClassVar[str] = "test.hold"
    rejections: ClassVar[tuple[type[Rejected], ...]] = (InsufficientFunds,)
    attempts: ClassVar[int] = 4
    backoff: ClassVar[timedelta] = timedelta(seconds=1)

    payment_id: str
    amount: int = 1
    payer: Payer = Payer(name="Juan Perez")


class Holder:
    """Raises or returns what it was given."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    @handles(Hold)
    async def hold(self, job: Hold) -> Held:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]


def handler(answer: object) -> Handler:
    return handlers_of([Holder(answer)])[0]


JOB = Hold(payment_id="p-1", amount=123450, payer=Payer(name="Juan Perez", tax_id="PEPJ800101ABC"))


async def test_a_result_completes_the_job_with_its_fields():
    ending = await settle(handler(Held(hold_id="h")), JOB, 4)
    assert ending == Completed(Held(hold_id="h"))
    assert isinstance(ending, Completed)
    assert ending.variables == {"hold_id": "h"}
    assert ending.json() == '{"hold_id":"h"}'


async def test_a_declared_refusal_is_thrown_with_its_reason():
    ending = await settle(handler(InsufficientFunds("the balance is too low")), JOB, 4)
    detail = "the balance is too low"
    variables = {"outcome": "REJECTED", "reason": "insufficient-funds", "reason_detail": detail}
    assert ending == Thrown("insufficient-funds", variables, detail)


async def test_an_undeclared_refusal_is_a_defect():
    ending = await settle(handler(AccountClosed("x")), JOB, 4)
    assert isinstance(ending, Failed)
    assert ending.incident
    assert "AccountClosed (account-closed) is not among the rejections of Hold" in ending.message


async def test_a_subclass_that_changes_the_reason_is_not_the_declared_refusal():
    class Frozen(InsufficientFunds):
        reason = Reason.ACCOUNT_FROZEN

    ending = await settle(handler(Frozen()), JOB, 4)
    assert isinstance(ending, Failed)
    assert ending.incident


@pytest.mark.parametrize("kind", [Unavailable, Uncertain])
async def test_trouble_is_tried_again_and_counts(kind: type[Unavailable] | type[Uncertain]):
    ending = await settle(handler(kind("the core does not answer")), JOB, 4)
    assert isinstance(ending, Failed)
    assert ending.tries_left == 3
    assert ending.retries == COUNTED + 3
    assert ending.message == f"{kind.__name__}: the core does not answer (try 1 of 4)"


async def test_the_last_try_ends_in_an_incident():
    ending = await settle(handler(Unavailable("away")), JOB, 1)
    assert isinstance(ending, Failed)
    assert ending.incident
    assert ending.retries == 0
    assert ending.message.endswith("(try 4 of 4)")


@pytest.mark.parametrize(("tries", "most"), [(4, 1.0), (3, 2.0), (2, 4.0)])
async def test_pauses_double_with_jitter(tries: int, most: float):
    pauses = set()
    for _ in range(20):
        ending = await settle(handler(Unavailable("away")), JOB, tries)
        assert isinstance(ending, Failed)
        seconds = ending.back_off.total_seconds()
        assert most / 2 <= seconds <= most
        pauses.add(seconds)
    assert len(pauses) > 10


async def test_a_pause_is_never_longer_than_a_minute():
    class Patient(Hold):
        attempts: ClassVar[int] = 50

    ending = await settle(handler(Unavailable("away")), Patient(payment_id="p"), 2)
    assert isinstance(ending, Failed)
    assert timedelta(seconds=30) <= ending.back_off <= timedelta(seconds=60)


async def test_the_other_sides_word_on_when_to_come_back_is_honoured():
    ending = await settle(handler(Uncertain("busy", after=timedelta(seconds=90))), JOB, 4)
    assert isinstance(ending, Failed)
    assert timedelta(seconds=90) <= ending.back_off <= timedelta(seconds=99)


@pytest.mark.parametrize(
    ("retries", "tries"),
    [
        (3, 4),  # as the engine starts a job when nothing is drawn
        (1, 4),  # as an operator gives it back
        (999, 4),
        (COUNTED + 3, 3),
        (COUNTED + 1, 1),
        (COUNTED + 40, 4),  # counted when the class still had more
    ],
)
def test_only_our_own_count_is_counted_down(retries: int, tries: int):
    assert tries_left(retries, 4) == tries


async def test_counting_through_the_engine_tries_exactly_so_often():
    retries, tried = 3, 0
    while retries:
        tried += 1
        ending = await settle(handler(Unavailable("away")), JOB, tries_left(retries, Hold.attempts))
        assert isinstance(ending, Failed)
        retries = ending.retries
    assert tried == Hold.attempts


async def test_a_defect_is_an_incident_at_once_and_says_where():
    ending = await settle(handler(KeyError("missing_setting")), JOB, 4)
    assert isinstance(ending, Failed)
    assert ending.incident
    assert ending.message.startswith("KeyError: 'missing_setting' at test_outcomes.py:")
    assert ending.message.endswith(" hold")


async def test_a_defects_message_shows_no_value_of_the_job():
    said = "cannot book 123450 for Juan Perez (PEPJ800101ABC) of p-1\nDETAIL: Key (name)=(Juan Perez)"
    ending = await settle(handler(RuntimeError(said)), JOB, 4)
    assert isinstance(ending, Failed)
    assert "cannot book *** for *** (***) of p-1 at" in ending.message
    for secret in ("123450", "Juan", "Perez", "PEPJ", "DETAIL"):
        assert secret not in ending.message


async def test_the_stack_for_the_log_has_frames_but_not_the_text():
    ending = await settle(handler(RuntimeError("secret words")), JOB, 4)
    assert isinstance(ending, Failed)
    assert ending.error is not None
    assert "in hold" in stack(ending.error)
    assert "secret words" not in stack(ending.error)


async def test_an_answer_of_the_wrong_kind_is_a_defect():
    ending = await settle(handler(None), JOB, 4)
    assert isinstance(ending, Failed)
    assert ending.incident
    assert "NoneType, not Held" in ending.message


async def test_a_handler_that_takes_too_long_is_uncertain():
    class Slow:
        @handles(Hold)
        async def hold(self, job: Hold) -> Held:
            await asyncio.sleep(30)
            return Held(hold_id="never")

    ending = await settle(handlers_of([Slow()])[0], JOB, 4, within=0.02)
    assert isinstance(ending, Failed)
    assert ending.tries_left == 3
    assert ending.message.startswith("Uncertain: no answer from the handler")


async def test_a_time_out_of_the_handlers_own_is_a_defect():
    ending = await settle(handler(TimeoutError()), JOB, 4, within=10)
    assert isinstance(ending, Failed)
    assert ending.incident
    assert ending.message.startswith("TimeoutError at ")


async def test_a_cancellation_from_below_is_uncertain():
    ending = await settle(handler(asyncio.CancelledError()), JOB, 4)
    assert isinstance(ending, Failed)
    assert ending.tries_left == 3


async def test_a_cancellation_of_the_job_itself_passes_through():
    class Slow:
        @handles(Hold)
        async def hold(self, job: Hold) -> Held:
            await asyncio.sleep(30)
            return Held(hold_id="never")

    task = asyncio.create_task(settle(handlers_of([Slow()])[0], JOB, 4))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_variables_that_do_not_fit_are_named_without_their_values():
    with pytest.raises(ValidationError) as caught:
        Hold.model_validate_json('{"amount": "Juan", "payer": {"name": 5}}')
    failed = misfit(Hold, caught.value)
    assert failed.incident
    assert failed.message == (
        "the variables do not fit Hold: payment_id (missing), amount (int parsing), payer.name (string type)"
    )


def test_a_key_that_is_data_is_masked_in_the_path():
    class Book(BaseModel):
        accounts: dict[str, int]

    with pytest.raises(ValidationError) as caught:
        Book.model_validate({"accounts": {"646180157000000004": "x"}})
    assert faults(caught.value) == "accounts.* (int parsing)"


async def test_a_provider_answer_that_does_not_fit_shows_no_value_either():
    try:
        Payer.model_validate({"name": 12345678})
    except ValidationError as error:
        ending = await settle(handler(error), JOB, 4)
    assert isinstance(ending, Failed)
    assert ending.message.startswith("ValidationError: name (string type)")
    assert "12345678" not in ending.message
