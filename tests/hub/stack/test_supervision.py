"""One part's life, with small real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from hub.stack.errors import PartFailed
from hub.stack.supervision import Launch, Part, PartState, SupervisedPart, end_leftovers, run_to_end

MakePart = Callable[..., SupervisedPart]


@pytest.fixture
async def part_running(tmp_path: Path) -> AsyncIterator[MakePart]:
    """Makes a part out of Python code. It counts as healthy once the code made the file `ready`."""
    made: list[SupervisedPart] = []

    def make(code: str, **more: object) -> SupervisedPart:
        async def launch() -> Launch:
            return Launch((sys.executable, "-c", code), dict(os.environ), tmp_path)

        async def probe() -> bool:
            return (tmp_path / "ready").exists()

        part = Part(name="part", kind="hub", port=0, version="1", launch=launch, probe=probe, **more)  # type: ignore[arg-type]
        supervised = SupervisedPart(part, tmp_path / "part.log", tmp_path / "part.json")
        made.append(supervised)
        return supervised

    yield make
    for part in made:
        await part.stop(by_force=True)


LIVES = "import pathlib, time; pathlib.Path('ready').touch(); time.sleep(100)"


async def eventually(true: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_a_part_is_started_until_healthy_and_stopped(part_running: MakePart):
    part = part_running(LIVES)
    await part.start()
    states = [part.state]
    assert part.memory_bytes() > 1_000_000
    pid = part.pid
    assert pid is not None
    await part.stop()
    assert not psutil.pid_exists(pid)
    assert [*states, part.state] == [PartState.HEALTHY, PartState.STOPPED]


async def test_a_part_that_ends_before_it_is_healthy_fails_with_its_last_words(part_running: MakePart):
    part = part_running("import sys; sys.exit('no such setting')")
    with pytest.raises(PartFailed, match="part ended with exit code 1 while starting") as caught:
        await part.start()
    assert "no such setting" in "\n".join(caught.value.last_lines)


async def test_a_part_that_never_gets_healthy_is_given_up_and_stopped(part_running: MakePart):
    part = part_running("import time; time.sleep(100)", startup_seconds=0.5)
    with pytest.raises(PartFailed, match="was not healthy after"):
        await part.start()
    assert part.pid is None


async def test_a_killed_part_is_restarted_and_counted(part_running: MakePart):
    part = part_running(LIVES)
    await part.start()
    first = part.pid
    part.kill()
    await eventually(lambda: part.restarts == 1 and part.state is PartState.HEALTHY)
    assert part.pid not in {None, first}


async def test_a_stopped_part_stays_stopped_until_started(part_running: MakePart):
    part = part_running(LIVES)
    await part.start()
    await part.stop()
    await asyncio.sleep(0.8)
    assert part.pid is None
    await part.start()
    assert part.state is PartState.HEALTHY


async def test_a_part_that_ignores_its_signal_is_killed_with_its_children(part_running: MakePart):
    part = part_running(
        "import pathlib, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen(['sleep', '100'])\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(100)",
        stop_seconds=0.3,
    )
    await part.start()
    assert part.pid is not None
    family = [psutil.Process(part.pid), *psutil.Process(part.pid).children()]
    assert len(family) == 2
    await part.stop()
    await eventually(lambda: not any(one.is_running() and one.status() != "zombie" for one in family))


async def test_what_a_killed_launcher_left_is_ended(tmp_path: Path, part_running: MakePart):
    part = part_running(LIVES)
    await part.start()
    assert part.pid is not None
    assert end_leftovers(tmp_path) == ("part",)
    assert end_leftovers(tmp_path) == ()


def test_a_process_number_that_was_given_to_somebody_else_is_left_alone(tmp_path: Path):
    (tmp_path / "part.json").write_text(f'{{"pid": {os.getpid()}, "create_time": 1.0}}')
    assert end_leftovers(tmp_path) == ()
    assert not (tmp_path / "part.json").exists()


async def test_a_failing_preparation_shows_what_it_printed(tmp_path: Path):
    launch = Launch((sys.executable, "-c", "import sys; sys.exit('disk on fire')"), dict(os.environ), tmp_path)
    with pytest.raises(PartFailed, match="cannot be prepared") as caught:
        await run_to_end("postgres", launch, tmp_path / "postgres.log")
    assert caught.value.last_lines[-1] == "disk on fire"


def test_a_part_dies_with_its_launcher(tmp_path: Path):
    program = """
import asyncio, os, pathlib, sys
from hub.stack.supervision import Launch, spawn
async def main():
    launch = Launch(("sleep", "100"), dict(os.environ), pathlib.Path("/"))
    print((await spawn(launch, 2)).pid, flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""
    launcher = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    child = psutil.Process(int(launcher.stdout.readline()))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    launcher.stdout.close()
    _, alive = psutil.wait_procs([child], timeout=5)
    assert not [one for one in alive if one.status() != "zombie"]
