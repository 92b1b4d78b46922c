"""The commands of the stack: `up`, `down`, `status` and `doctor`, for any Typer application."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hub.stack.control import StackControl, StackStatus
from hub.stack.detached import run_detached
from hub.stack.display import Display
from hub.stack.doctor import Finding, examine
from hub.stack.errors import NotRunning, PartFailed, StackError
from hub.stack.folder import is_held, prepare_folder
from hub.stack.launcher import (
    Machine,
    Step,
    Wishes,
    clear_away,
    launch,
    programs_needed,
    remembered_profile,
)
from hub.stack.packages import shared_cache
from hub.stack.plan import Hub
from hub.stack.ports import parse_assignments
from hub.stack.privileges import server_user
from hub.stack.state import Profile, StackState, default_data_folder
from hub.stack.warm_up import warm_up

DataFolder = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where data, logs and secrets are kept [env PAYHUB_DATA_DIR; default: .payhub]."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def add_stack_commands(
    app: typer.Typer, hub: Callable[[Path], Hub], findings: Callable[[], Sequence[Finding]] = tuple
) -> None:
    """Add the stack's commands to `app`.

    `hub` is given the data folder and says what runs on its servers; `findings` are more lines for `doctor`.
    """

    @app.command()
    def up(
        *,
        data_dir: DataFolder = None,
        profile: Annotated[
            Profile | None, typer.Option(help="How much to run [default: as last time, or minimal].")
        ] = None,
        detach: Annotated[bool, typer.Option("--detach", help="Leave it running in the background.")] = False,
        free_ports: Annotated[bool, typer.Option("--free-ports", help="Replace every port that is taken.")] = False,
        port: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help="A port of your choice.")] = None,
        bound_to: Annotated[int | None, typer.Option(metavar="PID", help="Stop when this process ends.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Start the servers and the hub's processes, and keep them running."""
        folder = (data_dir or default_data_folder()).resolve()
        display = Display(quiet=as_json and not sys.stderr.isatty())
        with _failures(display, as_json=as_json):
            wishes = Wishes(folder, profile, parse_assignments(port or []), free_ports, bound_to)
            bring_up(wishes, hub(folder), display, lambda state: _announce(state, as_json=as_json), detach=detach)

    @app.command()
    def down(*, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
        """Stop everything that runs on a data folder."""
        folder = (data_dir or default_data_folder()).resolve()
        stopped = bring_down(folder)
        if as_json:
            print(json.dumps({"stopped": stopped, "data_dir": str(folder)}))
        else:
            print(f"Stopped the stack on {folder}." if stopped else f"No stack was running on {folder}.")

    @app.command()
    def status(*, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
        """Show the health, port, version and memory of every part."""
        with _failures(Display(), as_json=as_json):
            found = StackControl(data_dir or default_data_folder()).status()
            if as_json:
                print(json.dumps({**found.model_dump(), "healthy": found.healthy, "memory_bytes": found.memory_bytes}))
            else:
                _show_status(found)
            if not found.healthy:
                raise typer.Exit(1)

    @app.command()
    def doctor(*, data_dir: DataFolder = None, as_json: AsJson = False) -> None:
        """Check whether this machine can run the stack, and say what to do when it cannot."""
        folder = (data_dir or default_data_folder()).resolve()
        with _failures(Display(), as_json=as_json):
            found = [*examine(folder, shared_cache(), hub(folder)), *findings()]
            _show_findings(found, as_json=as_json)
            if any(finding.verdict == "bad" for finding in found):
                raise typer.Exit(1)


def bring_up(
    wishes: Wishes, hub: Hub, display: Display, on_ready: Callable[[StackState], None], *, detach: bool = False
) -> None:
    """Provision and start a stack; call `on_ready` once all is healthy.

    Returns when the stack was stopped; with `detach` as soon as it is ready. Raises StackError when it does not come
    up.
    """
    user = server_user()
    cache = shared_cache()
    folder = prepare_folder(wishes.data_folder, user)
    if not is_held(folder):
        profile = wishes.profile or remembered_profile(folder)
        with display.session():
            cache.provision(programs_needed(profile), user, display)
            warm_up(cache, programs_needed(profile), user, display)

    def run(report: Callable[[Step], None], ready: Callable[[StackState], None]) -> None:
        asyncio.run(launch(wishes, hub, Machine(cache, user), report, ready))

    if detach:
        on_ready(run_detached(run, folder / "logs" / "launcher.log", display.step))
    else:
        run(display.step, on_ready)


def bring_down(data_folder: Path) -> bool:
    """Stop what runs on a data folder, with or without a launcher; False when nothing did."""
    try:
        StackControl(data_folder).stop()
    except NotRunning:
        try:
            clear_away(data_folder)
        except NotRunning:
            return False
    return True


class _failures:  # noqa: N801 -- reads as a clause: with _failures(...)
    """Turns a StackError into a message and exit code 1."""

    def __init__(self, display: Display, *, as_json: bool) -> None:
        self._display = display
        self._as_json = as_json

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, StackError):
            return
        if self._as_json:
            part = error if isinstance(error, PartFailed) else None
            failure = {
                "error": error.problem,
                "remedy": error.remedy,
                "part": part.part if part else None,
                "log_file": str(part.log_file) if part and part.log_file else None,
                "last_lines": list(part.last_lines) if part else [],
            }
            print(json.dumps(failure))
        self._display.failure(error)
        raise typer.Exit(1) from error


def _announce(state: StackState, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(state.base_urls), flush=True)
        return
    table = Table(show_header=False, box=None)
    for name, url in state.base_urls.items():
        table.add_row(name, url)
    Console().print("Everything is healthy.", table)


def _show_status(status: StackStatus) -> None:
    console = Console()
    table = Table("part", "state", "port", "pid", "version", "memory", "restarts", "up", box=None, header_style="bold")
    for part in status.parts:
        colour = {"healthy": "green", "stopped": "dim"}.get(part.state, "red")
        table.add_row(
            part.name,
            f"[{colour}]{part.state}[/]",
            str(part.port or ""),
            str(part.pid or ""),
            part.version,
            f"{part.memory_bytes / 2**20:.0f} MB" if part.memory_bytes else "",
            str(part.restarts),
            _span(part.uptime_seconds),
        )
    console.print(table)
    console.print(
        f"profile {status.profile} on {status.data_folder}, launcher {status.launcher_pid}, "
        f"{status.memory_bytes / 2**20:.0f} MB in all",
        style="dim",
        soft_wrap=True,
    )


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _show_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        healthy = all(finding.verdict != "bad" for finding in findings)
        print(json.dumps({"healthy": healthy, "findings": [finding.model_dump() for finding in findings]}))
        return
    console = Console(highlight=False)
    for finding in findings:
        colour = {"good": "green", "warning": "yellow", "bad": "red"}[finding.verdict]
        console.print(f"[{colour}]{finding.verdict:8}[/]{finding.subject}: {finding.detail}", soft_wrap=True)
        if finding.remedy:
            console.print(f"        {finding.remedy}", soft_wrap=True)
