"""The engine is killed under a running worker, and comes back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from hub.errors import Unavailable
from hub.jobs import Job, Result, handlers_of, handles
from hub.messages import Message
from hub.settings import EngineSettings
from hub.stack.control import StackControl
from hub.stack.state import load_state
from hub.zeebe.client import ZeebeEngine, open_engine

pytestmark = pytest.mark.stack


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Path]:
    """An engine of this test alone, because it is killed."""
    command = [sys.executable, "-m", "hub.stack"]
    choices = ["--detach", "--free-ports", "--profile", "barebone", "--bound-to", str(os.getpid())]
    folder = tmp_path / "own"
    started = subprocess.run(
        [*command, "up", *choices, "--data-dir", str(folder)], check=False, text=True, capture_output=True
    )
    assert started.returncode == 0, started.stderr
    yield folder
    subprocess.run([*command, "down", "--data-dir", str(folder)], check=True)


async def publish_for_ever(engine: ZeebeEngine, message: Message) -> None:
    while True:
        try:
            await engine.publish(message)
        except Unavailable:
            continue
        return


async def test_a_worker_survives_the_engine_being_killed_and_nothing_is_lost_or_started_twice(
    own_stack, drawn, unique, working, until
):
    state = load_state(own_stack)
    assert state is not None
    paid = 150

    class Accepted(Message):
        message_name: ClassVar[str] = f"accepted-{unique}"
        payment_id: str

        @property
        def correlation_key(self) -> str:
            return self.payment_id

        @property
        def message_id(self) -> str:
            return self.payment_id

    class Pay(Job[Result]):
        job_type: ClassVar[str] = f"{unique}.pay"
        payment_id: str

    class Tell(Job[Result]):
        job_type: ClassVar[str] = f"{unique}.tell"
        payment_id: str

    class Desk:
        def __init__(self) -> None:
            self.paid: list[tuple[str, int]] = []
            self.told: set[tuple[str, int]] = set()

        @handles(Pay)
        async def pay(self, job: Pay) -> Result:
            self.paid.append((job.payment_id, job.facts.process_instance_key))
            await asyncio.sleep(0.02)
            return Result()

        @handles(Tell)
        async def tell(self, job: Tell) -> Result:
            self.told.add((job.payment_id, job.facts.process_instance_key))
            return Result()

    desk = Desk()
    async with open_engine(EngineSettings(address=state.address("zeebe"))) as engine:
        tasks = [("pay", Pay.job_type), ("tell", Tell.job_type)]
        await engine.deploy(drawn(unique, tasks, message=Accepted.message_name))
        async with working(engine, handlers_of([desk])):
            publishing = [
                asyncio.create_task(publish_for_ever(engine, Accepted(payment_id=f"p{number}")))
                for number in range(paid)
            ]
            await until(lambda: len(desk.told) > paid // 5, 90)
            await asyncio.to_thread(StackControl(own_stack).kill_part, "zeebe")
            before = len(desk.told)
            await asyncio.gather(*publishing)
            # Jobs that were in a handler's hands at the kill come back at once or after their time-out of a minute.
            await until(lambda: len(desk.told) >= paid, 150)
            began = time.monotonic()
            await publish_for_ever(engine, Accepted(payment_id="after"))
            await until(lambda: len(desk.told) == paid + 1, 10)
            assert time.monotonic() - began < 10
    assert before < paid, "the engine was killed while payments ran"
    wanted = {f"p{number}" for number in range(paid)} | {"after"}
    assert {payment for payment, _ in desk.told} == wanted
    assert len(desk.told) == len(wanted), "one process instance for each payment"
    assert {payment for payment, _ in desk.paid} == wanted
