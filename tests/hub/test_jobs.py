"""A job type is a class: its variables, its result, its refusals and its handler."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from hub.errors import Rejected
from hub.jobs import Handler, Job, JobFacts, Result, handled_by, handlers_of, handles
from hub.transfer import Party, Reason

FACTS = JobFacts(key=1, process_instance_key=2, process_id="p", element_id="e", retries=3, deadline=4.0)


class AccountClosed(Rejected):
    reason = Reason.ACCOUNT_CLOSED


class FundsHeld(Result):
    hold_id: str


class HoldFunds(Job[FundsHeld]):
    job_type: ClassVar[str] = "test.hold-funds"
    rejections: ClassVar[tuple[type[Rejected], ...]] = (AccountClosed,)

    payment_id: str
    payer: Party
    limit: int | None = None
    inquire_after: str | None = Field(default=None, alias="inquireAfter")


class TellChannel(Job[Result]):
    job_type: ClassVar[str] = "test.tell-channel"


class Worker:
    @handles(HoldFunds)
    async def hold_funds(self, job: HoldFunds) -> FundsHeld:
        return FundsHeld(hold_id=job.payment_id)

    @handles(TellChannel)
    async def tell_channel(self, job: TellChannel) -> Result:
        return Result()

    async def not_a_handler(self, job: HoldFunds) -> FundsHeld:
        raise NotImplementedError


def test_the_variables_of_a_job_are_its_fields_by_their_names_in_the_process():
    assert HoldFunds.variables() == ("payment_id", "payer", "limit", "inquireAfter")
    assert TellChannel.variables() == ()


def test_the_result_is_the_one_in_the_declaration():
    assert HoldFunds.result_type() is FundsHeld
    assert TellChannel.result_type() is Result


def test_a_subclass_of_a_job_keeps_its_result():
    class HoldMore(HoldFunds):
        job_type: ClassVar[str] = "test.hold-more"

    assert HoldMore.result_type() is FundsHeld
    assert HoldMore.variables() == HoldFunds.variables()


def test_a_job_without_a_result_is_told_to_declare_one():
    class Vague(Job): ...  # type: ignore[type-arg]

    with pytest.raises(TypeError, match=r"Vague must be declared as Job\[ItsResult\]"):
        Vague.result_type()


def test_variables_that_a_job_does_not_read_are_ignored():
    job = HoldFunds.model_validate_json(
        '{"payment_id": "p", "payer": {"id_type": "CLABE", "identifier": "1"}, "other": {"deep": 1}}'
    )
    assert job.payment_id == "p"
    assert job.limit is None


def test_a_missing_variable_is_an_error():
    with pytest.raises(ValidationError, match="payment_id"):
        HoldFunds.model_validate_json('{"payer": {"id_type": "CLABE", "identifier": "1"}}')


def test_a_job_cannot_be_changed():
    job = HoldFunds.model_validate({"payment_id": "p", "payer": {"id_type": "CLABE", "identifier": "1"}})
    with pytest.raises(ValidationError, match="frozen"):
        job.payment_id = "other"


def test_facts_are_there_only_for_a_job_that_an_engine_handed_out():
    job = TellChannel()
    with pytest.raises(LookupError, match="pass facts in the test kit"):
        _ = job.facts
    job.with_facts(FACTS)
    assert job.facts is FACTS


def test_facts_are_no_part_of_the_variables():
    job = TellChannel()
    job.with_facts(FACTS)
    assert job.model_dump() == {}
    assert job.variables() == ()


def test_the_handlers_of_a_worker_are_its_marked_methods():
    found = {handler.job: handler.run for handler in handlers_of([Worker()])}
    assert set(found) == {HoldFunds, TellChannel}


def test_what_a_worker_class_does_is_known_without_making_one():
    assert set(handled_by(Worker)) == {HoldFunds, TellChannel}


def test_a_marked_method_of_a_parent_class_counts():
    class Child(Worker): ...

    assert {handler.job for handler in handlers_of([Child()])} == {HoldFunds, TellChannel}


async def test_a_handler_is_called_on_its_worker():
    (handler,) = [one for one in handlers_of([Worker()]) if one.job is HoldFunds]
    assert isinstance(handler, Handler)
    payer = {"id_type": "CLABE", "identifier": "1"}
    assert await handler.run(HoldFunds.model_validate({"payment_id": "p", "payer": payer})) == FundsHeld(hold_id="p")


def test_two_handlers_for_one_job_type_are_refused():
    class Again:
        @handles(TellChannel)
        async def tell(self, job: TellChannel) -> Result:
            return Result()

    with pytest.raises(ValueError, match=r"test\.tell-channel has two handlers"):
        handlers_of([Worker(), Again()])


def test_an_error_code_is_the_reason_of_the_refusal():
    codes = [rejection.code() for rejection in HoldFunds.rejections]
    assert codes == ["account-closed"]


def test_marking_changes_nothing_about_the_method():
    async def plain(self: Any, job: TellChannel) -> Result:
        return Result()

    assert handles(TellChannel)(plain) is plain
