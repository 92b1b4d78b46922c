"""`payhub doctor`: whether this machine can run the stack, and what to do when it cannot."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Literal

import psutil
import requests
from jgo.constants import MAVEN_CENTRAL_URL
from pydantic import BaseModel, ConfigDict

from hub.stack import ports as port_choice
from hub.stack.errors import MachineUnfit, StackError
from hub.stack.folder import is_held
from hub.stack.launcher import programs_needed, remembered_profile, require_room
from hub.stack.packages import ProgramCache
from hub.stack.plan import Hub
from hub.stack.privileges import server_user
from hub.stack.state import existing_servers, load_state


class Finding(BaseModel):
    """The answer to one question about this machine or this installation."""

    model_config = ConfigDict(frozen=True)

    subject: str
    verdict: Literal["good", "warning", "bad"]
    detail: str
    remedy: str = ""


def examine(data_folder: Path, cache: ProgramCache, hub: Hub) -> list[Finding]:
    """Every finding about running a stack on `data_folder`, good ones too."""
    return [
        _python(),
        _platform(),
        _user(),
        _room(data_folder),
        *_programs(data_folder, cache),
        *_ports(data_folder, hub),
        *_existing(),
    ]


def _python() -> Finding:
    found = platform.python_version()
    if sys.prefix == sys.base_prefix:
        remedy = "Work in a virtual environment, as 'make demo' does, so that nothing else changes its packages."
        return Finding(subject="python", verdict="warning", detail=f"{found}, the system's own", remedy=remedy)
    return Finding(subject="python", verdict="good", detail=f"{found} in {sys.prefix}")


def _platform() -> Finding:
    detail = f"{platform.system()} on {platform.machine()}"
    if platform.system() != "Linux" or platform.machine() not in {"x86_64", "aarch64"}:
        remedy = "Run the servers elsewhere and name them in the environment; the hub itself runs anywhere."
        return Finding(subject="platform", verdict="bad", detail=detail, remedy=remedy)
    return Finding(subject="platform", verdict="good", detail=detail)


def _user() -> Finding:
    try:
        user = server_user()
    except MachineUnfit as error:
        return Finding(subject="servers' user", verdict="bad", detail=error.problem, remedy=error.remedy)
    detail = "the same as yours" if user is None else f"{user.name}, as servers refuse to run as root"
    return Finding(subject="servers' user", verdict="good", detail=detail)


def _room(data_folder: Path) -> Finding:
    standing = next(path for path in (data_folder, *data_folder.parents) if path.is_dir())
    free, available = shutil.disk_usage(standing).free, psutil.virtual_memory().available
    detail = f"{free / 1e9:.1f} GB of disk and {available / 1e9:.1f} GB of memory are free"
    if is_held(data_folder):
        return Finding(subject="room", verdict="good", detail=f"{detail}; a stack is running")
    try:
        require_room(standing, remembered_profile(data_folder))
    except StackError as error:
        return Finding(subject="room", verdict="bad", detail=error.problem, remedy=error.remedy)
    return Finding(subject="room", verdict="good", detail=detail)


def _programs(data_folder: Path, cache: ProgramCache) -> list[Finding]:
    standing = next(path for path in (cache.folder, *cache.folder.parents) if path.is_dir())
    findings = []
    if not os.access(standing, os.W_OK):
        remedy = "Name a folder that you can write in PAYHUB_STACK_CACHE_DIR."
        findings.append(Finding(subject="cache", verdict="bad", detail=f"{cache.folder} is read-only", remedy=remedy))
    else:
        findings.append(Finding(subject="cache", verdict="good", detail=f"{cache.folder} can be written"))
    try:
        needed = programs_needed(remembered_profile(data_folder))
        if cache.is_complete(needed):
            return [
                *findings,
                Finding(subject="programs", verdict="good", detail="all in the cache, nothing to download"),
            ]
        size = sum(program.size for program in cache.missing(needed))
    except StackError as error:
        return [*findings, Finding(subject="programs", verdict="bad", detail=error.problem, remedy=error.remedy)]
    try:
        requests.head(MAVEN_CENTRAL_URL, timeout=10)
    except requests.RequestException as error:
        detail = f"{size / 1e6:.0f} MB are still to be downloaded, and Maven Central does not answer: {error}"
        remedy = "Connect once, or copy the cache folder of a machine that is complete."
        return [*findings, Finding(subject="programs", verdict="bad", detail=detail, remedy=remedy)]
    detail = f"{size / 1e6:.0f} MB will be downloaded from Maven Central, which answers"
    return [*findings, Finding(subject="programs", verdict="good", detail=detail)]


def _ports(data_folder: Path, hub: Hub) -> list[Finding]:
    if is_held(data_folder):
        return []
    state, profile = load_state(data_folder), remembered_profile(data_folder)
    wanted = dict(state.ports) if state is not None else {**port_choice.SERVER_PORTS, **hub.ports(profile)}
    absent = set(port_choice.SERVER_PORTS) - set(profile.servers) | set(existing_servers(os.environ))
    wanted = {name: port for name, port in wanted.items() if name.partition("-")[0] not in absent}
    taken = [
        Finding(
            subject=f"port {port}",
            verdict="bad",
            detail=f"wanted by {name}, in use by {port_choice.holder_of(port)}",
            remedy=f"Stop that process, or use --port {name}=NUMBER or --free-ports.",
        )
        for name, port in wanted.items()
        if not port_choice.is_free(port)
    ]
    return taken or [Finding(subject="ports", verdict="good", detail=f"all {len(wanted)} are free")]


def _existing() -> list[Finding]:
    return [
        Finding(
            subject=server, verdict="good", detail="an existing one is named in the environment; none is started here"
        )
        for server in existing_servers(os.environ)
    ]
