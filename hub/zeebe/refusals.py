"""The engine's certain "no".

    EngineRefused
    ├── NotFound          no such job, incident, instance, process or decision; or it has ended
    ├── InvalidState      it exists, but not in a state that allows this
    └── InvalidRequest    the request itself is wrong: a drawing with faults, variables that are no object

An engine that is away or too busy is no refusal: that is `hub.errors.Unavailable`, or `hub.errors.Uncertain` when a
command that is not safe to repeat may have been carried out.
"""

from __future__ import annotations

from typing import Final

import grpc


class EngineRefused(Exception):
    """The engine understood the command and said no. `detail` is the engine's own text."""

    def __init__(self, command: str, detail: str) -> None:
        self.command = command
        self.detail = detail
        super().__init__(f"{command}: {detail}")


class NotFound(EngineRefused):
    """There is no such thing, or no longer."""


class InvalidState(EngineRefused):
    """The thing is in a state in which this cannot be done."""


class InvalidRequest(EngineRefused):
    """The request is wrong and will stay wrong."""


NO_RETRIES: Final = "no retries left"
"""The engine says NOT_FOUND too when an incident is there but its job has no retries; the text tells them apart."""

_KINDS: Final = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidState,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
}


def refusal(command: str, error: grpc.aio.AioRpcError) -> EngineRefused:
    """The exception for a status that trying again does not change."""
    kind = _KINDS.get(error.code())
    detail = error.details() or ""
    if kind is NotFound and NO_RETRIES in detail:
        kind = InvalidState
    if kind is not None:
        return kind(command, detail)
    return EngineRefused(command, f"{error.code().name}: {detail}")
