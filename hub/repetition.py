"""Loops that run beside the jobs or the requests of a process until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from hub.errors import Unavailable
from hub.telemetry import logger

LONGEST_PAUSE: Final = 30.0
"""Seconds between two tries while something is away."""

log = logger(__name__)


async def repeat(what: str, step: Callable[[], Awaitable[int | None]], every: float) -> None:
    """Do a step for ever: at once again while it says that it found something, else after `every` seconds.

    While something it needs is `Unavailable` the pauses double. Any other error ends the loop, and with it the process.
    """
    pause = every
    while True:
        try:
            while await step():
                pass
            pause = every
        except Unavailable as error:
            pause = max(every, min(pause * 2, LONGEST_PAUSE))
            log.warning("loop.put-off", loop=what, cause=str(error), seconds=pause)
        await asyncio.sleep(pause)
