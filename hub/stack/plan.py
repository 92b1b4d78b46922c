"""What the hub brings to the stack: its own processes, and what must happen before they start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from hub.stack.state import Profile, StackState


@dataclass(frozen=True)
class HubProcess:
    """One process of the hub. Healthy when `GET http://127.0.0.1:<port>/health/ready` answers 200."""

    name: str
    arguments: tuple[str, ...]
    """The whole command line, program first."""
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the launcher's environment, the stack's variables and the plan's."""
    startup_seconds: float = 120


@dataclass(frozen=True)
class Preparation:
    """Something done once the servers are healthy and before any process of the hub runs: migrations, deployment."""

    name: str
    """Shown while it runs, and in the message when it fails."""
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class HubPlan:
    """Everything of the hub that one launcher runs."""

    processes: tuple[HubProcess, ...] = ()
    preparations: tuple[Preparation, ...] = ()
    services: tuple[Callable[[], AbstractAsyncContextManager[object]], ...] = ()
    """Run inside the launcher, opened in order before the preparations and closed in reverse after all processes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further variables for all processes; kept in `stack.json` for commands in other terminals."""
    base_urls: Mapping[str, str] = field(default_factory=dict)
    """Added to what `payhub up --json` prints."""
    version: str = ""
    """Shown for each process in `payhub status`."""


class Hub(Protocol):
    """Whoever knows the hub's processes."""

    def ports(self, profile: Profile) -> Mapping[str, int]:
        """Default port by name of everything of the hub that listens in this profile."""
        ...

    def plan(self, state: StackState) -> HubPlan:
        """What to run on a stack whose ports, addresses and secrets are decided."""
        ...


class NoHub:
    """The servers alone."""

    def ports(self, profile: Profile) -> Mapping[str, int]:  # noqa: ARG002
        return {}

    def plan(self, state: StackState) -> HubPlan:  # noqa: ARG002
        return HubPlan()
