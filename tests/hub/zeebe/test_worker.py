"""The worker on the real engine: jobs in, outcomes out, and the engine's own view of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from grpc import StatusCode

from hub.errors import Rejected, Unavailable
from hub.jobs import Job, Result, handlers_of, handles
from hub.transfer import Reason


class InsufficientFunds(Rejected):
    reason = Reason.INSUFFICIENT_FUNDS


class Held(Result):
    hold_id: str


@pytest.fixture
def desk(unique: str) -> Any:
    """A worker with one task that does what the test says, and one that tells what the first left in the process."""

    class Hold(Job[Held]):
        job_type: ClassVar[str] = f"{unique}.hold"
        rejections: ClassVar[tuple[type[Rejected], ...]] = (InsufficientFunds,)
        attempts: ClassVar[int] = 4
        backoff: ClassVar[timedelta] = timedelta(milliseconds=10)
        payment_id: str

    class Tell(Job[Result]):
        job_type: ClassVar[str] = f"{unique}.tell"
        payment_id: str
        hold_id: str | None = None
        outcome: str | None = None
        reason: str | None = None
        reason_detail: str | None = None

    class Desk:
        def __init__(self) -> None:
            self.held: list[Hold] = []
            self.told: list[Tell] = []
            self.at_once = self.most = 0
            self.act: Callable[[Hold], Exception | None] = lambda _: None
            self.seconds = 0.0

        @handles(Hold)
        async def hold(self, job: Hold) -> Held:
            self.held.append(job)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(self.seconds)
            self.at_once -= 1
            trouble = self.act(job)
            if trouble is not None:
                raise trouble
            return Held(hold_id=f"hold of {job.payment_id}")

        @handles(Tell)
        async def tell(self, job: Tell) -> Result:
            self.told.append(job)
            return Result()

    return Desk()


@pytest.fixture
def hold_then_tell(drawn: Any, unique: str) -> dict[str, bytes]:
    return drawn(unique, [("hold", f"{unique}.hold"), ("tell", f"{unique}.tell")])  # type: ignore[no-any-return]


@pytest.fixture
def hold_or_refused(drawn: Any, unique: str) -> dict[str, bytes]:
    refused = ("hold", "tell", f"{unique}.tell")
    return drawn(unique, [("hold", f"{unique}.hold")], refused=refused)  # type: ignore[no-any-return]


@pytest.mark.parametrize("stream", [True, False])
async def test_jobs_are_done_and_results_written(engine, hold_then_tell, unique, desk, working, until, stream):
    await engine.deploy(hold_then_tell)
    async with working(engine, handlers_of([desk]), stream=stream):
        for number in range(20):
            await engine.operate.create_instance(unique, {"payment_id": f"p{number}"})
        await until(lambda: len(desk.told) == 20)
    assert {job.hold_id for job in desk.told} == {f"hold of p{number}" for number in range(20)}
    assert len(desk.held) == 20


async def test_work_that_came_while_no_worker_was_there_is_done(engine, hold_then_tell, unique, desk, working, until):
    await engine.deploy(hold_then_tell)
    for number in range(50):
        await engine.operate.create_instance(unique, {"payment_id": f"p{number}"})
    async with working(engine, handlers_of([desk]), max_running=8):
        await until(lambda: len(desk.told) == 50)
    assert desk.most <= 8


async def test_a_backlog_and_new_work_are_both_served(engine, hold_then_tell, unique, desk, working, until):
    """P7: pushed jobs must not starve those that wait from before."""
    await engine.deploy(hold_then_tell)
    for number in range(30):
        await engine.operate.create_instance(unique, {"payment_id": f"old-{number}"})
    desk.seconds = 0.06
    async with working(engine, handlers_of([desk]), max_running=8):
        for number in range(60):
            await engine.operate.create_instance(unique, {"payment_id": f"new-{number}"})
        await until(lambda: len(desk.told) == 90, 20)
    last_of_the_backlog = max(n for n, job in enumerate(desk.held) if job.payment_id.startswith("old"))
    assert last_of_the_backlog < 80, "pushed jobs go first"


async def test_streams_keep_to_the_bound_on_the_real_engine(engine, hold_then_tell, unique, desk, working, until):
    await engine.deploy(hold_then_tell)
    desk.seconds = 0.05
    async with working(engine, handlers_of([desk]), max_running=3):
        await asyncio.gather(
            *(engine.operate.create_instance(unique, {"payment_id": f"p{number}"}) for number in range(30))
        )
        await until(lambda: len(desk.told) == 30)
    assert desk.most <= 3


async def test_a_refusal_takes_the_drawn_path_and_brings_its_reason(
    engine, hold_or_refused, unique, desk, working, until
):
    await engine.deploy(hold_or_refused)
    desk.act = lambda _: InsufficientFunds("12.50 are missing")
    async with working(engine, handlers_of([desk])):
        assert await engine.operate.run_instance(unique, {"payment_id": "p"}) == {
            "payment_id": "p",
            "outcome": "REJECTED",
            "reason": "insufficient-funds",
            "reason_detail": "12.50 are missing",
        }
    (told,) = desk.told
    assert (told.outcome, told.reason) == ("REJECTED", "insufficient-funds")


@pytest.mark.parametrize("drawn_retries", [None, 1, 7])
async def test_a_job_is_tried_as_often_as_its_class_says_and_again_after_an_operators_retry(
    engine, drawn, unique, desk, working, until, incident_of, drawn_retries
):
    await engine.deploy(drawn(unique, [("hold", f"{unique}.hold")], retries=drawn_retries))
    desk.act = lambda _: Unavailable("away")
    async with working(engine, handlers_of([desk])):
        await engine.operate.create_instance(unique, {"payment_id": "p"})
        await until(lambda: len(desk.held) == 4, 20)
        await asyncio.sleep(1)
        assert [job.facts.retries for job in desk.held] == [4, 3, 2, 1]
        job_key = desk.held[0].facts.key
        await engine.operate.update_retries(job_key, 1)
        await incident_of(engine, job_key)
        await until(lambda: len(desk.held) == 8, 20)
        await asyncio.sleep(0.5)
    assert [job.facts.retries for job in desk.held] == [4, 3, 2, 1] * 2
    assert {job.facts.key for job in desk.held} == {job_key}


async def test_trouble_that_passes_needs_nobody(engine, hold_then_tell, unique, desk, working, until):
    await engine.deploy(hold_then_tell)
    desk.act = lambda job: Unavailable("away") if job.facts.retries > 2 else None
    async with working(engine, handlers_of([desk])):
        await engine.operate.create_instance(unique, {"payment_id": "p"})
        await until(lambda: desk.told, 20)
    assert len(desk.held) == 3


@pytest.mark.parametrize(
    ("command", "status", "done"),
    [
        ("CompleteJob", StatusCode.RESOURCE_EXHAUSTED, False),
        ("CompleteJob", StatusCode.UNAVAILABLE, False),
        ("CompleteJob", StatusCode.INTERNAL, True),
        ("CompleteJob", StatusCode.DEADLINE_EXCEEDED, True),
        ("ThrowError", StatusCode.UNAVAILABLE, False),
        ("ThrowError", StatusCode.DEADLINE_EXCEEDED, True),
    ],
)
async def test_an_outcome_that_was_refused_or_whose_answer_was_lost_is_neither_lost_nor_doubled(
    engine, flaky, flaky_engine, hold_or_refused, unique, desk, working, until, command, status, done
):
    await engine.deploy(hold_or_refused)
    if command == "ThrowError":
        desk.act = lambda _: InsufficientFunds()
    flaky.spoil(command, status, times=1 if done else 4, done=done)
    async with working(flaky_engine, handlers_of([desk])):
        result = await engine.operate.run_instance(unique, {"payment_id": "p"})
    assert len(desk.held) == 1
    assert ("hold_id" in result) is (command == "CompleteJob")


async def test_an_answer_that_is_too_large_becomes_an_incident_and_not_a_loop(
    engine, drawn, unique, working, until, incident_of
):
    class Large(Result):
        text: str

    class Write(Job[Large]):
        job_type: ClassVar[str] = f"{unique}.write"

    class Writer:
        keys: ClassVar[list[int]] = []
        size = 5_000_000

        @handles(Write)
        async def write(self, job: Write) -> Large:
            self.keys.append(job.facts.key)
            return Large(text="x" * self.size)

    writer = Writer()
    await engine.deploy(drawn(unique, [("write", f"{unique}.write")]))
    async with working(engine, handlers_of([writer])):
        await engine.operate.create_instance(unique)
        await until(lambda: writer.keys)
        await asyncio.sleep(1)
        assert len(writer.keys) == 1
        writer.size = 1
        await engine.operate.update_retries(writer.keys[0], 1)
        await incident_of(engine, writer.keys[0])
        await until(lambda: len(writer.keys) == 2)


async def test_a_job_whose_process_was_cancelled_meanwhile_troubles_nobody(
    engine, hold_then_tell, unique, desk, working, until
):
    await engine.deploy(hold_then_tell)
    desk.seconds = 0.5
    async with working(engine, handlers_of([desk])) as worker:
        instance = await engine.operate.create_instance(unique, {"payment_id": "p"})
        await until(lambda: desk.held)
        await engine.operate.cancel_instance(instance.key)
        await until(lambda: worker.running == 0, 3)
    assert not desk.told


async def test_four_streams_that_end_every_second_are_still_alive_after_many_cycles(
    engine, drawn, unique, working, until
):
    """With pyzeebe's counter of ten a worker of four task types is dead, in silence, after some seconds of this."""
    done: list[str] = []

    def worker_for(number: int) -> object:
        class Step(Job[Result]):
            job_type: ClassVar[str] = f"{unique}.step{number}"

        class Steps:
            @handles(Step)
            async def step(self, job: Step) -> Result:
                done.append(job.job_type)
                return Result()

        return Steps()

    tasks = [(f"step{number}", f"{unique}.step{number}") for number in range(4)]
    await engine.deploy(drawn(unique, tasks))
    async with working(engine, handlers_of([worker_for(number) for number in range(4)]), stream_lifetime=1):
        await asyncio.sleep(8)
        for expected in range(4, 24, 4):
            await engine.operate.create_instance(unique)
            await until(lambda expected=expected: len(done) == expected, 5)
    assert done == [job_type for _, job_type in tasks] * 5


PROGRAM = """
import asyncio, sys
from typing import ClassVar
from hub.jobs import Job, Result, handlers_of, handles
from hub.process import stop_signal
from hub.settings import EngineSettings
from hub.telemetry import configure_logging
from hub.zeebe.client import open_engine
from hub.zeebe.worker import Worker, WorkerSettings

address, job_type, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])

class Slow(Job[Result]):
    job_type: ClassVar[str] = sys.argv[2]
    payment_id: str

class Desk:
    @handles(Slow)
    async def slow(self, job: Slow) -> Result:
        print("began", job.payment_id, flush=True)
        await asyncio.sleep(seconds)
        print("ended", job.payment_id, flush=True)
        return Result()

async def main() -> None:
    configure_logging("test")
    stop = stop_signal()
    async with open_engine(EngineSettings(address=address)) as engine:
        await Worker(engine, handlers_of([Desk()]), "program", WorkerSettings(max_running=2)).run(stop)

asyncio.run(main())
"""


class TestAProcessThatIsToldToLeave:
    @pytest.fixture
    def program(self, tmp_path: Path, zeebe_address: str, unique: str) -> Iterator[subprocess.Popen[str]]:
        path = tmp_path / "program.py"
        path.write_text(PROGRAM, encoding="utf-8")
        root = Path(__file__).parents[3]
        command = [sys.executable, str(path), zeebe_address, f"{unique}.slow", "1.0"]
        process = subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
        )
        yield process
        process.kill()
        process.wait()

    async def test_it_finishes_what_runs_gives_back_the_rest_and_ends_well(
        self, engine, drawn, unique, program, working, until
    ):
        await engine.deploy(drawn(unique, [("slow", f"{unique}.slow")]))
        for number in range(8):
            await engine.operate.create_instance(unique, {"payment_id": f"p{number}"})
        began = [await asyncio.to_thread(program.stdout.readline) for _ in range(2)]
        await asyncio.sleep(0.3)
        program.send_signal(signal.SIGTERM)
        rest, _ = await asyncio.to_thread(program.communicate, None, 10)
        assert program.returncode == 0
        assert [line.split()[0] for line in (*began, *rest.splitlines())] == ["began", "began", "ended", "ended"]

        class Slow(Job[Result]):
            job_type: ClassVar[str] = f"{unique}.slow"
            payment_id: str

        class Desk:
            done: ClassVar[list[str]] = []

            @handles(Slow)
            async def slow(self, job: Slow) -> Result:
                self.done.append(job.payment_id)
                return Result()

        left = time.monotonic()
        async with working(engine, handlers_of([Desk()])):
            await until(lambda: len(Desk.done) == 6, 10)
        assert time.monotonic() - left < 5, "long before the jobs' own time-out of 60 s"
        first = {line.split()[1] for line in began}
        assert first | set(Desk.done) == {f"p{number}" for number in range(8)}
        assert not first & set(Desk.done)
