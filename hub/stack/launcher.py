"""The launcher: brings up the whole stack in order, keeps it up, and leaves no process behind.

Order: servers (each after those it depends on), the hub's services inside the launcher, preparations, the hub's
processes. Stopping is the reverse. Whatever ends by itself is restarted with a growing pause. When the launcher is
killed, the kernel ends every process it started, because each asked for that; when the machine is, the next launcher
starts from what is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, SecretStr

from hub.stack import ports as port_choice
from hub.stack.control import PartStatus, StackStatus, control_socket
from hub.stack.errors import MachineUnfit, NotRunning, PartFailed, StackError, UnknownPart
from hub.stack.folder import held_folder, is_held, prepare_folder
from hub.stack.packages import ProgramCache
from hub.stack.plan import Hub, HubPlan, HubProcess
from hub.stack.privileges import ServerUser, closed_folder
from hub.stack.servers import PROGRAMS, ServerSite, answers_ok, probe_for, server_parts
from hub.stack.state import (
    Profile,
    StackState,
    existing_servers,
    load_state,
    new_state,
    save_state,
)
from hub.stack.supervision import Launch, Part, PartState, SupervisedPart, end_leftovers

_OUTSIDE_FOLDER = Path("/var/lib/payhub")
_FREE_DISK = 1_500_000_000
_FREE_MEMORY: Mapping[Profile, int] = {
    Profile.BAREBONE: 1_000_000_000,
    Profile.MINIMAL: 2_000_000_000,
    Profile.FULL: 2_500_000_000,
}
"""Bytes that must be available before anything is started."""


class Step(BaseModel):
    """Something that happened while the stack came up or went down."""

    model_config = ConfigDict(frozen=True)

    name: str
    phase: Literal["starting", "healthy", "running", "done", "failed", "stopping", "stopped"]
    seconds: float = 0
    detail: str = ""
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """What a stack finds on its machine."""

    cache: ProgramCache
    user: ServerUser | None
    """Who servers run as; None when that is who we are."""


@dataclass(frozen=True)
class Wishes:
    """What the caller of `payhub up` asked for."""

    data_folder: Path
    profile: Profile | None = None
    """None: as last time, or minimal."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Port by name, instead of the default or of last time's."""
    free_ports: bool = False
    """Replace every port that is taken by one that is free; a new folder then begins with free ones only."""
    bound_to: int | None = None
    """Stop when the process with this number ends."""


def decided_state(wishes: Wishes, hub: Hub, data_folder: Path, user: ServerUser | None) -> StackState:
    """This run's stack: last time's, or a new one, changed by what was asked for. Written to `stack.json`.

    Raises PortInUse when a port that is needed is taken and another was not allowed.
    """
    before = load_state(data_folder)
    profile = wishes.profile or (before.profile if before else Profile.MINIMAL)
    existing = {name: url for name, url in existing_servers(os.environ).items() if name in profile.servers}
    defaults = {
        name: port
        for name, port in port_choice.SERVER_PORTS.items()
        if (server := name.partition("-")[0]) in profile.servers and server not in existing
    }
    defaults |= hub.ports(profile)
    unknown = [name for name in wishes.ports if name not in defaults]
    if unknown:
        raise StackError(f"Nothing called {unknown[0]} has a port here.", f"The names are: {', '.join(defaults)}.")
    # A folder that begins with free ports takes none that another stack on this machine might want by default.
    first = dict.fromkeys(defaults, 0) if wishes.free_ports else defaults
    known = before.ports if before else {}
    needed = {name: wishes.ports.get(name, known.get(name, first[name])) for name in defaults}
    if wishes.free_ports:
        needed = port_choice.choose_free(needed)
    else:
        port_choice.require_free(needed)
    state = (before or new_state(profile, needed)).model_copy(
        update={"profile": profile, "ports": {**known, **needed}, "existing": existing}
    )
    state = state.model_copy(update={"server_folder": _server_folder(state, data_folder, user)})
    plan = hub.plan(state)
    servers = {name: state.address(name) for name in ("elasticsearch", "zeebe", "kafka") if name in profile.servers}
    state = state.model_copy(
        update={
            "base_urls": {**plan.base_urls, **servers},
            "environment": {name: SecretStr(value) for name, value in plan.environment.items()},
        }
    )
    save_state(data_folder, state)
    return state


def _server_folder(state: StackState, data_folder: Path, user: ServerUser | None) -> Path | None:
    """Where servers keep their data when their user cannot reach the data folder; None when it can."""
    if state.server_folder is not None and state.server_folder.is_dir():
        return state.server_folder
    if user is None or closed_folder(data_folder, user) is None:
        return None
    try:
        _OUTSIDE_FOLDER.mkdir(parents=True, exist_ok=True)
        _OUTSIDE_FOLDER.chmod(0o755)
        for other in _OUTSIDE_FOLDER.iterdir():
            if _is_orphaned(other / "belongs-to", data_folder):
                shutil.rmtree(other, ignore_errors=True)
        folder = _OUTSIDE_FOLDER / uuid.uuid4().hex[:12]
        folder.mkdir(mode=0o711)
        (folder / "belongs-to").write_text(str(data_folder), "utf-8")
    except OSError as error:
        raise MachineUnfit(
            f"The servers run as {user.name}, who cannot enter {closed_folder(data_folder, user)}, "
            f"and {_OUTSIDE_FOLDER} cannot be used instead: {error.strerror}.",
            "Name a data folder that every user can enter with --data-dir, for instance /var/lib/payhub-data.",
        ) from error
    return folder


def _is_orphaned(owner_file: Path, data_folder: Path) -> bool:
    """Whether the data folder that a servers' folder belongs to was removed: with it went the keys to the data.

    `data_folder` is known to begin anew. Others count as removed after a day, as a disk may be away for a while.
    """
    try:
        owner, age = Path(owner_file.read_text("utf-8")), time.time() - owner_file.stat().st_mtime
    except OSError:
        return False
    return owner == data_folder or (not owner.exists() and age > 86_400)


def require_room(data_folder: Path, profile: Profile) -> None:
    """Raise MachineUnfit when disk or memory do not suffice."""
    free = shutil.disk_usage(data_folder).free
    if free < _FREE_DISK:
        raise MachineUnfit(
            f"The disk of {data_folder} has {free // 2**20} MB free; the servers need {_FREE_DISK // 2**20} MB.",
            "Free some space, or name a folder on another disk with --data-dir.",
        )
    available = psutil.virtual_memory().available
    if available < _FREE_MEMORY[profile]:
        raise MachineUnfit(
            f"{available // 2**20} MB of memory are available; "
            f"profile {profile} needs {_FREE_MEMORY[profile] // 2**20} MB.",
            "Close other programs" + (", or try --profile barebone." if profile is not Profile.BAREBONE else "."),
        )


class Launcher:
    """One run of a stack."""

    def __init__(
        self,
        data_folder: Path,
        state: StackState,
        plan: HubPlan,
        machine: Machine,
        report: Callable[[Step], None],
    ) -> None:
        self.data_folder = data_folder
        self.state = state
        self.plan = plan
        self._report = report
        self._stop = asyncio.Event()
        self._ended = asyncio.Event()
        self._started = False
        self._by_force = False
        self._services = AsyncExitStack()
        self._existing = {name: probe_for(name, state.address(name)) for name in state.existing}
        folder = self._servers_folder(machine.user)
        servers = server_parts(ServerSite(machine.cache, folder, machine.user, state, data_folder / "logs"))
        self._servers = {part.name: self._supervised(part) for part in servers}
        self._processes = {process.name: self._supervised(self._hub_part(process)) for process in plan.processes}

    # -- what the control socket asks

    async def status(self) -> StackStatus:
        """Every part with its health as of now."""
        existing = [self._existing_status(name, probe) for name, probe in self._existing.items()]
        own = [self._part_status(part) for part in self._parts().values()]
        return StackStatus(
            data_folder=str(self.data_folder),
            profile=self.state.profile,
            launcher_pid=os.getpid(),
            started=self._started,
            base_urls=self.state.base_urls,
            parts=tuple(await asyncio.gather(*existing, *own)),
        )

    def request_stop(self) -> None:
        """Begin to stop everything; asked a second time, by force."""
        self._by_force = self._stop.is_set()
        self._stop.set()

    async def ended(self) -> None:
        await self._ended.wait()

    async def stop_part(self, name: str) -> None:
        await self._part(name).stop()

    async def start_part(self, name: str) -> None:
        await self._part(name).start()

    async def kill_part(self, name: str) -> None:
        if not self._part(name).kill():
            raise StackError(f"{name} is not running.", f"Start it with the command start-part {name}.")

    # -- one run

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Bring everything up, call `on_ready`, and stop everything once that is requested.

        Raises PartFailed or StackError when it does not come up; everything is stopped by then.
        """
        coming_up = asyncio.create_task(self._come_up(), name="come up")
        stopping = asyncio.create_task(self._stop.wait())
        try:
            async with control_socket(self.data_folder, self):
                try:
                    await asyncio.wait({coming_up, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    if coming_up.done():
                        coming_up.result()
                        self._started = True
                        on_ready()
                    await stopping
                finally:
                    coming_up.cancel()
                    stopping.cancel()
                    await asyncio.gather(coming_up, stopping, return_exceptions=True)
                    await self._go_down()
                    self._ended.set()
                    await asyncio.sleep(0.05)  # lets whoever asked for it hear that it is done
        finally:
            self._ended.set()

    async def _come_up(self) -> None:
        for name, probe in self._existing.items():
            await self._require_existing(name, probe)
        await self._start_servers()
        for service in self.plan.services:
            await self._services.enter_async_context(service())
        for preparation in self.plan.preparations:
            with self._step(preparation.name, "running", "done"):
                await preparation.run()
        await _all(self._started_part(part) for part in self._processes.values())

    async def _start_servers(self) -> None:
        healthy = {name: asyncio.Event() for name in self._servers}

        async def in_turn(part: SupervisedPart) -> None:
            for earlier in part.part.after:
                if earlier in healthy:
                    await healthy[earlier].wait()
            await self._started_part(part)
            healthy[part.part.name].set()

        await _all(in_turn(part) for part in self._servers.values())

    async def _started_part(self, part: SupervisedPart) -> None:
        with self._step(part.part.name, "starting", "healthy"):
            await part.start()

    async def _go_down(self) -> None:
        await asyncio.gather(*(self._stopped_part(part) for part in self._processes.values()))
        with contextlib.suppress(Exception):
            await self._services.aclose()
        remaining = dict(self._servers)
        while remaining:
            needed = {name for part in remaining.values() for name in part.part.after}
            last = [name for name in remaining if name not in needed]
            await asyncio.gather(*(self._stopped_part(remaining.pop(name)) for name in last))

    async def _stopped_part(self, part: SupervisedPart) -> None:
        begun, was_running = time.monotonic(), part.pid is not None
        graceful = asyncio.create_task(part.stop(by_force=self._by_force))
        while not graceful.done():
            await asyncio.wait({graceful}, timeout=0.2)
            if self._by_force and not graceful.done():
                part.kill()
        await graceful
        if was_running:
            self._report(Step(name=part.part.name, phase="stopped", seconds=time.monotonic() - begun))

    async def _require_existing(self, name: str, probe: Callable[[], Awaitable[bool]]) -> None:
        with self._step(name, "starting", "healthy"):
            until = time.monotonic() + 20
            while not await _answer(probe):
                if time.monotonic() > until:
                    raise PartFailed(name, "named in the environment does not answer", None, ())
                await asyncio.sleep(0.5)

    @contextmanager
    def _step(
        self, name: str, begin: Literal["starting", "running"], end: Literal["healthy", "done"]
    ) -> Iterator[None]:
        begun = time.monotonic()
        self._report(Step(name=name, phase=begin))
        try:
            yield
        except StackError:
            raise
        except Exception as error:
            raise PartFailed(name, f"failed: {error}", None, ()) from error
        self._report(Step(name=name, phase=end, seconds=time.monotonic() - begun))

    # -- parts

    def _parts(self) -> dict[str, SupervisedPart]:
        return {**self._servers, **self._processes}

    def _part(self, name: str) -> SupervisedPart:
        parts = self._parts()
        if name not in parts:
            raise UnknownPart(name, tuple(parts))
        return parts[name]

    def _servers_folder(self, user: ServerUser | None) -> Path:
        visible = self.data_folder / "servers"
        outside = self.state.server_folder
        if outside is None:
            visible.mkdir(exist_ok=True)
            visible.chmod(0o711 if user is not None else 0o700)
            return visible
        if not visible.is_symlink():
            visible.symlink_to(outside)
        return outside

    def _supervised(self, part: Part) -> SupervisedPart:
        return SupervisedPart(
            part, self.data_folder / "logs" / f"{part.name}.log", self.data_folder / "run" / f"{part.name}.json"
        )

    def _hub_part(self, process: HubProcess) -> Part:
        environment = {**os.environ, **self.state.variables(), **self.plan.environment, **process.environment}

        async def launch() -> Launch:
            return Launch(process.arguments, environment, Path.cwd())

        return Part(
            name=process.name,
            kind="hub",
            port=process.port,
            version=self.plan.version,
            launch=launch,
            probe=lambda: answers_ok(f"http://127.0.0.1:{process.port}/health/ready"),
            stop_seconds=25,
            startup_seconds=process.startup_seconds,
        )

    async def _part_status(self, part: SupervisedPart) -> PartStatus:
        state = part.state.value
        if part.state is PartState.HEALTHY and not await part.is_healthy():
            state = "unhealthy"
        return PartStatus.model_validate(
            {
                "name": part.part.name,
                "kind": part.part.kind,
                "state": state,
                "pid": part.pid,
                "port": part.part.port,
                "version": part.part.version,
                "memory_bytes": part.memory_bytes(),
                "restarts": part.restarts,
                "uptime_seconds": part.uptime_seconds,
                "log_file": str(part.log_file),
            }
        )

    async def _existing_status(self, name: str, probe: Callable[[], Awaitable[bool]]) -> PartStatus:
        return PartStatus(
            name=name,
            kind="existing",
            state="healthy" if await _answer(probe) else "unhealthy",
            pid=None,
            port=None,
            version="",
            memory_bytes=0,
            restarts=0,
            uptime_seconds=None,
            log_file=None,
        )


async def launch(
    wishes: Wishes,
    hub: Hub,
    machine: Machine,
    report: Callable[[Step], None],
    on_ready: Callable[[StackState], None],
) -> None:
    """Run a stack from start to end in this process: returns when it was stopped, by a signal or through its socket.

    The programs must be in the cache. Raises StackError when the stack does not come up; nothing runs then.
    """
    folder = prepare_folder(wishes.data_folder, machine.user)
    with held_folder(folder):
        for name in end_leftovers(folder / "run"):
            report(Step(name=name, phase="stopped", detail="left over from an earlier run"))
        state = decided_state(wishes, hub, folder, machine.user)
        require_room(folder, state.profile)
        launcher = Launcher(folder, state, hub.plan(state), machine, report)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, launcher.request_stop)
        async with _bound(wishes.bound_to, launcher):
            await launcher.run(lambda: on_ready(state))


def programs_needed(profile: Profile) -> tuple[str, ...]:
    """The programs that a profile's servers need, without those of servers that exist elsewhere."""
    existing = existing_servers(os.environ)
    return tuple(program for server in profile.servers if server not in existing for program in PROGRAMS[server])


def remembered_profile(data_folder: Path) -> Profile:
    """The profile of a folder's last run; minimal when there was none."""
    state = load_state(data_folder)
    return state.profile if state is not None else Profile.MINIMAL


def clear_away(data_folder: Path) -> tuple[str, ...]:
    """End what a killed launcher left on a folder; returns the parts. Raises NotRunning when there was nothing."""
    ended = end_leftovers(data_folder / "run") if not is_held(data_folder) else ()
    if not ended:
        raise NotRunning(data_folder)
    return ended


@asynccontextmanager
async def _bound(pid: int | None, launcher: Launcher) -> AsyncIterator[None]:
    """Stop the launcher when the process `pid` ends."""
    if pid is None:
        yield
        return

    def still_runs(process: psutil.Process) -> bool:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE

    async def watch(process: psutil.Process) -> None:
        while still_runs(process):  # noqa: ASYNC110 -- a process of somebody else's gives no event
            await asyncio.sleep(1)
        launcher.request_stop()

    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        raise StackError(f"There is no process {pid} to be bound to.", "Name a running one with --bound-to.") from None
    watching = asyncio.create_task(watch(process))
    try:
        yield
    finally:
        watching.cancel()


async def _answer(probe: Callable[[], Awaitable[bool]]) -> bool:
    try:
        async with asyncio.timeout(5):
            return await probe()
    except Exception:  # noqa: BLE001 -- whatever a probe trips over, the answer is no
        return False


async def _all(works: Iterable[Awaitable[None]]) -> None:
    """Do all at once; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
