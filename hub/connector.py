"""What a connector is: a name, a worker, some HTTP services, and what opens them. Wiring reads top to bottom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from hub.jobs import Job, handled_by
from hub.messages import Engine, Message

Probe = Callable[[], Awaitable[None]]
"""Raises when the thing it looks at is not ready."""


@dataclass(frozen=True, slots=True)
class Work:
    """What `payhub work NAME` runs: handlers, and loops that run beside them until the process is told to stop."""

    workers: Sequence[object]
    loops: Sequence[Callable[[], Awaitable[None]]] = ()
    probes: Mapping[str, Probe] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """What `payhub serve NAME` runs: one HTTP application, and loops beside it. The app brings its own probes."""

    app: FastAPI
    loops: Sequence[Callable[[], Awaitable[None]]] = ()


OpenWork = Callable[[Engine], AbstractAsyncContextManager[Work]]
OpenService = Callable[[Engine], AbstractAsyncContextManager[Service]]


@dataclass(frozen=True, slots=True)
class Connector:
    """One party we talk to. Settings are read inside `open_work` and `services`, never at import."""

    name: str
    worker_classes: tuple[type[object], ...]
    open_work: OpenWork
    services: Mapping[str, OpenService] = field(default_factory=dict)
    messages: tuple[type[Message], ...] = ()
    migrations: str | None = None
    """The package that holds this connector's Alembic migrations, when it keeps tables."""

    @property
    def jobs(self) -> tuple[type[Job[Any]], ...]:
        return tuple(job for worker in self.worker_classes for job in handled_by(worker))
