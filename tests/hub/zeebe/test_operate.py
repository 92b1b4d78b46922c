"""The repair commands on the real engine."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest
from grpc import StatusCode

from hub.errors import Unavailable, Uncertain
from hub.jobs import Job, Result, handlers_of, handles
from hub.zeebe.operate import Activate
from hub.zeebe.refusals import EngineRefused, InvalidRequest, InvalidState, NotFound


@pytest.fixture
def desk(unique: str):
    """A worker whose first task breaks until `mended` or until the amount is 5; it notes what it did."""

    class Check(Job[Result]):
        job_type: ClassVar[str] = f"{unique}.check"
        amount: int

    class Book(Job[Result]):
        job_type: ClassVar[str] = f"{unique}.book"
        amount: int

    class Desk:
        def __init__(self) -> None:
            self.tried: list[int] = []
            """Job keys."""
            self.amounts: list[int] = []
            self.booked: list[int] = []
            self.mended = False

        @handles(Check)
        async def check(self, job: Check) -> Result:
            self.tried.append(job.facts.key)
            self.amounts.append(job.amount)
            if not self.mended and job.amount != 5:
                raise ZeroDivisionError("broken")
            return Result()

        @handles(Book)
        async def book(self, job: Book) -> Result:
            self.booked.append(job.amount)
            return Result()

    return Desk()


@pytest.fixture
def picture(drawn, unique):
    return drawn(unique, [("check", f"{unique}.check"), ("book", f"{unique}.book")])


async def test_a_job_with_an_incident_is_retried_by_retries_then_incident(
    engine, picture, unique, desk, working, until, incident_of
):
    await engine.deploy(picture)
    async with working(engine, handlers_of([desk])):
        await engine.operate.create_instance(unique, {"amount": 1})
        await until(lambda: desk.tried)
        await asyncio.sleep(0.3)
        assert len(desk.tried) == 1, "a defect is not tried again by itself"
        desk.mended = True
        await engine.operate.update_retries(desk.tried[0], 1)
        await incident_of(engine, desk.tried[0])
        await until(lambda: desk.booked)
    assert len(desk.tried) == 2
    assert desk.tried[0] == desk.tried[1], "the same job comes back"


async def test_retry_does_both_in_the_right_order(gateway, scripted_engine, engine, picture, unique, desk):
    # The key of a real incident is only known to exporters; the order is what matters here.
    asked: list[str] = []

    class Recording:
        async def UpdateJobRetries(self, request, timeout):
            asked.append(f"retries of {request.jobKey} := {request.retries}")

        async def ResolveIncident(self, request, timeout):
            asked.append(f"resolve {request.incidentKey}")

    await type(engine.operate)(Recording()).retry(incident_key=11, job_key=10)
    await type(engine.operate)(Recording()).retry(incident_key=12)
    assert asked == ["retries of 10 := 1", "resolve 11", "resolve 12"]


async def test_resolving_without_retries_is_refused(engine, picture, unique, desk, working, until, incident_of):
    await engine.deploy(picture)
    async with working(engine, handlers_of([desk])):
        await engine.operate.create_instance(unique, {"amount": 1})
        await until(lambda: desk.tried)
        await asyncio.sleep(0.3)
        with pytest.raises(InvalidState):
            await incident_of(engine, desk.tried[0])


async def test_variables_set_by_an_operator_are_seen_by_the_retry(
    engine, picture, unique, desk, working, until, incident_of
):
    await engine.deploy(picture)
    async with working(engine, handlers_of([desk])):
        instance = await engine.operate.create_instance(unique, {"amount": 1})
        await until(lambda: desk.tried)
        await asyncio.sleep(0.3)
        assert await engine.operate.set_variables(instance.key, {"amount": 5}) > 0
        await engine.operate.update_retries(desk.tried[0], 1)
        await incident_of(engine, desk.tried[0])
        await until(lambda: desk.booked)
    assert desk.amounts == [1, 5]
    assert desk.booked == [5]


async def test_a_token_is_moved_past_a_broken_task_with_new_variables(engine, picture, unique, desk, working, until):
    await engine.deploy(picture)
    async with working(engine, handlers_of([desk])):
        instance = await engine.operate.create_instance(unique, {"amount": 1})
        await until(lambda: desk.tried)
        await engine.operate.modify_instance(instance.key, activate=[Activate("book", {"amount": 7})])
        await until(lambda: desk.booked)
    assert desk.booked == [7]


async def test_a_start_event_cannot_be_activated(engine, picture, unique, desk, working, until):
    await engine.deploy(picture)
    instance = await engine.operate.create_instance(unique, {"amount": 1})
    with pytest.raises(InvalidRequest):
        await engine.operate.modify_instance(instance.key, activate=[Activate("start")])


async def test_a_cancelled_instance_is_gone_for_every_command(engine, picture, unique):
    await engine.deploy(picture)
    instance = await engine.operate.create_instance(unique, {"amount": 1})
    await engine.operate.cancel_instance(instance.key)
    with pytest.raises(NotFound):
        await engine.operate.cancel_instance(instance.key)
    with pytest.raises(NotFound):
        await engine.operate.set_variables(instance.key, {"amount": 2})
    with pytest.raises(NotFound):
        await engine.operate.modify_instance(instance.key, activate=[Activate("book")])


async def test_an_unknown_job_and_an_unknown_incident_are_not_found(engine):
    unknown = (1 << 51) + (1 << 40)  # the upper bits are the partition, which must exist
    with pytest.raises(NotFound):
        await engine.operate.update_retries(unknown, 1)
    with pytest.raises(NotFound):
        await engine.operate.resolve_incident(unknown)
    with pytest.raises(NotFound):
        await engine.operate.create_instance("no-such-process")


async def test_a_process_can_be_run_to_its_end(engine, picture, unique, desk, working):
    await engine.deploy(picture)
    async with working(engine, handlers_of([desk])):
        assert await engine.operate.run_instance(unique, {"amount": 5}) == {"amount": 5}


class TestWhenTheEngineIsNotWell:
    async def test_a_harmless_command_is_repeated(self, gateway, scripted_engine):
        gateway.answers["resolve"].extend([StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, None])
        await scripted_engine.operate.resolve_incident(1)
        assert gateway.count("resolve") == 3

    async def test_not_found_after_a_lost_answer_is_success(self, gateway, scripted_engine):
        gateway.answers["resolve"].extend([StatusCode.UNAVAILABLE, StatusCode.NOT_FOUND])
        await scripted_engine.operate.resolve_incident(1)
        assert gateway.count("resolve") == 2

    async def test_moving_tokens_is_not_repeated_when_the_answer_is_lost(self, gateway, scripted_engine):
        gateway.answers["modify"].append(StatusCode.UNAVAILABLE)
        with pytest.raises(Uncertain, match="modify-instance: UNAVAILABLE"):
            await scripted_engine.operate.modify_instance(1, activate=[Activate("x")])
        assert gateway.count("modify") == 1

    async def test_moving_tokens_is_repeated_when_the_engine_was_full(self, gateway, scripted_engine):
        gateway.answers["modify"].append(StatusCode.RESOURCE_EXHAUSTED)
        await scripted_engine.operate.modify_instance(1, activate=[Activate("x")])
        assert gateway.count("modify") == 2

    async def test_an_answer_without_a_meaning_of_its_own_is_still_a_refusal(self, gateway, scripted_engine):
        gateway.answers["resolve"].append(StatusCode.PERMISSION_DENIED)
        with pytest.raises(EngineRefused, match="PERMISSION_DENIED"):
            await scripted_engine.operate.resolve_incident(1)

    async def test_an_engine_that_stays_away_is_unavailable(self, gateway, scripted_engine, monkeypatch):
        monkeypatch.setattr("hub.zeebe.calls.command_pause", lambda _: 4.0)
        gateway.answers["resolve"].extend([StatusCode.UNAVAILABLE] * 100)
        with pytest.raises(Unavailable, match="resolve-incident: UNAVAILABLE"):
            await scripted_engine.operate.resolve_incident(1)
