"""B3: what our worker runtime costs, against pyzeebe as it comes and against a bare gRPC loop that does nothing else.

    python -m benchmarks.b3_worker_runtime [--address HOST:PORT] [--json]

Processes of one task with few open, and of six tasks (a payment's length) with many, on the real engine; each kind of
worker in a process of its own, in turns; ratios are made inside a round and the median is told. `bare` is the limit: a
stream, an answer, no bound, no checks, no repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal

import psutil
import uvloop
from pyzeebe import ZeebeWorker, create_insecure_channel
from pyzeebe.proto.gateway_pb2 import CompleteJobRequest, StreamActivatedJobsRequest

from hub.jobs import Job, Result, handlers_of, handles
from hub.settings import EngineSettings
from hub.telemetry import configure_logging
from hub.zeebe.channel import open_gateway
from hub.zeebe.client import ZeebeEngine, open_engine
from hub.zeebe.worker import Worker

Kind = Literal["hub", "pyzeebe", "pyzeebe-streams", "bare"]
KINDS: Final[tuple[Kind, ...]] = ("bare", "hub", "pyzeebe", "pyzeebe-streams")
STEPS: Final = 6
AT_ONCE: Final = 20
MANY: Final = 50
PATIENCE: Final = timedelta(minutes=3)
VARIABLES: Final = {"payment_id": "0b5e3c3e-6f0a-4a39-9f0a-5d1f0f2d7a10", "tenant_id": "tenant-1", "amount": 123450}


@dataclass(frozen=True)
class Round:
    """One worker's turn."""

    kind: Kind
    per_second: float
    """One-task processes that ended per second, `AT_ONCE` open."""
    six_per_second: float
    """Six-task processes that ended per second, `MANY` open: enough for the engine to refuse requests."""
    cpu_ms: float
    """Processor time of the worker's process for one job, milliseconds."""
    p50_ms: float
    """Six tasks in a row at a low rate, from the request to the result."""
    p99_ms: float


def _picture(process_id: str, job_types: list[str]) -> bytes:
    ids = ["start", *(f"step-{n}" for n in range(len(job_types))), "end"]
    flows = list(itertools.pairwise(ids))

    def ends(element: str) -> str:
        incoming = "".join(f"<incoming>{a}-to-{b}</incoming>" for a, b in flows if b == element)
        return incoming + "".join(f"<outgoing>{a}-to-{b}</outgoing>" for a, b in flows if a == element)

    tasks = "".join(
        f'<serviceTask id="{element}"><extensionElements><zeebe:taskDefinition type="{job_type}"/></extensionElements>'
        f"{ends(element)}</serviceTask>"
        for element, job_type in zip(ids[1:], job_types, strict=False)
    )
    arrows = "".join(f'<sequenceFlow id="{a}-to-{b}" sourceRef="{a}" targetRef="{b}"/>' for a, b in flows)
    return (
        '<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" id="drawing" targetNamespace="bench" '
        f'xmlns:zeebe="http://camunda.org/schema/zeebe/1.0"><process id="{process_id}" isExecutable="true">'
        f'<startEvent id="start">{ends("start")}</startEvent>{tasks}<endEvent id="end">{ends("end")}</endEvent>'
        f"{arrows}</process></definitions>"
    ).encode()


def _job_types(prefix: str) -> list[str]:
    return [f"{prefix}.step-{n}" for n in range(STEPS)]


# The four workers. Each takes three variables, and writes one.


async def _hub(address: str, prefix: str, stop: asyncio.Event) -> None:
    class Done(Result):
        done: bool

    def step(number: int) -> object:
        class Step(Job[Done]):
            job_type: ClassVar[str] = _job_types(prefix)[number]
            payment_id: str
            tenant_id: str
            amount: int

        class Steps:
            @handles(Step)
            async def step(self, _: Step) -> Done:
                return Done(done=True)

        return Steps()

    configure_logging("bench")
    async with open_engine(EngineSettings(address=address)) as engine:
        await Worker(engine, handlers_of([step(n) for n in range(STEPS)]), "hub").run(stop)


async def _pyzeebe(address: str, prefix: str, stop: asyncio.Event, *, streams: bool = False) -> None:
    worker = ZeebeWorker(create_insecure_channel(address), stream_enabled=streams)

    async def step(payment_id: str, tenant_id: str, amount: int) -> dict[str, bool]:  # noqa: ARG001 - fetched by name
        return {"done": True}

    for job_type in _job_types(prefix):
        worker.task(task_type=job_type)(step)  # type: ignore[arg-type]  # no annotation fits it
    working = asyncio.create_task(worker.work())
    await stop.wait()
    working.cancel()


async def _bare(address: str, prefix: str, stop: asyncio.Event) -> None:
    running: set[asyncio.Task[None]] = set()
    async with open_gateway(EngineSettings(address=address)) as gateway:

        async def complete(key: int, variables: str) -> None:
            json.loads(variables)
            await gateway.CompleteJob(CompleteJobRequest(jobKey=key, variables='{"done":true}'))

        async def stream(job_type: str) -> None:
            names = list(VARIABLES)
            request = StreamActivatedJobsRequest(type=job_type, worker="bare", timeout=60_000, fetchVariable=names)
            async for job in gateway.StreamActivatedJobs(request):
                task = asyncio.create_task(complete(job.key, job.variables))
                running.add(task)
                task.add_done_callback(running.discard)

        streams = [asyncio.create_task(stream(job_type)) for job_type in _job_types(prefix)]
        await stop.wait()
        for task in streams:
            task.cancel()


_WORKERS: Final[dict[str, Callable[[str, str, asyncio.Event], Awaitable[None]]]] = {
    "hub": _hub,
    "pyzeebe": _pyzeebe,
    "pyzeebe-streams": lambda address, prefix, stop: _pyzeebe(address, prefix, stop, streams=True),
    "bare": _bare,
}


async def _serve(kind: str, address: str, prefix: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().call_later(1, print, "ready")
    await _WORKERS[kind](address, prefix, stop)


# The measuring side.


async def _many(engine: ZeebeEngine, process_id: str, count: int, at_once: int) -> float:
    """Processes per second, `at_once` of them open."""
    left = iter(range(count))

    async def one_after_another() -> None:
        for _ in left:
            await engine.operate.run_instance(process_id, VARIABLES, PATIENCE)

    began = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return count / (time.perf_counter() - began)


async def _at_a_rate(engine: ZeebeEngine, process_id: str, count: int, rate: float) -> list[float]:
    async def one(number: int) -> float:
        await asyncio.sleep(number / rate)
        began = time.perf_counter()
        await engine.operate.run_instance(process_id, VARIABLES, PATIENCE)
        return (time.perf_counter() - began) * 1000

    return sorted(await asyncio.gather(*(one(number) for number in range(count))))


async def _turn(engine: ZeebeEngine, address: str, kind: Kind, prefix: str, count: int) -> Round:
    command = [sys.executable, "-m", "benchmarks.b3_worker_runtime", "--serve", kind, address, prefix]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        await _many(engine, f"{prefix}-six", 10, 2)
        await _many(engine, f"{prefix}-one", 100, AT_ONCE)
        usage = psutil.Process(process.pid)
        before = usage.cpu_times()
        per_second = await _many(engine, f"{prefix}-one", count, AT_ONCE)
        after = usage.cpu_times()
        six_per_second = await _many(engine, f"{prefix}-six", count // 5, MANY)
        latencies = await _at_a_rate(engine, f"{prefix}-six", 60, 5)
    finally:
        process.terminate()
        await process.wait()
    used = after.user + after.system - before.user - before.system
    p99 = latencies[int(len(latencies) * 0.99)]
    return Round(kind, per_second, six_per_second, used * 1000 / count, statistics.median(latencies), p99)


async def measure(address: str, *, rounds: int, count: int) -> list[Round]:
    """`rounds` times each kind in turn; the order turns round too."""
    prefix = f"b3-{uuid.uuid4().hex[:8]}"
    async with open_engine(EngineSettings(address=address)) as engine:
        await engine.deploy(
            {
                f"{prefix}-one.bpmn": _picture(f"{prefix}-one", _job_types(prefix)[:1]),
                f"{prefix}-six.bpmn": _picture(f"{prefix}-six", _job_types(prefix)),
            }
        )
        found = []
        for turn in range(rounds):
            for kind in KINDS if turn % 2 == 0 else reversed(KINDS):
                found.append(await _turn(engine, address, kind, prefix, count))
                print(
                    f"round {turn + 1}: {kind:16} {found[-1].per_second:7.1f}/s {found[-1].six_per_second:6.1f}/s",
                    file=sys.stderr,
                )
    return found


BOUNDS: Final = {("pyzeebe", "six_per_second"): 1.3, ("bare", "per_second"): 0.9, ("bare", "six_per_second"): 0.9}
"""What our ratio must not fall below."""


def summary(found: list[Round]) -> dict[str, Any]:
    """Medians for each kind, and the ratios of ours to the others' with the bound each must keep."""
    by_kind = {kind: [one for one in found if one.kind == kind] for kind in KINDS}

    def ratio(to: Kind, field: str) -> float:
        pairs = zip(by_kind["hub"], by_kind[to], strict=True)
        ratios: list[float] = [getattr(ours, field) / getattr(theirs, field) for ours, theirs in pairs]
        return round(statistics.median(ratios), 2)

    fields = ("per_second", "six_per_second", "cpu_ms", "p50_ms", "p99_ms")
    medians = {
        kind: {field: round(statistics.median(getattr(one, field) for one in turns), 2) for field in fields}
        for kind, turns in by_kind.items()
    }
    return {
        "median": medians,
        "ratios": [
            {"of": "hub", "to": to, "what": what, "median": ratio(to, what), "at_least": BOUNDS.get((to, what))}
            for to in KINDS
            if to != "hub"
            for what in ("per_second", "six_per_second")
        ],
        "rounds": [asdict(one) for one in found],
    }


def _print(told: dict[str, Any]) -> None:
    print(f"{'worker':16} {'one task/s':>10} {'six tasks/s':>11} {'cpu ms/job':>11} {'p50 ms':>8} {'p99 ms':>8}")
    for kind, row in told["median"].items():
        speeds = f"{row['per_second']:10.1f} {row['six_per_second']:11.1f}"
        print(f"{kind:16} {speeds} {row['cpu_ms']:11.2f} {row['p50_ms']:8.1f} {row['p99_ms']:8.1f}")
    for ratio in told["ratios"]:
        bound = f" (at least {ratio['at_least']})" if ratio["at_least"] else ""
        what = {"per_second": "one task", "six_per_second": "six tasks"}[ratio["what"]]
        print(f"hub to {ratio['to']}, {what}: {ratio['median']}{bound}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default=EngineSettings().address)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="one-task processes in each turn")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "ADDRESS", "PREFIX"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        uvloop.run(_serve(*given.serve))
        return
    found = uvloop.run(measure(given.address, rounds=given.rounds, count=given.count))
    told = summary(found)
    if given.json:
        print(json.dumps(told))
    else:
        _print(told)


if __name__ == "__main__":
    main()
