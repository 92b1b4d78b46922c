"""One part of the stack kept alive: started, watched until it is healthy, restarted when it ends, stopped for good."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from hub.stack.errors import PartFailed
from hub.stack.privileges import ServerUser, die_with

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 15.0
_LASTING_SECONDS = 60
"""A part that ran this long starts again with the shortest delay."""
_LARGEST_LOG = 20_000_000
_ATTEMPTS_TO_START = 4
"""How often a part may end before it was ever healthy."""


@dataclass(frozen=True)
class Launch:
    """How to start a program."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    user: ServerUser | None = None
    standard_input: bytes | None = None
    """Written once; the pipe stays open for as long as the program runs."""


@dataclass(frozen=True)
class Part:
    """A server, or a process of the hub."""

    name: str
    kind: str
    """`server` or `hub`."""
    port: int
    version: str
    launch: Callable[[], Awaitable[Launch]]
    """Brings the part's files in order and says how to start it; called before every start."""
    probe: Callable[[], Awaitable[bool]]
    """Whether the part can do its work now. Exceptions count as no."""
    complete: Callable[[], Awaitable[None]] | None = None
    """What the part needs to be given after a start (its database, its topics); safe to repeat."""
    after: tuple[str, ...] = ()
    """Parts that must be healthy first."""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends the part when the launcher dies."""
    stop_seconds: float = 15
    """How long it may take to stop by itself."""
    startup_seconds: float = 120


class PartState(StrEnum):
    """Where a part is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    HEALTHY = "healthy"
    RESTARTING = "restarting"
    """It ended by itself and waits for its next start."""


class RunRecord(BaseModel):
    """Which process a part is: what lets a later launcher end what an earlier one could not."""

    model_config = ConfigDict(frozen=True)

    pid: int
    create_time: float
    """Seconds since the epoch; tells the process from a later one with the same number."""


@dataclass
class SupervisedPart:
    """A part and its current process."""

    part: Part
    log_file: Path
    record_file: Path
    state: PartState = PartState.STOPPED
    restarts: int = 0
    started_at: float | None = None
    """Monotonic seconds of the last start."""
    _process: asyncio.subprocess.Process | None = None
    _keeper: asyncio.Task[None] | None = None
    _was_healthy: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def uptime_seconds(self) -> float | None:
        return time.monotonic() - self.started_at if self.started_at is not None and self.pid is not None else None

    async def start(self) -> None:
        """Start the part and wait until it is healthy. Raises PartFailed when it is not; it is then stopped."""
        if self._keeper is not None and not self._keeper.done():
            return
        self._was_healthy = asyncio.Event()
        keeper = asyncio.create_task(self._keep(), name=f"keep {self.part.name}")
        self._keeper = keeper
        healthy = asyncio.create_task(self._was_healthy.wait())
        try:
            await asyncio.wait(
                {keeper, healthy}, return_when=asyncio.FIRST_COMPLETED, timeout=self.part.startup_seconds
            )
            if self._was_healthy.is_set():
                return
            if keeper.done():
                keeper.result()
            failure = self._failed(f"was not healthy after {self.part.startup_seconds:.0f} seconds")
            await self.stop()
            raise failure
        finally:
            healthy.cancel()

    async def stop(self, *, by_force: bool = False) -> None:
        """Stop the part for good: by its own signal, then by force after its time is up."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if self._process is not None:
            await self._end(self._process, by_force=by_force)
        self.record_file.unlink(missing_ok=True)
        self.state = PartState.STOPPED

    def kill(self) -> bool:
        """End the process at once, as a crash would; the part is then restarted. False when it has no process."""
        if self.pid is None:
            return False
        os.kill(self.pid, signal.SIGKILL)
        return True

    async def is_healthy(self, seconds: float = 3) -> bool:
        """Ask the part now, waiting at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self.part.probe()
        except Exception:  # noqa: BLE001 -- whatever a probe trips over, the answer is no
            return False

    def memory_bytes(self) -> int:
        """Resident memory of the process and its children; shared pages count in each of them."""
        total = 0
        if self.pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(self.pid)
                for one in (process, *process.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        total += one.memory_info().rss
        return total

    async def _keep(self) -> None:
        """Run the part until cancelled. Ends with PartFailed when it never gets to be healthy."""
        delay, attempts = _FIRST_DELAY, 0
        while True:
            self.state = PartState.STARTING
            begun = time.monotonic()
            try:
                ending = _ending(await self._run_once())
            except (OSError, PartFailed) as error:
                if not self._was_healthy.is_set():
                    self.state = PartState.STOPPED
                    raise error if isinstance(error, PartFailed) else self._failed(f"cannot start: {error}") from error
                ending = str(error)
            attempts += 1
            if not self._was_healthy.is_set() and attempts >= _ATTEMPTS_TO_START:
                self.state = PartState.STOPPED
                raise self._failed(f"ended with {ending} while starting")
            if time.monotonic() - begun > _LASTING_SECONDS:
                delay = _FIRST_DELAY
            self.state = PartState.RESTARTING
            self._note(f"ended with {ending}; starting again in {delay:.1f} s")
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)
            self.restarts += 1

    async def _run_once(self) -> int:
        """Start the process, watch it until it is healthy, and return its exit code once it ended."""
        process = await self._spawn()
        watcher = asyncio.create_task(self._watch(process))
        try:
            return await process.wait()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Mark the part healthy as soon as it is."""
        while process.returncode is None:
            if await self.is_healthy():
                try:
                    if self.part.complete is not None:
                        await self.part.complete()
                except Exception as error:  # noqa: BLE001 -- a server may still refuse what its probe promised
                    self._note(f"is not complete yet: {error}")
                else:
                    self.state = PartState.HEALTHY
                    self._was_healthy.set()
                    return
            await asyncio.sleep(0.15)

    async def _spawn(self) -> asyncio.subprocess.Process:
        launch = await self.part.launch()
        _shorten(self.log_file)
        with self.log_file.open("ab") as log:
            process = await spawn(launch, log.fileno(), self.part.death_signal)
        self._process = process
        self.started_at = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            record = RunRecord(pid=process.pid, create_time=psutil.Process(process.pid).create_time())
            self.record_file.write_text(record.model_dump_json())
        return process

    async def _end(self, process: asyncio.subprocess.Process, *, by_force: bool) -> None:
        if process.returncode is not None:
            return
        family = _family(process.pid)
        if not by_force:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self.part.stop_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self.part.stop_seconds)
        if process.returncode is None and not by_force:
            self._note(f"did not stop within {self.part.stop_seconds:.0f} s and is killed")
            family = _family(process.pid)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        await process.wait()

    def _failed(self, reason: str) -> PartFailed:
        return PartFailed(self.part.name, reason, self.log_file, last_lines(self.log_file))

    def _note(self, sentence: str) -> None:
        """Write a line of the launcher's into the part's log, where whoever looks for the cause will look."""
        with self.log_file.open("a", encoding="utf-8") as log:
            log.write(f"[payhub {time.strftime('%Y-%m-%dT%H:%M:%S%z')}] {self.part.name} {sentence}\n")


async def spawn(
    launch: Launch, output: int, death_signal: signal.Signals = signal.SIGKILL
) -> asyncio.subprocess.Process:
    """Start a program that prints to the file descriptor `output` and dies when this process does.

    To be called from the thread that lasts as long as the process, which is the main one.
    """
    launcher, user = os.getpid(), launch.user
    process = await asyncio.create_subprocess_exec(
        *launch.arguments,
        cwd=launch.folder,
        env=dict(launch.environment),
        stdin=subprocess.DEVNULL if launch.standard_input is None else subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
        umask=0o077,
        preexec_fn=lambda: die_with(launcher, death_signal),
    )
    if launch.standard_input is not None and process.stdin is not None:
        process.stdin.write(launch.standard_input)
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
    return process


async def run_to_end(part: str, launch: Launch, log_file: Path) -> None:
    """Run a program that prepares a part. Raises PartFailed with the end of the log when it fails."""
    with log_file.open("ab") as log:
        process = await spawn(launch, log.fileno())
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if code != 0:
        program = Path(launch.arguments[0]).name
        raise PartFailed(
            part, f"cannot be prepared: {program} ended with {_ending(code)}", log_file, last_lines(log_file)
        )


def end_leftovers(record_folder: Path) -> tuple[str, ...]:
    """End processes that an earlier launcher left running; returns the names of their parts."""
    ended: list[str] = []
    for record_file in record_folder.glob("*.json"):
        with contextlib.suppress(psutil.NoSuchProcess, ValidationError):
            record = RunRecord.model_validate_json(record_file.read_bytes())
            process = psutil.Process(record.pid)
            if abs(process.create_time() - record.create_time) < 1:
                family = _family(record.pid)
                for one in family:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
                psutil.wait_procs(family, timeout=10)
                ended.append(record_file.stem)
        record_file.unlink(missing_ok=True)
    return tuple(ended)


def last_lines(log_file: Path, count: int = 20) -> tuple[str, ...]:
    """The end of a log, for a message."""
    try:
        with log_file.open("rb") as log:
            log.seek(max(0, log_file.stat().st_size - 16_384))
            return tuple(log.read().decode("utf-8", "replace").splitlines()[-count:])
    except OSError:
        return ()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def _shorten(log_file: Path) -> None:
    """Put a log that has grown large aside; one older generation is kept."""
    with contextlib.suppress(FileNotFoundError):
        if log_file.stat().st_size > _LARGEST_LOG:
            log_file.replace(log_file.with_suffix(".log.1"))


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
