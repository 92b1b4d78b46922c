"""Publishing, deploying and asking for health, on the real engine; and what happens when it is not well."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import ClassVar

import pytest
from grpc import StatusCode

from hub.errors import Unavailable
from hub.jobs import Job, Result, handlers_of, handles
from hub.messages import Message, Published
from hub.settings import EngineSettings
from hub.zeebe.client import open_engine
from hub.zeebe.refusals import EngineRefused, InvalidRequest, NotFound

NOWHERE = EngineSettings(address="127.0.0.1:9")

DECISION = """<definitions xmlns="https://www.omg.org/spec/DMN/20191111/MODEL/" id="{id}-graph" name="g" namespace="test">
<decision id="{id}" name="Rail"><variable id="v" name="rail" typeRef="string"/><decisionTable id="t" hitPolicy="FIRST">
<input id="i"><inputExpression id="ie" typeRef="boolean"><text>on_us</text></inputExpression></input>
<output id="o" name="rail" typeRef="string"/>
<rule id="r1"><inputEntry id="e1"><text>true</text></inputEntry><outputEntry id="o1"><text>"on-us"</text></outputEntry></rule>
<rule id="r2"><inputEntry id="e2"><text>false</text></inputEntry><outputEntry id="o2"><text>"stp"</text></outputEntry></rule>
</decisionTable></decision></definitions>"""  # noqa: E501 - one rule, one line


@pytest.fixture
def accepted(unique: str) -> type[Message]:
    class Accepted(Message):
        message_name: ClassVar[str] = f"accepted-{unique}"

        payment_id: str
        repeat: str = ""

        @property
        def correlation_key(self) -> str:
            return self.payment_id

        @property
        def message_id(self) -> str:
            return self.payment_id

    return Accepted


@pytest.fixture
def claims(unique: str):
    """A worker that notes each process instance it sees."""

    class Claim(Job[Result]):
        job_type: ClassVar[str] = f"{unique}.claim"
        payment_id: str

    class Claims:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @handles(Claim)
        async def claim(self, job: Claim) -> Result:
            self.seen.append(job.payment_id)
            return Result()

    return Claims()


class TestStartingAProcessByMessage:
    """F1: the id of the payment is the key and the id of the message, so a repeat starts nothing."""

    async def test_the_same_message_twice_starts_one_instance(
        self, engine, drawn, unique, accepted, claims, working, until
    ):
        await engine.deploy(drawn(unique, [("claim", f"{unique}.claim")], message=accepted.message_name))
        message = accepted(payment_id=f"p-{unique}")
        async with working(engine, handlers_of([claims])):
            assert await engine.publish(message) is Published.NEW
            assert await engine.publish(message) is Published.ALREADY_THERE
            await until(lambda: claims.seen)
            # And after the first instance has ended, when the correlation key alone would no longer stop it.
            await asyncio.sleep(0.5)
            assert await engine.publish(message) is Published.ALREADY_THERE
            await asyncio.sleep(0.5)
        assert claims.seen == [message.payment_id]

    async def test_thirty_at_once_start_one_instance(self, engine, drawn, unique, accepted, claims, working, until):
        await engine.deploy(drawn(unique, [("claim", f"{unique}.claim")], message=accepted.message_name))
        message = accepted(payment_id=f"p-{unique}")
        async with working(engine, handlers_of([claims])):
            answers = await asyncio.gather(*(engine.publish(message) for _ in range(30)))
            await until(lambda: claims.seen)
            await asyncio.sleep(0.5)
        assert answers.count(Published.NEW) == 1
        assert claims.seen == [message.payment_id]

    async def test_a_lost_answer_is_no_second_start(
        self, engine, flaky, flaky_engine, drawn, unique, accepted, claims, working, until
    ):
        await engine.deploy(drawn(unique, [("claim", f"{unique}.claim")], message=accepted.message_name))
        message = accepted(payment_id=f"p-{unique}")
        flaky.spoil("PublishMessage", StatusCode.DEADLINE_EXCEEDED, done=True)
        async with working(engine, handlers_of([claims])):
            assert await flaky_engine.publish(message) is Published.ALREADY_THERE
            await until(lambda: claims.seen)
            await asyncio.sleep(0.5)
        assert flaky.calls["PublishMessage"] == 2
        assert claims.seen == [message.payment_id]

    async def test_another_payment_is_another_instance(self, engine, drawn, unique, accepted, claims, working, until):
        await engine.deploy(drawn(unique, [("claim", f"{unique}.claim")], message=accepted.message_name))
        async with working(engine, handlers_of([claims])):
            for number in range(3):
                assert await engine.publish(accepted(payment_id=f"p{number}-{unique}")) is Published.NEW
            await until(lambda: len(claims.seen) == 3)
        assert sorted(claims.seen) == [f"p{number}-{unique}" for number in range(3)]


class TestPublishing:
    @pytest.mark.parametrize(
        "status",
        [
            StatusCode.RESOURCE_EXHAUSTED,
            StatusCode.UNAVAILABLE,
            StatusCode.INTERNAL,
            StatusCode.DEADLINE_EXCEEDED,
            StatusCode.UNKNOWN,
        ],
    )
    async def test_a_busy_or_lost_engine_is_asked_again(self, gateway, scripted_engine, accepted, status):
        gateway.answers["publish"].extend([status] * 3)
        assert await scripted_engine.publish(accepted(payment_id="p")) is Published.NEW
        assert gateway.count("publish") == 4
        sent = gateway.requests("publish")[-1]
        assert (sent.correlationKey, sent.messageId, sent.timeToLive) == ("p", "p", 24 * 3600 * 1000)

    async def test_an_engine_that_stays_away_is_unavailable_within_the_bound(self, accepted):
        async with open_engine(NOWHERE, publish_within=timedelta(seconds=0.5)) as engine:
            began = time.monotonic()
            with pytest.raises(Unavailable, match="publish accepted-"):
                await engine.publish(accepted(payment_id="p"))
            assert time.monotonic() - began < 1.5

    async def test_a_message_that_is_wrong_is_no_reason_to_wait(self, gateway, scripted_engine, accepted):
        gateway.answers["publish"].append(StatusCode.INVALID_ARGUMENT)
        with pytest.raises(InvalidRequest):
            await scripted_engine.publish(accepted(payment_id="p"))
        assert gateway.count("publish") == 1

    async def test_a_message_that_is_too_large_is_refused_before_it_is_sent(self, gateway, scripted_engine, accepted):
        with pytest.raises(InvalidRequest, match="at most 1000000"):
            await scripted_engine.publish(accepted(payment_id="p", repeat="x" * 1_000_000))
        assert gateway.count("publish") == 0

    async def test_the_unavailable_says_no_variable(self, accepted):
        async with open_engine(NOWHERE, publish_within=timedelta(seconds=0.1)) as engine:
            with pytest.raises(Unavailable) as caught:
                await engine.publish(accepted(payment_id="p-123", repeat="Juan"))
        assert "p-123" not in str(caught.value)
        assert "Juan" not in str(caught.value)


class TestDeploying:
    async def test_the_engine_names_what_it_has(self, engine, drawn, unique):
        deployment = await engine.deploy(drawn(unique, [("claim", f"{unique}.claim")]))
        (process,) = deployment.processes
        assert (process.id, process.version, process.source) == (unique, 1, f"{unique}.bpmn")
        assert process.key > 0

    async def test_the_same_picture_keeps_its_version_and_another_gets_the_next(self, engine, drawn, unique):
        first = await engine.deploy(drawn(unique, [("claim", "a.b")]))
        again = await engine.deploy(drawn(unique, [("claim", "a.b")]))
        other = await engine.deploy(drawn(unique, [("claim", "a.c")]))
        assert again.processes == first.processes
        assert other.processes[0].version == 2

    async def test_faults_in_a_picture_are_told_in_the_engines_words(self, engine, drawn, unique):
        broken = {name: text.replace(b' type="a.b"', b"") for name, text in drawn(unique, [("claim", "a.b")]).items()}
        with pytest.raises(InvalidRequest, match="claim") as caught:
            await engine.deploy(broken)
        assert f"{unique}.bpmn" in caught.value.detail
        assert "taskDefinition" in caught.value.detail

    async def test_a_decision_is_deployed_and_evaluated(self, engine, unique):
        decision_id = f"rail-{unique}"
        deployment = await engine.deploy({f"{decision_id}.dmn": DECISION.format(id=decision_id).encode()})
        assert deployment.decisions[0].id == decision_id
        assert await engine.evaluate(decision_id, {"on_us": True}) == "on-us"
        assert await engine.evaluate(decision_id, {"on_us": False}) == "stp"

    async def test_an_unknown_decision_is_refused(self, engine, unique):
        with pytest.raises(EngineRefused, match=unique) as caught:
            await engine.evaluate(unique, {})
        assert isinstance(caught.value, NotFound | InvalidRequest)


class TestHealth:
    async def test_a_working_engine_answers_the_probe(self, engine):
        await engine.ping()
        topology = await engine.topology()
        assert topology.healthy
        assert topology.version.startswith("8.5.")

    async def test_a_gateway_without_a_leader_is_not_ready(self, scripted_engine):
        with pytest.raises(Unavailable, match="0 of 1 partitions"):
            await scripted_engine.ping()

    async def test_an_engine_that_is_away_is_not_ready(self):
        async with open_engine(NOWHERE) as engine:
            with pytest.raises(Unavailable):
                await engine.topology(within=timedelta(seconds=0.3))
