"""The control socket, against a launcher that only remembers what it was asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hub.stack.control import AsyncStackControl, PartStatus, StackControl, StackStatus, control_socket
from hub.stack.errors import NotRunning, StackError, UnknownPart


class RememberingLauncher:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stopped = asyncio.Event()

    async def status(self) -> StackStatus:
        part = PartStatus(
            name="zeebe",
            kind="server",
            state="healthy",
            pid=1,
            port=26500,
            version="8.5.8",
            memory_bytes=1000,
            restarts=2,
            uptime_seconds=3.5,
            log_file="zeebe.log",
        )
        return StackStatus(
            data_folder="d", profile="barebone", launcher_pid=7, started=True, base_urls={"zeebe": "z"}, parts=(part,)
        )

    def request_stop(self) -> None:
        self.asked.append("stop")
        self.stopped.set()

    async def ended(self) -> None:
        await self.stopped.wait()

    async def stop_part(self, name: str) -> None:
        self.asked.append(f"stop {name}")

    async def start_part(self, name: str) -> None:
        self.asked.append(f"start {name}")

    async def kill_part(self, name: str) -> None:
        if name != "zeebe":
            raise UnknownPart(name, ("zeebe",))
        self.asked.append(f"kill {name}")


@pytest.fixture(params=["short", "long"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data folder; the long one's path is more than a socket's address can hold."""
    folder = tmp_path if request.param == "short" else tmp_path / ("x" * 120)
    folder.mkdir(exist_ok=True)
    return folder


async def test_status_comes_back_whole(folder: Path):
    launcher = RememberingLauncher()
    async with control_socket(folder, launcher):
        status = await AsyncStackControl(folder).status()
    assert status == await launcher.status()
    assert status.healthy
    assert status.memory_bytes == 1000


async def test_parts_are_stopped_started_and_killed_by_name(folder: Path):
    launcher = RememberingLauncher()
    async with control_socket(folder, launcher):
        control = AsyncStackControl(folder)
        await control.stop_part("postgres")
        await control.start_part("postgres")
        await control.kill_part("zeebe")
        await control.stop()
    assert launcher.asked == ["stop postgres", "start postgres", "kill zeebe", "stop"]


async def test_a_wrong_name_is_answered_with_the_right_ones(folder: Path):
    async with control_socket(folder, RememberingLauncher()):
        with pytest.raises(StackError, match=r"no part called 'kafka'. The parts are: zeebe"):
            await AsyncStackControl(folder).kill_part("kafka")


async def test_nonsense_is_answered_and_the_line_stays_open(tmp_path: Path):
    async with control_socket(tmp_path, RememberingLauncher()):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control.sock"))
        writer.write(b'{"command": "dance"}\nnot json\n{"command": "status"}\n')
        answers = [await reader.readline() for _ in range(3)]
        writer.close()
    assert [b'"ok": true' in answer for answer in answers] == [False, False, True]


async def test_only_the_owner_can_open_the_socket(tmp_path: Path):
    async with control_socket(tmp_path, RememberingLauncher()):
        assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "control.sock").exists()


def test_without_a_launcher_the_remedy_is_to_start_one(tmp_path: Path):
    with pytest.raises(NotRunning, match=r"No stack is running on .*payhub up"):
        StackControl(tmp_path).status()


async def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path):
    (tmp_path / "control.sock").touch()
    async with control_socket(tmp_path, RememberingLauncher()):
        assert (await AsyncStackControl(tmp_path).status()).launcher_pid == 7
