"""The worker runtime: takes jobs from the engine, runs their handlers, tells the engine what became of them.

For each job type one stream, on which the engine pushes new jobs, and beside it one long poll, which fetches what was
made while nobody listened. Both wait for the same places (`max_running`): a full worker reads no further, gRPC's flow
control reaches the engine, and the jobs stay there. Nothing here gives up: streams and polls reconnect for ever, a
report is repeated until the job's deadline, and what cannot be reported the engine hands out again, as handlers expect.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog
from prometheus_client import Counter, Gauge, Histogram
from pydantic import Field
from pyzeebe.proto.gateway_pb2 import (
    ActivatedJob,
    ActivateJobsRequest,
    CompleteJobRequest,
    FailJobRequest,
    StreamActivatedJobsRequest,
    ThrowErrorRequest,
)

from hub.failpoint import failpoint
from hub.jobs import Handler, JobFacts
from hub.settings import Settings, prefixed
from hub.telemetry import logger
from hub.zeebe.calls import MOST_VARIABLES, RETRIES, gone, insist
from hub.zeebe.client import ZeebeEngine
from hub.zeebe.outcomes import Completed, Ending, Failed, Thrown, misfit, settle, stack, tries_left, unwritable
from hub.zeebe.pauses import between, source_pause
from hub.zeebe.slots import Slots

if TYPE_CHECKING:
    from pyzeebe.proto.gateway_pb2_grpc import GatewayAsyncStub as Gateway

log = logger(__name__)

JOBS: Final = Counter("payhub_jobs_total", "Jobs taken from the engine, by their end.", ("job_type", "outcome"))
SECONDS: Final = Histogram(
    "payhub_job_seconds",
    "Seconds from taking a job to the engine's word that it knows the outcome.",
    ("job_type",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
RUNNING: Final = Gauge("payhub_jobs_running", "Jobs whose handlers run now.")

_ENDS: Final = (
    "completed",
    "thrown",
    "failed",
    "incident",
    "late",  # somebody else had ended it, or its process is gone
    "refused",  # the engine will never take the answer; an incident
    "unreported",  # the engine could not be told in time; it hands the job out again
    "dropped",  # waited here until its time was nearly over
    "returned",  # given back by a worker that leaves
)

_METHODS: Final = {"complete": "CompleteJob", "throw": "ThrowError", "fail": "FailJob"}
_ENDED: Final = {"complete": "completed", "throw": "thrown", "fail": "failed"}
_NO_LONGER_OURS: Final = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION})
_NEVER: Final = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNKNOWN})


class WorkerSettings(Settings):
    """How a worker takes jobs."""

    model_config = prefixed("PAYHUB_WORKER_")

    max_running: int = Field(default=64, ge=1)
    """Jobs that run at once in this process, over all job types."""

    stream: bool = True
    """Let the engine push jobs. Without it jobs are only polled: slower, for gateways that cannot stream."""

    stream_lifetime: float = Field(default=3600, gt=0)
    """Seconds after which a stream is opened anew, so that streams spread over gateways that were added."""

    poll_batch: int = Field(default=32, ge=1)
    """Jobs that one poll fetches at most."""

    poll_wait: float = Field(default=30, gt=0)
    """Seconds a poll waits in the engine for a job to appear."""

    poll_interval: float = Field(default=1, ge=0.1)
    """Seconds between two polls that bring nothing, for gateways that answer at once instead of waiting."""

    drain: float = Field(default=20, ge=0)
    """Seconds that running jobs get to finish after the worker was told to stop."""


@dataclass(slots=True)
class _Taken:
    """A job in our hands, with the moment (of the monotonic clock) after which the engine gives it to somebody else."""

    served: _Served
    raw: ActivatedJob
    at: float
    deadline: float


class _Served:
    """What is known of one job type before the first job comes."""

    def __init__(self, handler: Handler, worker: str, settings: WorkerSettings) -> None:
        job = handler.job
        self.handler = handler
        self.job = job
        self.job_type = job.job_type
        self.timeout = job.timeout.total_seconds()
        self.reserve = min(2.0, self.timeout / 10)
        """Seconds kept at the end of a job's time to tell the engine."""
        self.enough = self.timeout / 4
        """A job that has less than this left when its turn comes is not begun."""
        self.parse = job.model_validate_json
        variables = job.variables()
        self.stream_request = StreamActivatedJobsRequest(
            type=self.job_type, worker=worker, timeout=int(self.timeout * 1000), fetchVariable=variables
        )
        self.poll_request = ActivateJobsRequest(
            type=self.job_type,
            worker=worker,
            timeout=int(self.timeout * 1000),
            maxJobsToActivate=settings.poll_batch,
            fetchVariable=variables,
            requestTimeout=int(settings.poll_wait * 1000),
        )
        self.taken = 0
        """Jobs taken so far; shows whether a stream that broke had worked."""
        self.seconds = SECONDS.labels(self.job_type)
        self.ended = {name: JOBS.labels(self.job_type, name) for name in _ENDS}
        self.taken_point = f"{self.job_type}.taken"
        self.handled_point = f"{self.job_type}.handled"
        self.reported_point = f"{self.job_type}.reported"


class Worker:
    """Does the jobs of `handlers`. Raises `ValueError` when there are none."""

    def __init__(
        self, engine: ZeebeEngine, handlers: Sequence[Handler], name: str, settings: WorkerSettings | None = None
    ) -> None:
        if not handlers:
            raise ValueError(f"worker {name} has no handlers: pass handlers_of([...])")
        self._gateway: Gateway = engine.gateway
        self._settings = settings or WorkerSettings()
        self._served = [_Served(handler, name, self._settings) for handler in handlers]
        self._slots = Slots(self._settings.max_running)
        self._running: set[asyncio.Task[None]] = set()
        self._idle_calls: set[Any] = set()
        """Calls that wait for the engine's next job; those that have a job in hand are not here."""
        self._stopping = asyncio.Event()
        self._unstarted: list[_Taken] = []
        self._tells_all = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)

    @property
    def running(self) -> int:
        """Jobs whose handlers run now."""
        return len(self._running)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then take nothing new, finish what runs, give back what is not begun, return."""
        sources = [asyncio.create_task(self._for_ever(self._poll, served)) for served in self._served]
        if self._settings.stream:
            sources += [asyncio.create_task(self._for_ever(self._stream, served)) for served in self._served]
        log.info("worker started", job_types=[served.job_type for served in self._served])
        try:
            await stop.wait()
            await self._leave(sources)
        finally:
            for task in (*sources, *self._running):
                task.cancel()
            await asyncio.gather(*sources, *self._running, return_exceptions=True)

    async def _leave(self, sources: list[asyncio.Task[None]]) -> None:
        self._stopping.set()
        self._slots.close()
        for call in list(self._idle_calls):
            call.cancel()
        await asyncio.wait(sources, timeout=2)
        await asyncio.gather(*(self._give_back(taken) for taken in self._unstarted))
        if self._running:
            await asyncio.wait(self._running, timeout=self._settings.drain)
        log.info("worker stopped", given_back=len(self._unstarted), still_running=len(self._running))

    # Where jobs come from.

    async def _for_ever(self, source: Callable[[_Served], Awaitable[None]], served: _Served) -> None:
        """Keep one stream or poll going, whatever happens to it, until the worker leaves."""
        failures = 0
        while not self._stopping.is_set():
            began, taken = time.monotonic(), served.taken
            interruption = await self._once(source, served)
            worked = served.taken > taken or time.monotonic() - began > 0.5
            if interruption is None or (interruption == "DEADLINE_EXCEEDED" and worked):
                failures = 0
                continue
            failures = 1 if worked else failures + 1
            name = source.__name__.strip("_")
            RETRIES.labels(name, interruption).inc()
            busy = interruption == "RESOURCE_EXHAUSTED"
            # An outage is told at its 2nd, 4th, 8th, ... failure: all types have it at once.
            if not busy and failures > 1 and failures.bit_count() == 1:
                log.warning("no jobs from the engine", source=name, job_type=served.job_type, code=interruption)
            await self._rest(source_pause(failures, busy=busy))

    async def _once(self, source: Callable[[_Served], Awaitable[None]], served: _Served) -> str | None:
        """Run a stream or a poll to its end; what interrupted it, or None when it got on well."""
        try:
            await source(served)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        except grpc.aio.AioRpcError as error:
            code: str = error.code().name
            return code
        except _StreamEnded:
            return "ENDED"
        except Exception as error:  # noqa: BLE001 - a defect must not end one job type while the process looks alive
            self._broken("taking jobs", served, error)
            return type(error).__name__
        return None

    def _broken(self, what: str, served: _Served, error: BaseException) -> None:
        log.error(f"{what} broke", job_type=served.job_type, error=type(error).__name__, stack=stack(error))

    async def _rest(self, seconds: float) -> None:
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _stream(self, served: _Served) -> None:
        lifetime = self._settings.stream_lifetime * between(0.9, 1.0)
        call = self._gateway.StreamActivatedJobs(served.stream_request, timeout=lifetime)
        self._idle_calls.add(call)
        try:
            while (raw := await call.read()) is not grpc.aio.EOF:
                taken = _take(served, raw)
                self._idle_calls.discard(call)
                if not await self._start(taken):
                    await self._empty(served, call)
                    return
                self._idle_calls.add(call)
        finally:
            self._idle_calls.discard(call)
            call.cancel()
        # The gateway ended the stream properly, as it does when it goes away.
        raise _StreamEnded

    async def _empty(self, served: _Served, call: Any) -> None:
        """Read what had already arrived on a stream that is about to be left, to give it back."""
        try:
            async with asyncio.timeout(0.5):
                while (raw := await asyncio.wait_for(call.read(), 0.05)) is not grpc.aio.EOF:
                    self._unstarted.append(_take(served, raw))
        except (TimeoutError, grpc.aio.AioRpcError):
            pass

    async def _poll(self, served: _Served) -> None:
        if not await self._slots.opening():
            return
        request = served.poll_request
        # A full worker still takes a handful at a time: one request per job would cost the engine more than the job.
        request.maxJobsToActivate = min(self._settings.poll_batch, max(1, self._slots.free, self._slots.size // 2))
        call = self._gateway.ActivateJobs(request, timeout=self._settings.poll_wait + 10)
        self._idle_calls.add(call)
        began, found = time.monotonic(), 0
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._idle_calls.discard(call)
                batch = [_take(served, raw) for raw in response.jobs]
                found += len(batch)
                for position, taken in enumerate(batch):
                    if not await self._start(taken):
                        self._unstarted.extend(batch[position + 1 :])
                        return
                self._idle_calls.add(call)
        finally:
            self._idle_calls.discard(call)
            call.cancel()
        if not found:
            await self._rest(self._settings.poll_interval - (time.monotonic() - began))

    async def _start(self, taken: _Taken) -> bool:
        """Wait for a place and begin. False: the worker is leaving, and the job is among those to give back."""
        if not await self._slots.take():
            self._unstarted.append(taken)
            return False
        taken.served.taken += 1
        task = asyncio.create_task(self._do(taken))
        self._running.add(task)
        RUNNING.inc()
        task.add_done_callback(self._done)
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        RUNNING.dec()
        self._slots.give()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("job runtime broke", error=type(error).__name__, stack=stack(error))

    # What is done with one.

    async def _do(self, taken: _Taken) -> None:
        served = taken.served
        left = taken.deadline - time.monotonic()
        if left < served.enough:
            served.ended["dropped"].inc()
            _bind(taken, None)
            log.warning("job waited too long and was left to the engine", seconds_left=round(left, 1))
            return
        failpoint(served.taken_point)
        ending = await _end_of(taken, left - served.reserve)
        failpoint(served.handled_point)
        outcome = await self._report(taken, ending)
        failpoint(served.reported_point)
        served.ended[outcome].inc()
        served.seconds.observe(time.monotonic() - taken.at)
        if outcome != "completed" or self._tells_all:
            _tell(outcome, ending)

    async def _report(self, taken: _Taken, ending: Ending) -> str:
        """Tell the engine, until it knows or the job is no longer ours. Returns the outcome as the metrics name it."""
        left = taken.deadline - time.monotonic()
        try:
            return await self._command(taken.raw.key, ending, max(0.5, left))
        except grpc.aio.AioRpcError as error:
            code = error.code()
        if code in _NO_LONGER_OURS:
            return "late"
        if code in _NEVER and not isinstance(ending, Failed):
            # It is too large, or no object, and will stay so: an operator must see that.
            told = await self._report(taken, Failed(0, timedelta(), f"the engine refused the answer: {code.name}"))
            return "refused" if told == "incident" else told
        log.warning("the engine could not be told", code=code.name)
        return "unreported"

    async def _command(self, key: int, ending: Ending, within: float) -> str:
        try:
            command, request = _request(key, ending)
        except Exception as error:  # noqa: BLE001 - a result that cannot be written is a defect like any other
            ending = unwritable(error)
            command, request = _request(key, ending)
        await insist(command, getattr(self._gateway, _METHODS[command]), request, within=within, done=gone)
        return _ENDED[command] if not isinstance(ending, Failed) or not ending.incident else "incident"

    async def _give_back(self, taken: _Taken) -> None:
        """Let the engine hand a job that was not begun to somebody else now, not when its time is over."""
        request = FailJobRequest(
            jobKey=taken.raw.key, retries=taken.raw.retries, errorMessage="given back: the worker is leaving"
        )
        taken.served.ended["returned"].inc()
        try:
            await insist("give-back", self._gateway.FailJob, request, within=5, done=gone)
        except grpc.aio.AioRpcError as error:
            log.warning("job not given back", job_key=taken.raw.key, code=error.code().name)


class _StreamEnded(Exception):
    """The gateway closed a stream in good order, as it does when it leaves."""


def _take(served: _Served, raw: ActivatedJob) -> _Taken:
    """Note when the job came and until when it is ours; the shorter of both clocks counts, because they may differ."""
    now = time.monotonic()
    return _Taken(served, raw, now, now + min(served.timeout, raw.deadline / 1000 - time.time()))


def _bind(taken: _Taken, payment_id: str | None) -> None:
    """Say in every log line of this job's task whose it is."""
    raw = taken.raw
    structlog.contextvars.bind_contextvars(
        job_type=taken.served.job_type,
        job_key=raw.key,
        process_instance_key=raw.processInstanceKey,
        element_id=raw.elementId,
        **({} if payment_id is None else {"payment_id": payment_id}),
    )


async def _end_of(taken: _Taken, within: float) -> Ending:
    served, raw = taken.served, taken.raw
    try:
        job = served.parse(raw.variables)
    except Exception as error:  # noqa: BLE001 - a validator may raise anything
        _bind(taken, None)
        return misfit(served.job, error)
    tries = tries_left(raw.retries, served.job.attempts)
    deadline = raw.deadline / 1000
    job.with_facts(JobFacts(raw.key, raw.processInstanceKey, raw.bpmnProcessId, raw.elementId, tries, deadline))
    _bind(taken, getattr(job, "payment_id", None))
    return await settle(served.handler, job, tries, within)


def _request(key: int, ending: Ending) -> tuple[str, CompleteJobRequest | ThrowErrorRequest | FailJobRequest]:
    """The command for an outcome. Raises what comes when its variables cannot be written."""
    match ending:
        case Completed():
            variables = ending.json()
            if len(variables) > MOST_VARIABLES:
                raise ValueError(f"{len(variables)} characters, at most {MOST_VARIABLES}")
            return "complete", CompleteJobRequest(jobKey=key, variables=variables)
        case Thrown():
            message = _plain(ending.message)
            thrown = ThrowErrorRequest(jobKey=key, errorCode=ending.code, errorMessage=message, variables=ending.json())
            return "throw", thrown
        case Failed():
            back_off = int(ending.back_off.total_seconds() * 1000)
            message = _plain(ending.message)
            failed = FailJobRequest(jobKey=key, retries=ending.retries, retryBackOff=back_off, errorMessage=message)
            return "fail", failed


def _plain(text: str) -> str:
    """Text that can be sent: half a character, as in a broken file name, cannot."""
    return text.encode("utf-8", "replace").decode()


def _tell(outcome: str, ending: Ending) -> None:
    """One line per job: quiet when it went well, loud when somebody must act. The job's identity is already bound."""
    match outcome, ending:
        case "completed", _:
            log.debug("job completed")
        case "thrown", Thrown():
            log.info("job rejected", code=ending.code)
        case "failed", Failed():
            again_in = round(ending.back_off.total_seconds(), 1)
            log.warning("job failed", reason=ending.message, tries_left=ending.tries_left, again_in=again_in)
        case "incident", Failed():
            trace = stack(ending.error) if ending.error is not None else ""
            log.error("job became an incident", reason=ending.message, stack=trace)
        case "late", _:
            log.info("job was no longer ours", ending=type(ending).__name__)
        case _:
            log.error("job could not be reported", outcome=outcome, ending=type(ending).__name__)
