"""Talking to a running launcher: a Unix socket in the data folder, one JSON object per line each way.

Requests are `{"command": "status"}`, `{"command": "stop"}`, and `{"command": "stop-part", "part": "postgres"}` with
`start-part` and `kill-part` beside it. Answers are `{"ok": true, ...}` or
`{"ok": false, "problem": ..., "remedy": ...}`.
Only the owner of the data folder can open the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hub.stack.errors import NotRunning, StackError
from hub.stack.folder import is_held

SOCKET_FILE = "control.sock"
_LONGEST_ADDRESS = 100
"""Bytes; the kernel refuses socket paths of more than about 107."""


class PartStatus(BaseModel):
    """One part, as it is now."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["server", "hub", "existing"]
    """`existing`: a server of somebody else's that the stack uses."""
    state: Literal["stopped", "starting", "healthy", "unhealthy", "restarting"]
    pid: int | None
    port: int | None
    version: str
    memory_bytes: int
    """Resident memory with children."""
    restarts: int
    uptime_seconds: float | None
    log_file: str | None


class StackStatus(BaseModel):
    """The whole stack, as it is now."""

    model_config = ConfigDict(frozen=True)

    data_folder: str
    profile: str
    launcher_pid: int
    started: bool
    """Whether everything was healthy once; false while it is still coming up."""
    base_urls: dict[str, str]
    parts: tuple[PartStatus, ...]

    @property
    def healthy(self) -> bool:
        return self.started and all(part.state == "healthy" for part in self.parts)

    @property
    def memory_bytes(self) -> int:
        """Resident memory of all parts."""
        return sum(part.memory_bytes for part in self.parts)


class Request(BaseModel):
    """What is asked of a launcher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Literal["status", "stop", "stop-part", "start-part", "kill-part"]
    part: str = Field(default="", description="for the commands that concern one part")


class Controlled(Protocol):
    """What a launcher can be asked."""

    async def status(self) -> StackStatus: ...

    def request_stop(self) -> None: ...

    async def ended(self) -> None:
        """Returns when every part has stopped."""
        ...

    async def stop_part(self, name: str) -> None: ...

    async def start_part(self, name: str) -> None: ...

    async def kill_part(self, name: str) -> None: ...


@asynccontextmanager
async def control_socket(data_folder: Path, launcher: Controlled) -> AsyncIterator[None]:
    """Serve the control socket of `data_folder` while the context lasts."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                writer.write(json.dumps(await _carried_out(line, launcher)).encode() + b"\n")
                await writer.drain()
        writer.close()

    (data_folder / SOCKET_FILE).unlink(missing_ok=True)
    with _socket_address(data_folder) as address:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(before)
    server = await asyncio.start_unix_server(answer, sock=listener)
    try:
        yield
    finally:
        server.close()
        (data_folder / SOCKET_FILE).unlink(missing_ok=True)


async def _carried_out(line: bytes, launcher: Controlled) -> dict[str, Any]:
    try:
        request = Request.model_validate_json(line)
    except ValidationError as error:
        return {"ok": False, "problem": f"The request is not understood: {error}", "remedy": ""}
    try:
        if request.command == "status":
            return {"ok": True, "status": (await launcher.status()).model_dump()}
        if request.command == "stop":
            launcher.request_stop()
            await launcher.ended()
        elif request.command == "stop-part":
            await launcher.stop_part(request.part)
        elif request.command == "start-part":
            await launcher.start_part(request.part)
        else:
            await launcher.kill_part(request.part)
    except StackError as error:
        return {"ok": False, "problem": error.problem, "remedy": error.remedy}
    return {"ok": True}


class StackControl:
    """A client of the launcher that runs on a data folder. Every method raises NotRunning when there is none."""

    def __init__(self, data_folder: Path) -> None:
        self.data_folder = data_folder.resolve()

    def status(self, seconds: float = 15) -> StackStatus:
        return StackStatus.model_validate(self._ask("status", seconds=seconds)["status"])

    def stop(self, seconds: float = 120) -> None:
        """Stop everything and wait until the launcher itself has gone, so that another may take its place."""
        until = time.monotonic() + seconds
        self._ask("stop", seconds=seconds)
        while is_held(self.data_folder) and time.monotonic() < until:
            time.sleep(0.05)

    def stop_part(self, name: str, seconds: float = 60) -> None:
        """Stop one part until `start_part`. Raises UnknownPart's message as StackError for a name that is none."""
        self._ask("stop-part", name, seconds)

    def start_part(self, name: str, seconds: float = 150) -> None:
        """Start a stopped part and wait until it is healthy."""
        self._ask("start-part", name, seconds)

    def kill_part(self, name: str, seconds: float = 10) -> None:
        """Kill a part as a crash would; the launcher restarts it."""
        self._ask("kill-part", name, seconds)

    def _ask(self, command: str, part: str = "", seconds: float = 15) -> dict[str, Any]:
        try:
            with _socket_address(self.data_folder) as address, socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(seconds)
                connection.connect(address)
                connection.sendall(json.dumps({"command": command, "part": part}).encode() + b"\n")
                with connection.makefile("rb") as stream:
                    line = stream.readline()
        except TimeoutError:
            raise StackError(
                f"The launcher of {self.data_folder} did not answer {command!r} within {seconds:.0f} seconds.",
                "Look at the logs in its data folder.",
            ) from None
        except (FileNotFoundError, ConnectionError, NotADirectoryError):
            raise NotRunning(self.data_folder) from None
        if not line:
            raise NotRunning(self.data_folder)
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise StackError(answer["problem"], answer["remedy"])
        return answer


class AsyncStackControl:
    """`StackControl` for code that runs in an event loop."""

    def __init__(self, data_folder: Path) -> None:
        self._control = StackControl(data_folder)

    async def status(self) -> StackStatus:
        return await asyncio.to_thread(self._control.status)

    async def stop(self) -> None:
        await asyncio.to_thread(self._control.stop)

    async def stop_part(self, name: str) -> None:
        await asyncio.to_thread(self._control.stop_part, name)

    async def start_part(self, name: str) -> None:
        await asyncio.to_thread(self._control.start_part, name)

    async def kill_part(self, name: str) -> None:
        await asyncio.to_thread(self._control.kill_part, name)


@contextmanager
def _socket_address(data_folder: Path) -> Iterator[str]:
    """A path of the socket that is short enough for the kernel, valid inside the context."""
    path = data_folder / SOCKET_FILE
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    descriptor = os.open(data_folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_FILE}"
    finally:
        os.close(descriptor)
