"""Each known trap of pyzeebe's worker, and that our runtime does not have it. Against a scripted gateway.

This module has `from __future__ import annotations` on purpose: with pyzeebe it breaks the injection of jobs.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import ClassVar

import pytest
from grpc import StatusCode
from prometheus_client import REGISTRY
from pydantic import field_validator
from pyzeebe.proto.gateway_pb2 import StreamActivatedJobsRequest

from hub.errors import Unavailable
from hub.jobs import Job, Result, handlers_of, handles
from hub.telemetry import configure_logging
from hub.zeebe.outcomes import COUNTED
from hub.zeebe.worker import Worker, WorkerSettings


class Noted(Result):
    note: str


class Note(Job[Noted]):
    job_type: ClassVar[str] = "test.note"

    payment_id: str = "p-1"
    text: str = ""


class Other(Job[Result]):
    job_type: ClassVar[str] = "test.other"


class Notary:
    """Counts what it does; each job takes `seconds`."""

    def __init__(self, seconds: float = 0, error: Exception | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.done: list[Note] = []
        self.at_once = self.most = self.others = 0

    @handles(Note)
    async def note(self, job: Note) -> Noted:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
            self.done.append(job)
            return Noted(note=job.text.upper())
        finally:
            self.at_once -= 1

    @handles(Other)
    async def other(self, job: Other) -> Result:
        self.others += 1
        return Result()


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class TestReports:
    """pyzeebe sends the outcome once; when that fails the work is done again after the time-out."""

    @pytest.mark.parametrize(
        "status",
        [
            StatusCode.RESOURCE_EXHAUSTED,
            StatusCode.UNAVAILABLE,
            StatusCode.INTERNAL,
            StatusCode.DEADLINE_EXCEEDED,
            StatusCode.CANCELLED,
        ],
    )
    async def test_a_refused_completion_is_sent_again_and_the_work_is_done_once(
        self, gateway, scripted_engine, working, until, status
    ):
        before = metric("payhub_engine_retries_total", command="complete", code=status.name)
        notary = Notary()
        gateway.answers["complete"].extend([status] * 4)
        async with working(scripted_engine, handlers_of([notary])):
            gateway.push(gateway.job("test.note", '{"text": "a"}'))
            await until(lambda: gateway.count("complete") == 5)
        assert len(notary.done) == 1
        assert {request.variables for request in gateway.requests("complete")} == {'{"note":"A"}'}
        assert metric("payhub_engine_retries_total", command="complete", code=status.name) == before + 4

    async def test_a_refused_failure_is_sent_again(self, gateway, scripted_engine, working, until):
        gateway.answers["fail"].extend([StatusCode.UNAVAILABLE] * 3)
        async with working(scripted_engine, handlers_of([Notary(error=Unavailable("away"))])):
            gateway.push(gateway.job("test.note"))
            await until(lambda: gateway.count("fail") == 4)
        assert {request.retries for request in gateway.requests("fail")} == {COUNTED + Note.attempts - 1}

    async def test_not_found_after_a_repeat_means_that_the_first_got_through(
        self, gateway, scripted_engine, working, until
    ):
        before = metric("payhub_jobs_total", job_type="test.note", outcome="completed")
        gateway.answers["complete"].extend([StatusCode.DEADLINE_EXCEEDED, StatusCode.NOT_FOUND])
        async with working(scripted_engine, handlers_of([Notary()])):
            gateway.push(gateway.job("test.note"))
            await until(lambda: gateway.count("complete") == 2)
        assert metric("payhub_jobs_total", job_type="test.note", outcome="completed") == before + 1

    async def test_not_found_at_once_means_that_the_job_is_no_longer_ours(
        self, gateway, scripted_engine, working, until
    ):
        before = metric("payhub_jobs_total", job_type="test.note", outcome="late")
        gateway.answers["complete"].append(StatusCode.NOT_FOUND)
        async with working(scripted_engine, handlers_of([Notary()])):
            gateway.push(gateway.job("test.note"))
            await until(lambda: gateway.count("complete") == 1)
        assert gateway.count("complete") == 1
        assert gateway.count("fail") == 0
        assert metric("payhub_jobs_total", job_type="test.note", outcome="late") == before + 1

    async def test_reporting_ends_with_the_jobs_deadline(self, gateway, scripted_engine, working, until):
        class Short(Note):
            job_type: ClassVar[str] = "test.short"
            timeout: ClassVar[timedelta] = timedelta(seconds=1)

        class Writer:
            @handles(Short)
            async def short(self, job: Short) -> Noted:
                return Noted(note="")

        gateway.answers["complete"].extend([StatusCode.UNAVAILABLE] * 1000)
        async with working(scripted_engine, handlers_of([Writer()])) as worker:
            gateway.push(gateway.job("test.short", seconds=1))
            await until(lambda: gateway.count("complete") > 1)
            began = time.monotonic()
            await until(lambda: worker.running == 0, 3)
            assert time.monotonic() - began < 2
        assert metric("payhub_jobs_total", job_type="test.short", outcome="unreported") == 1

    async def test_an_answer_that_the_engine_never_takes_becomes_an_incident(
        self, gateway, scripted_engine, working, until
    ):
        gateway.answers["complete"].append(StatusCode.INVALID_ARGUMENT)
        async with working(scripted_engine, handlers_of([Notary()])):
            gateway.push(gateway.job("test.note"))
            await until(lambda: gateway.count("fail") == 1)
        assert gateway.requests("fail")[0].retries == 0
        assert "refused the answer: INVALID_ARGUMENT" in gateway.requests("fail")[0].errorMessage


class TestTakingJobs:
    """pyzeebe sleeps five seconds after any error, counts errors for life and then ends in silence."""

    async def test_a_busy_engine_is_asked_again_soon_but_not_without_pause(
        self, gateway, scripted_engine, working, until
    ):
        notary = Notary()
        gateway.answers["poll test.note"].extend([StatusCode.RESOURCE_EXHAUSTED] * 10)
        began = time.monotonic()
        async with working(scripted_engine, handlers_of([notary]), stream=False):
            gateway.offer(gateway.job("test.note"))
            await until(lambda: len(notary.done) == 1)
        # Ten pauses of 50 to 500 ms.
        assert 0.5 < time.monotonic() - began < 5
        assert gateway.count("poll test.note") <= 12

    async def test_a_gateway_that_answers_polls_at_once_is_not_asked_without_end(
        self, gateway, scripted_engine, working
    ):
        async with working(scripted_engine, handlers_of([Notary()]), stream=False, poll_wait=0.001, poll_interval=0.2):
            await asyncio.sleep(1)
        assert 2 <= gateway.count("poll test.note") <= 6

    @pytest.mark.parametrize(
        "status", [StatusCode.UNAVAILABLE, StatusCode.UNKNOWN, StatusCode.PERMISSION_DENIED, StatusCode.UNIMPLEMENTED]
    )
    async def test_a_stream_that_is_refused_is_opened_again_and_disturbs_no_other_type(
        self, gateway, scripted_engine, working, until, status
    ):
        notary = Notary()
        gateway.answers["stream test.note"].extend([status] * 2)
        async with working(scripted_engine, handlers_of([notary]), poll_wait=0.2):
            await until(lambda: gateway.count("stream test.other") == 1)
            gateway.push(gateway.job("test.other"))
            await until(lambda: notary.others == 1, 1)
            await until(lambda: gateway.count("stream test.note") == 3)

    async def test_streams_that_end_all_the_time_do_not_end_the_worker(self, gateway, scripted_engine, working, until):
        notary = Notary()
        async with working(scripted_engine, handlers_of([notary]), stream_lifetime=0.6) as worker:
            for cycle in range(1, 13):
                await until(lambda cycle=cycle: gateway.count("stream test.note") > cycle)
            assert worker.running == 0
            gateway.push(gateway.job("test.note"))
            await until(lambda: len(notary.done) == 1)

    async def test_a_stream_that_worked_before_it_broke_is_opened_again_at_once(
        self, gateway, scripted_engine, working, until
    ):
        notary = Notary()
        gateway.answers["stream test.note"].extend([StatusCode.UNAVAILABLE] * 4)
        async with working(scripted_engine, handlers_of([notary]), stream_lifetime=0.6):
            await until(lambda: gateway.count("stream test.note") == 5, 15)
            opened = time.monotonic()
            await until(lambda: gateway.count("stream test.note") >= 7)
            assert time.monotonic() - opened < 2

    async def test_polls_wait_in_the_engine_and_ask_for_exactly_the_jobs_variables(
        self, gateway, scripted_engine, working, until
    ):
        async with working(scripted_engine, handlers_of([Notary()]), poll_wait=30, max_running=5):
            await until(lambda: gateway.count("poll test.note") == 1 and gateway.count("stream test.note") == 1)
            await asyncio.sleep(0.3)
        poll, stream = gateway.requests("poll test.note")[0], gateway.requests("stream test.note")[0]
        assert gateway.count("poll test.note") == 1
        assert poll.requestTimeout == 30_000
        assert poll.maxJobsToActivate == 5
        assert list(poll.fetchVariable) == list(stream.fetchVariable) == ["payment_id", "text"]
        assert poll.timeout == stream.timeout == 60_000
        assert poll.worker == stream.worker == "test"

    async def test_a_defect_of_the_runtime_does_not_end_a_job_type(
        self, gateway, scripted_engine, working, until, monkeypatch
    ):
        notary, real = Notary(), scripted_engine.gateway.StreamActivatedJobs
        broken: list[str] = []

        def breaks_once(request: StreamActivatedJobsRequest, **options: object) -> object:
            if request.type == "test.note" and not broken:
                broken.append(request.type)
                raise RuntimeError("ours")
            return real(request, **options)

        monkeypatch.setattr(scripted_engine.gateway, "StreamActivatedJobs", breaks_once)
        async with working(scripted_engine, handlers_of([notary])):
            gateway.push(gateway.job("test.note"))
            await until(lambda: len(notary.done) == 1)
        assert broken


class TestConcurrency:
    """pyzeebe's streams ignore `max_running_jobs`, and its polls sleep five seconds when it is reached."""

    async def test_streams_keep_to_the_bound(self, gateway, scripted_engine, working, until):
        notary = Notary(seconds=0.02)
        async with working(scripted_engine, handlers_of([notary]), max_running=3):
            for _ in range(30):
                gateway.push(gateway.job("test.note"))
            await until(lambda: len(notary.done) == 30)
        assert notary.most == 3

    async def test_streams_and_polls_keep_to_one_bound_together(self, gateway, scripted_engine, working, until):
        notary = Notary(seconds=0.02)
        async with working(scripted_engine, handlers_of([notary]), max_running=4):
            for _ in range(20):
                gateway.push(gateway.job("test.note"))
                gateway.offer(gateway.job("test.note"))
            began = time.monotonic()
            await until(lambda: len(notary.done) == 40)
        assert notary.most == 4
        assert time.monotonic() - began < 2

    async def test_a_full_worker_leaves_the_jobs_in_the_engine(self, gateway, scripted_engine, working, until):
        notary = Notary(seconds=1)
        large = json.dumps({"text": "x" * 2000})
        async with working(scripted_engine, handlers_of([notary]), max_running=2):
            for _ in range(400):
                gateway.push(gateway.job("test.note", large))
            await until(lambda: notary.at_once == 2)
            await asyncio.sleep(0.5)
            left_in_engine = gateway.to_push["test.note"].qsize()
            notary.seconds = 0
            await until(lambda: len(notary.done) == 400)
        assert left_in_engine > 300

    async def test_a_job_that_waited_too_long_is_left_to_the_engine(self, gateway, scripted_engine, working, until):
        before = metric("payhub_jobs_total", job_type="test.note", outcome="dropped")
        notary = Notary()
        async with working(scripted_engine, handlers_of([notary])):
            gateway.push(gateway.job("test.note", seconds=10))
            gateway.push(gateway.job("test.note", '{"text": "fresh"}'))
            await until(lambda: len(notary.done) == 1)
        assert notary.done[0].text == "fresh"
        assert gateway.count("complete") == 1
        assert gateway.count("fail") == 0
        assert metric("payhub_jobs_total", job_type="test.note", outcome="dropped") == before + 1

    async def test_a_handler_is_interrupted_before_the_engine_gives_its_job_away(
        self, gateway, scripted_engine, working, until
    ):
        class Short(Note):
            job_type: ClassVar[str] = "test.brief"
            timeout: ClassVar[timedelta] = timedelta(seconds=1)

        class Writer:
            @handles(Short)
            async def short(self, job: Short) -> Noted:
                await asyncio.sleep(30)
                return Noted(note="")

        began = time.monotonic()
        async with working(scripted_engine, handlers_of([Writer()])):
            gateway.push(gateway.job("test.brief", seconds=1))
            await until(lambda: gateway.count("fail") == 1)
            assert 0.5 < time.monotonic() - began < 1
        failure = gateway.requests("fail")[0]
        assert failure.retries == COUNTED + Note.attempts - 1
        assert failure.errorMessage.startswith("Uncertain: no answer from the handler")


class TestOutcomes:
    """pyzeebe retries every error without a pause and cannot fail a job for good."""

    async def test_a_defect_is_failed_with_no_retries_left(self, gateway, scripted_engine, working, until):
        async with working(scripted_engine, handlers_of([Notary(error=ZeroDivisionError("by zero"))])):
            gateway.push(gateway.job("test.note", retries=3))
            await until(lambda: gateway.count("fail") == 1)
        failure = gateway.requests("fail")[0]
        assert (failure.retries, failure.retryBackOff) == (0, 0)
        assert failure.errorMessage.startswith("ZeroDivisionError: by zero at test_worker_traps.py:")

    async def test_trouble_comes_back_after_a_pause(self, gateway, scripted_engine, working, until):
        async with working(scripted_engine, handlers_of([Notary(error=Unavailable("away"))])):
            gateway.push(gateway.job("test.note", retries=COUNTED + 7))
            await until(lambda: gateway.count("fail") == 1)
        failure = gateway.requests("fail")[0]
        assert failure.retries == COUNTED + 6
        assert failure.retryBackOff >= 250 * 2**3

    async def test_variables_that_do_not_fit_are_an_incident_that_names_the_field(
        self, gateway, scripted_engine, working, until
    ):
        notary = Notary()
        async with working(scripted_engine, handlers_of([notary])):
            gateway.push(gateway.job("test.note", '{"text": {"secret": "646180157000000004"}}'))
            await until(lambda: gateway.count("fail") == 1)
        failure = gateway.requests("fail")[0]
        assert failure.retries == 0
        assert failure.errorMessage == "the variables do not fit Note: text (string type)"
        assert not notary.done

    async def test_amounts_and_times_in_a_result_reach_the_engine(self, gateway, scripted_engine, working, until):
        class Priced(Result):
            price: Decimal
            at: datetime
            day: date

        class Price(Job[Priced]):
            job_type: ClassVar[str] = "test.price"

        class Pricer:
            @handles(Price)
            async def price(self, job: Price) -> Priced:
                return Priced(price=Decimal("1.10"), at=datetime(2026, 1, 2, tzinfo=UTC), day=date(2026, 1, 2))

        async with working(scripted_engine, handlers_of([Pricer()])):
            gateway.push(gateway.job("test.price"))
            await until(lambda: gateway.count("complete") == 1)
        written = json.loads(gateway.requests("complete")[0].variables)
        assert written == {"price": "1.10", "at": "2026-01-02T00:00:00Z", "day": "2026-01-02"}

    async def test_an_answer_that_cannot_be_written_is_an_incident_and_not_a_loop(
        self, gateway, scripted_engine, working, until
    ):
        class Odd(Result):
            text: str

        class Strange(Job[Odd]):
            job_type: ClassVar[str] = "test.strange"
            half: bool

        class Strangers:
            @handles(Strange)
            async def strange(self, job: Strange) -> Odd:
                return Odd(text="half a character: \ud83d") if job.half else Odd.model_construct(text=object())

        async with working(scripted_engine, handlers_of([Strangers()])):
            for half in ("true", "false"):
                gateway.push(gateway.job("test.strange", f'{{"half": {half}}}'))
            await until(lambda: gateway.count("fail") == 2)
        assert {failure.retries for failure in gateway.requests("fail")} == {0}
        for failure in gateway.requests("fail"):
            assert failure.errorMessage.startswith("the answer cannot be written into the process: ")
            assert "half a character" not in failure.errorMessage

    async def test_a_validator_that_breaks_is_an_incident(self, gateway, scripted_engine, working, until):
        class Checked(Job[Result]):
            job_type: ClassVar[str] = "test.checked"
            amount: int

            @field_validator("amount")
            @classmethod
            def breaks(cls, amount: int) -> int:
                raise KeyError(amount)

        class Checkers:
            @handles(Checked)
            async def checked(self, job: Checked) -> Result:
                return Result()

        async with working(scripted_engine, handlers_of([Checkers()])):
            gateway.push(gateway.job("test.checked", '{"amount": 4711}'))
            await until(lambda: gateway.count("fail") == 1)
        (failure,) = gateway.requests("fail")
        assert (failure.retries, failure.errorMessage) == (0, "the variables do not fit Checked: KeyError")

    async def test_a_handler_knows_what_the_engine_knows_of_its_job(self, gateway, scripted_engine, working, until):
        notary = Notary()
        job = gateway.job("test.note", retries=COUNTED + 4)
        async with working(scripted_engine, handlers_of([notary])):
            gateway.push(job)
            await until(lambda: len(notary.done) == 1)
        facts = notary.done[0].facts
        assert (facts.key, facts.process_instance_key, facts.element_id) == (job.key, 7, "a-task")
        assert facts.retries == 4
        assert 0 < facts.deadline - time.time() <= 60


class TestLogs:
    """pyzeebe logs whole jobs, names and accounts included."""

    @pytest.fixture
    def written(self, monkeypatch) -> Iterator[io.StringIO]:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
        configure_logging("test", "DEBUG")
        yield stream
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)

    @pytest.mark.parametrize(
        "error", [None, Unavailable("away"), RuntimeError("no place for Juan Perez"), KeyError("Juan Perez")]
    )
    async def test_no_variable_value_is_written_however_a_job_ends(
        self, gateway, scripted_engine, working, until, written, error
    ):
        variables = '{"payment_id": "p-77", "text": "Juan Perez"}'
        async with working(scripted_engine, handlers_of([Notary(error=error)])):
            gateway.push(gateway.job("test.note", variables))
            gateway.push(gateway.job("test.note", '{"payment_id": 5, "text": ["Juan Perez"]}'))
            await until(lambda: gateway.count("fail") + gateway.count("complete") == 2)
            await asyncio.sleep(0.05)
        text = written.getvalue()
        assert "Juan" not in text
        assert "JUAN" not in text
        about = [json.loads(line) for line in text.splitlines() if '"job_key": 1,' in line]
        assert about
        for line in about:
            assert line["payment_id"] == "p-77"
            assert line["process_instance_key"] == 7
            assert line["job_type"] == "test.note"


class TestLeaving:
    """pyzeebe drains while new jobs arrive, and forgets those it had not begun."""

    async def test_what_runs_is_finished_and_what_has_not_begun_is_given_back(self, gateway, scripted_engine, until):
        notary, stop = Notary(seconds=0.5), asyncio.Event()
        worker = Worker(scripted_engine, handlers_of([notary]), "test", WorkerSettings(max_running=2))
        running = asyncio.create_task(worker.run(stop))
        for _ in range(8):
            gateway.push(gateway.job("test.note", retries=COUNTED + 5))
        await until(lambda: notary.at_once == 2 and gateway.to_push["test.note"].empty())
        stop.set()
        began = time.monotonic()
        await running
        assert time.monotonic() - began < 2
        assert gateway.count("complete") == 2
        returned = gateway.requests("fail")
        assert len(returned) == 6
        assert {(request.retries, request.retryBackOff) for request in returned} == {(COUNTED + 5, 0)}
        assert not {request.jobKey for request in returned} & {r.jobKey for r in gateway.requests("complete")}

    async def test_a_polled_batch_is_given_back_too(self, gateway, scripted_engine, until):
        notary, stop = Notary(seconds=0.5), asyncio.Event()
        settings = WorkerSettings(max_running=1, stream=False)
        running = asyncio.create_task(Worker(scripted_engine, handlers_of([notary]), "test", settings).run(stop))
        for _ in range(2):
            gateway.offer(gateway.job("test.note"))
        await until(lambda: notary.at_once == 1)
        stop.set()
        await running
        assert gateway.count("complete") == 1
        assert gateway.count("complete") + gateway.count("fail") + gateway.to_poll["test.note"].qsize() == 2

    async def test_leaving_is_bounded(self, gateway, scripted_engine, until):
        notary, stop = Notary(seconds=30), asyncio.Event()
        settings = WorkerSettings(drain=0.3)
        running = asyncio.create_task(Worker(scripted_engine, handlers_of([notary]), "test", settings).run(stop))
        gateway.push(gateway.job("test.note"))
        await until(lambda: notary.at_once == 1)
        stop.set()
        began = time.monotonic()
        await running
        assert 0.3 <= time.monotonic() - began < 1.5
        assert notary.at_once == 0

    async def test_an_idle_worker_leaves_at_once(self, gateway, scripted_engine, until):
        stop = asyncio.Event()
        running = asyncio.create_task(Worker(scripted_engine, handlers_of([Notary()]), "test").run(stop))
        await until(lambda: gateway.count("stream test.note") == 1)
        stop.set()
        began = time.monotonic()
        await running
        assert time.monotonic() - began < 0.5


def test_a_worker_without_handlers_is_refused(scripted_engine):
    with pytest.raises(ValueError, match="no handlers"):
        Worker(scripted_engine, [], "empty")
