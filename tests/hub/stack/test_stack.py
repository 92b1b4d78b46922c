"""Whole stacks with the real servers, each in a folder and on ports of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from kafka import KafkaConsumer
from pyzeebe import ZeebeClient, create_insecure_channel
from pyzeebe.errors import MessageAlreadyExistsError

from hub.stack.control import StackControl, StackStatus
from hub.stack.errors import StackError
from hub.stack.state import Profile, StackState, load_state, new_state, save_state

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

LARGE = 3_000_000
"""Bytes of a variable: more than a message of Kafka may have unless it is told otherwise."""

PROGRAM = [sys.executable, str(Path(__file__).with_name("example_hub.py"))]


class Stack:
    """One data folder and the commands on it."""

    def __init__(self, folder: Path, profile: str) -> None:
        self.folder = folder
        self.profile = profile
        self.seen: dict[int, psutil.Process] = {}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments, "--data-dir", str(self.folder)],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )

    def up(self, **environment: str) -> dict[str, Any]:
        choices = ("--detach", "--json", "--free-ports", "--profile", self.profile, "--bound-to", str(os.getpid()))
        done = self.run("up", *choices, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        self.remember()
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def remember(self) -> None:
        """Note every process of the stack, to ask later whether it is gone."""
        launcher = psutil.Process(self.status().launcher_pid)
        for process in (launcher, *launcher.children(recursive=True)):
            self.seen[process.pid] = process

    def gone(self, seconds: float = 15) -> bool:
        """Whether everything that was ever remembered has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in self.seen.values()):
                return True
            time.sleep(0.1)
        return False

    def status(self) -> StackStatus:
        return self.control.status()

    @property
    def control(self) -> StackControl:
        return StackControl(self.folder)

    @property
    def state(self) -> StackState:
        state = load_state(self.folder)
        assert state is not None
        return state

    def starts(self) -> int:
        with psycopg.connect(self.state.address("postgres").replace("+psycopg", "")) as connection:
            row = connection.execute("select count(*) from starts").fetchone()
        assert row is not None
        return int(row[0])

    def publish(self, name: str) -> None:
        """Give Zeebe a message to keep, under an id that it accepts once."""

        async def publish() -> None:
            client = ZeebeClient(create_insecure_channel(self.state.address("zeebe")))
            variables = {"large": "x" * LARGE}
            await client.publish_message(name, "key", variables, 3_600_000, message_id=name)

        asyncio.run(publish())


@contextmanager
def passable_folder() -> Iterator[Path]:
    """A temporary folder that the servers' user can enter too; pytest's own are closed to it."""
    with TemporaryDirectory(prefix="payhub-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def new_stack() -> Iterator[Callable[[str], Stack]]:
    made: list[Stack] = []

    def make(profile: str) -> Stack:
        made.append(Stack(parent / f"data-{len(made)}", profile))
        return made[-1]

    with passable_folder() as parent:
        yield make
        for stack in made:
            stack.run("down")
            assert stack.gone()


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    """A stack with Zeebe and PostgreSQL that each test leaves healthy."""
    with passable_folder() as parent:
        stack = Stack(parent / "data", "barebone")
        stack.up()
        yield stack
        stack.remember()
        assert stack.run("down").returncode == 0
        assert stack.gone()


def test_up_answers_with_addresses_and_status_shows_every_part(running: Stack):
    addresses = running.state.base_urls
    assert addresses == {
        "greeter": f"http://127.0.0.1:{running.state.ports['greeter']}",
        "zeebe": running.state.address("zeebe"),
    }
    greeting = httpx.get(addresses["greeter"]).text.splitlines()
    assert greeting == ["hello", "shared", addresses["zeebe"], running.state.address("postgres")]

    status = running.status()
    assert status.healthy
    assert [(part.name, part.kind) for part in status.parts] == [
        ("postgres", "server"),
        ("zeebe", "server"),
        ("greeter", "hub"),
    ]
    assert all(part.memory_bytes > 5_000_000 and part.pid for part in status.parts)
    assert status.parts[-1].version == "1.2.3"
    shown = running.run("status", "--json")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["healthy"] is True


def test_a_second_up_on_the_same_folder_is_refused_and_disturbs_nothing(running: Stack):
    second = running.run("up", "--json", "--detach")
    assert second.returncode == 1
    assert "is already running on" in json.loads(second.stdout)["error"]
    assert running.status().healthy


def test_a_killed_part_comes_back(running: Stack):
    running.control.kill_part("postgres")
    until = time.monotonic() + 30
    while not running.status().healthy:
        assert time.monotonic() < until
        time.sleep(0.2)
    parts = {part.name: part for part in running.status().parts}
    assert parts["postgres"].restarts >= 1


def test_a_stopped_part_waits_to_be_started(running: Stack):
    running.control.stop_part("postgres")
    assert {part.name: part.state for part in running.status().parts}["postgres"] == "stopped"
    with pytest.raises(psycopg.OperationalError):
        running.starts()
    running.control.start_part("postgres")
    assert running.starts() >= 1


def test_a_wrong_part_is_answered_with_the_right_ones(running: Stack):
    with pytest.raises(StackError, match="no part called 'nothing'"):
        running.control.kill_part("nothing")


def test_servers_named_in_the_environment_are_used_and_not_started(
    running: Stack, new_stack: Callable[[str], Stack], tmp_path: Path
):
    guest, service = new_stack("barebone"), tmp_path / "service"
    guest.up(**running.state.variables(), EXAMPLE_SERVICE_FILE=str(service))
    kinds = {part.name: (part.kind, part.state) for part in guest.status().parts}
    assert kinds == {
        "zeebe": ("existing", "healthy"),
        "postgres": ("existing", "healthy"),
        "greeter": ("hub", "healthy"),
    }
    assert service.read_text() == "open"
    guest.run("down")
    assert service.read_text() == "closed"
    assert running.status().healthy


@pytest.mark.parametrize(
    ("breaks", "part", "reason"),
    [("preparation", "count the start", "no such column: amount"), ("process", "greeter", "ended with exit code 1")],
)
def test_what_fails_is_named_and_nothing_is_left(
    running: Stack, new_stack: Callable[[str], Stack], breaks: str, part: str, reason: str
):
    stack = new_stack("barebone")
    choices = ("--json", "--detach", "--free-ports", "--profile", "barebone")
    done = stack.run("up", *choices, **running.state.variables(), EXAMPLE_BREAKS=breaks)
    assert done.returncode == 1
    failure = json.loads(done.stdout)
    assert failure["part"] == part
    assert reason in failure["error"]
    if breaks == "process":
        assert any("no greeting today" in line for line in failure["last_lines"])
    assert list((stack.folder / "run").iterdir()) == []
    assert stack.run("status").returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_data_in_a_folder_closed_to_the_servers_user_lies_where_that_user_can_reach_it(
    running: Stack, new_stack: Callable[[str], Stack]
):
    stack = new_stack("barebone")
    stack.folder.parent.chmod(0o700)
    zeebe = {"PAYHUB_ZEEBE_ADDRESS": running.state.address("zeebe")}
    stack.up(**zeebe)
    assert stack.starts() == 1
    outside = stack.state.server_folder
    assert outside is not None
    assert (stack.folder / "servers").resolve() == outside
    stack.run("down")
    stack.up(**zeebe)
    assert stack.starts() == 2
    assert stack.state.server_folder == outside
    stack.run("down")
    shutil.rmtree(outside)


def test_killing_the_launcher_leaves_no_process_and_an_interrupt_neither(new_stack: Callable[[str], Stack]):
    stack = new_stack("barebone")
    addresses = stack.up()
    stack.publish("once")
    os.kill(stack.status().launcher_pid, signal.SIGKILL)
    assert stack.gone()

    command = [*PROGRAM, "up", "--json", "--data-dir", str(stack.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as foreground:
        assert foreground.stdout is not None
        assert json.loads(foreground.stdout.readline()) == addresses, "ports are kept, the profile too"
        assert stack.starts() == 2
        with pytest.raises(MessageAlreadyExistsError):
            stack.publish("once")
        stack.remember()
        foreground.send_signal(signal.SIGINT)
        assert foreground.wait(60) == 0
    assert stack.gone()


def test_after_kill_of_everything_all_servers_come_back_with_their_data(new_stack: Callable[[str], Stack]):
    stack = new_stack("minimal")
    stack.folder.mkdir(mode=0o711)
    # One random cluster id in sixty-four begins like an option of Kafka's command line.
    state = new_state(Profile.MINIMAL, {})
    save_state(stack.folder, state.model_copy(update={"kafka_cluster_id": f"-{state.kafka_cluster_id[1:]}"}))
    addresses = stack.up()
    stack.publish("once")
    elasticsearch = addresses["elasticsearch"]
    httpx.put(f"{elasticsearch}/kept").raise_for_status()
    httpx.put(f"{elasticsearch}/kept/_doc/1", json={"a": 1}).raise_for_status()
    assert largest_record(addresses["kafka"]) > LARGE
    servers = (part.memory_bytes for part in stack.status().parts if part.kind == "server")
    assert sum(servers) < 1_900_000_000

    stack.remember()
    for process in stack.seen.values():
        with suppress(psutil.NoSuchProcess):  # a database process that came and went by itself
            process.kill()
    assert stack.gone()

    stack.up()
    assert stack.starts() == 2
    assert httpx.get(f"{elasticsearch}/kept/_doc/1").json()["_source"] == {"a": 1}
    assert largest_record(addresses["kafka"]) > LARGE
    with pytest.raises(MessageAlreadyExistsError):
        stack.publish("once")


def largest_record(bootstrap_servers: str) -> int:
    """Bytes of the largest of the engine's records that Kafka holds, once the first has arrived."""
    consumer = KafkaConsumer(
        "zeebe",
        bootstrap_servers=bootstrap_servers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        consumer_timeout_ms=5000,
    )
    try:
        return max((len(message.value) for message in consumer), default=0)
    finally:
        consumer.close()
