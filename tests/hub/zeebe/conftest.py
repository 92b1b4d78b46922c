"""A scripted gateway for what the real engine does only under stress, and drawings for what it does every day."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import grpc
import pytest
from pyzeebe.proto import gateway_pb2 as pb
from pyzeebe.proto.gateway_pb2_grpc import GatewayServicer, add_GatewayServicer_to_server

from hub.settings import EngineSettings
from hub.zeebe.client import ZeebeEngine, open_engine
from hub.zeebe.refusals import NotFound
from hub.zeebe.worker import Worker, WorkerSettings


class ScriptedGateway(GatewayServicer):
    """A gateway without an engine behind it: hands out the jobs it is given, and answers as the script says."""

    def __init__(self) -> None:
        self.address = ""
        self.answers: dict[str, deque[grpc.StatusCode | None]] = defaultdict(deque)
        """Per command the statuses of the next answers; None, and an empty script, is success."""
        self.received: list[tuple[str, object]] = []
        self.to_push: dict[str, asyncio.Queue[pb.ActivatedJob]] = defaultdict(asyncio.Queue)
        """Jobs for the streams, by type."""
        self.to_poll: dict[str, asyncio.Queue[pb.ActivatedJob]] = defaultdict(asyncio.Queue)
        """Jobs for the polls, by type."""
        self._keys = itertools.count(1)

    def job(self, job_type: str, variables: str = "{}", retries: int = 3, seconds: float = 60) -> pb.ActivatedJob:
        return pb.ActivatedJob(
            key=next(self._keys),
            type=job_type,
            processInstanceKey=7,
            bpmnProcessId="a-process",
            elementId="a-task",
            customHeaders="{}",
            retries=retries,
            deadline=int((time.time() + seconds) * 1000),
            variables=variables,
        )

    def push(self, job: pb.ActivatedJob) -> None:
        self.to_push[job.type].put_nowait(job)

    def offer(self, job: pb.ActivatedJob) -> None:
        self.to_poll[job.type].put_nowait(job)

    def count(self, command: str) -> int:
        return sum(1 for name, _ in self.received if name == command)

    def requests(self, command: str) -> list:
        return [request for name, request in self.received if name == command]

    async def _answer(self, command: str, request: object, context: grpc.aio.ServicerContext) -> None:
        self.received.append((command, request))
        status = self.answers[command].popleft() if self.answers[command] else None
        if status is not None:
            await context.abort(status, "scripted")

    async def CompleteJob(self, request, context):
        await self._answer("complete", request, context)
        return pb.CompleteJobResponse()

    async def FailJob(self, request, context):
        await self._answer("fail", request, context)
        return pb.FailJobResponse()

    async def ThrowError(self, request, context):
        await self._answer("throw", request, context)
        return pb.ThrowErrorResponse()

    async def PublishMessage(self, request, context):
        await self._answer("publish", request, context)
        return pb.PublishMessageResponse(key=1)

    async def ResolveIncident(self, request, context):
        await self._answer("resolve", request, context)
        return pb.ResolveIncidentResponse()

    async def ModifyProcessInstance(self, request, context):
        await self._answer("modify", request, context)
        return pb.ModifyProcessInstanceResponse()

    async def Topology(self, request, context):
        await self._answer("topology", request, context)
        return pb.TopologyResponse(partitionsCount=1)

    async def StreamActivatedJobs(self, request, context):
        await self._answer(f"stream {request.type}", request, context)
        while True:
            job = await self.to_push[request.type].get()
            yield job

    async def ActivateJobs(self, request, context):
        await self._answer(f"poll {request.type}", request, context)
        waiting = self.to_poll[request.type]
        try:
            async with asyncio.timeout(request.requestTimeout / 1000):
                jobs = [await waiting.get()]
        except TimeoutError:
            return
        while len(jobs) < request.maxJobsToActivate and not waiting.empty():
            jobs.append(waiting.get_nowait())
        yield pb.ActivateJobsResponse(jobs=jobs)


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    server = grpc.aio.server()
    scripted = ScriptedGateway()
    add_GatewayServicer_to_server(scripted, server)
    scripted.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield scripted
    await server.stop(grace=None)


@pytest.fixture
async def scripted_engine(gateway: ScriptedGateway) -> AsyncIterator[ZeebeEngine]:
    async with open_engine(EngineSettings(address=gateway.address)) as engine:
        yield engine


@pytest.fixture
async def engine(zeebe_address: str) -> AsyncIterator[ZeebeEngine]:
    """The real engine."""
    async with open_engine(EngineSettings(address=zeebe_address)) as engine:
        yield engine


class FlakyGateway:
    """The real gateway with some answers replaced: before the engine has done the command, or after."""

    def __init__(self, gateway: object) -> None:
        self._gateway = gateway
        self._scripts: dict[str, deque[tuple[grpc.StatusCode, bool]]] = defaultdict(deque)
        self.calls: dict[str, int] = defaultdict(int)

    def spoil(self, command: str, status: grpc.StatusCode, times: int = 1, *, done: bool = False) -> None:
        self._scripts[command].extend([(status, done)] * times)

    def __getattr__(self, command: str) -> object:
        method = getattr(self._gateway, command)
        if command not in self._scripts:
            return method

        async def call(request: object, timeout: float) -> object:
            self.calls[command] += 1
            if not self._scripts[command]:
                return await method(request, timeout=timeout)
            status, done = self._scripts[command].popleft()
            if done:
                await method(request, timeout=timeout)
            raise grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), "scripted")

        return call


@pytest.fixture
def flaky(engine: ZeebeEngine) -> FlakyGateway:
    return FlakyGateway(engine.gateway)


@pytest.fixture
def flaky_engine(flaky: FlakyGateway) -> ZeebeEngine:
    return ZeebeEngine(flaky)


@pytest.fixture
def working() -> Callable:
    """`async with working(engine, handlers, max_running=3):` runs a worker beside the test, and stops it."""

    @asynccontextmanager
    async def run(engine: ZeebeEngine, handlers: Sequence, **settings: object) -> AsyncIterator[Worker]:
        stop = asyncio.Event()
        worker = Worker(engine, handlers, name="test", settings=WorkerSettings(**settings))
        running = asyncio.create_task(worker.run(stop))
        await asyncio.sleep(0)
        try:
            yield worker
        finally:
            stop.set()
            await running

    return run


@pytest.fixture
def until() -> Callable:
    """`await until(lambda: done)`; fails the test when it does not come true."""

    async def wait(condition: Callable[[], bool], seconds: float = 10) -> None:
        ends = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends, f"not within {seconds} s"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def unique() -> str:
    """A word of this test alone, for process ids, job types and keys on the shared engine."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def drawn() -> Callable[..., dict[str, bytes]]:
    """`drawn("pay", [("hold", "ams.hold")], refused=("hold", "tell", "channel.tell"))`: start, the tasks in a row, end.

    `refused` draws a catch-all error boundary on one task that leads over another task to its own end.
    """

    def draw(
        process_id: str,
        tasks: Sequence[tuple[str, str]],
        *,
        message: str = "",
        refused: tuple[str, str, str] | None = None,
        retries: int | None = None,
    ) -> dict[str, bytes]:
        ids = ["start", *(task for task, _ in tasks), "end"]
        flows = list(itertools.pairwise(ids))
        if refused is not None:
            flows += [("refused", refused[1]), (refused[1], "refused-end")]

        def ends(element: str) -> str:
            coming = "".join(f"<incoming>{a}-{b}</incoming>" for a, b in flows if b == element)
            return coming + "".join(f"<outgoing>{a}-{b}</outgoing>" for a, b in flows if a == element)

        def task(element: str, job_type: str) -> str:
            tries = f' retries="{retries}"' if retries else ""
            definition = f'<zeebe:taskDefinition type="{job_type}"{tries}/>'
            extension = f"<extensionElements>{definition}</extensionElements>"
            return f'<serviceTask id="{element}">{extension}{ends(element)}</serviceTask>'

        start = '<messageEventDefinition id="start-definition" messageRef="start-message"/>' if message else ""
        body = [f'<startEvent id="start">{ends("start")}{start}</startEvent>', *(task(*one) for one in tasks)]
        if refused is not None:
            # Thrown variables stay in the boundary event unless it maps them out.
            outputs = "".join(
                f'<zeebe:output source="={n}" target="{n}"/>' for n in ("outcome", "reason", "reason_detail")
            )
            mapped = f"<extensionElements><zeebe:ioMapping>{outputs}</zeebe:ioMapping></extensionElements>"
            caught = f'{mapped}{ends("refused")}<errorEventDefinition id="refused-definition"/>'
            body += [
                f'<boundaryEvent id="refused" attachedToRef="{refused[0]}">{caught}</boundaryEvent>',
                task(refused[1], refused[2]),
                f'<endEvent id="refused-end">{ends("refused-end")}</endEvent>',
            ]
        body.append(f'<endEvent id="end">{ends("end")}</endEvent>')
        body += [f'<sequenceFlow id="{a}-{b}" sourceRef="{a}" targetRef="{b}"/>' for a, b in flows]
        picture = (
            '<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" id="drawing" targetNamespace="test" '
            'xmlns:zeebe="http://camunda.org/schema/zeebe/1.0">'
            + (f'<message id="start-message" name="{message}"/>' if message else "")
            + f'<process id="{process_id}" isExecutable="true">{"".join(body)}</process></definitions>'
        )
        return {f"{process_id}.bpmn": picture.encode()}

    return draw


@pytest.fixture
def incident_of() -> Callable:
    """Resolves the incident of a job, found by trying: only exporters say its key, which follows the job's closely."""

    async def find(engine: ZeebeEngine, job_key: int, reach: int = 60) -> int:
        for key in range(job_key + 1, job_key + reach):
            try:
                await engine.operate.resolve_incident(key)
            except NotFound:
                continue
            return key
        raise AssertionError(f"no incident near job {job_key}")

    return find
