"""One request to the gateway: always with a deadline, repeated with full jitter while that makes sense."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

import grpc
from prometheus_client import Counter

from hub.errors import Unavailable, Uncertain
from hub.zeebe.pauses import command_pause
from hub.zeebe.refusals import NO_RETRIES, refusal

RETRIES: Final = Counter(
    "payhub_engine_retries_total", "Requests to the engine that were tried again.", ("command", "code")
)

FULL: Final = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED})
"""The engine has not taken the command: too much is in flight, or its write buffer is full."""

LOST: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
"""Nobody knows whether the engine took the command: it was killed, restarted or slow in between."""

DEADLINE: Final = timedelta(seconds=5)
"""How long one try may take."""

MOST_VARIABLES: Final = 1_000_000
"""Characters of variables in one command. The engine answers a larger one as if it were busy, for ever."""

Q = TypeVar("Q")
A = TypeVar("A")


def gone(error: grpc.aio.AioRpcError) -> bool:
    """The job, incident or instance is not there any more."""
    return error.code() is grpc.StatusCode.NOT_FOUND and NO_RETRIES not in (error.details() or "")


async def insist(
    command: str,
    method: Callable[..., Awaitable[A]],
    request: Q,
    *,
    within: float,
    each: float = DEADLINE.total_seconds(),
    again: frozenset[grpc.StatusCode] = FULL | LOST,
    done: Callable[[grpc.aio.AioRpcError], bool] | None = None,
) -> A | None:
    """Send `request`, and again while the answer is one of `again` and the `within` seconds are not over.

    `done` tells from the answer to a repeat that an earlier try was carried out (a completed job is `gone`): then the
    result is None. Raises the last `AioRpcError`.
    """
    ends = time.monotonic() + within
    tried = 0
    while True:
        try:
            return await method(request, timeout=max(0.05, min(each, ends - time.monotonic())))
        except grpc.aio.AioRpcError as error:
            if tried and done is not None and done(error):
                return None
            tried += 1
            pause = command_pause(tried)
            if error.code() not in again or time.monotonic() + pause >= ends:
                raise
            RETRIES.labels(command, error.code().name).inc()
        await asyncio.sleep(pause)


async def ask(
    command: str,
    method: Callable[..., Awaitable[A]],
    request: Q,
    *,
    within: float = 10.0,
    each: float = DEADLINE.total_seconds(),
    repeatable: bool = True,
    done: Callable[[grpc.aio.AioRpcError], bool] | None = None,
) -> A | None:
    """The same in our words: raises `Unavailable`, `Uncertain` for a command that is not `repeatable`, or a refusal."""
    again = FULL | LOST if repeatable else FULL
    try:
        return await insist(command, method, request, within=within, each=each, again=again, done=done)
    except grpc.aio.AioRpcError as error:
        if error.code() in again:
            raise Unavailable(f"engine: {command}: {error.code().name}") from None
        if error.code() in LOST:
            raise Uncertain(f"engine: {command}: {error.code().name}") from None
        raise refusal(command, error) from None
