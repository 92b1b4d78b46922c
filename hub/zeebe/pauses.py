"""How long to wait before trying again: always spread out, so that many who wait do not come back together. Seconds."""

from __future__ import annotations

import random
from datetime import timedelta

_LONGEST_JOB_PAUSE = 60.0


def between(shortest: float, longest: float) -> float:
    return random.uniform(shortest, longest)  # noqa: S311 - spreading load needs no secrecy


def command_pause(tried: int) -> float:
    """Before a command is sent again after `tried` tries: full jitter, 10 ms to 1 s."""
    return between(0.010, min(1.0, 0.020 * 2 ** min(tried, 6)))


def source_pause(failures: int, *, busy: bool) -> float:
    """Before a stream or a poll is opened again. A full engine is asked again soon, a lost one ever later, to 2 s."""
    if busy:
        return between(0.05, 0.5)
    return between(0.1, min(2.0, 0.2 * 2 ** min(failures, 6)))


def job_pause(first: timedelta, tried: int, after: timedelta | None) -> timedelta:
    """Before the engine hands a failed job out again: half to all of `first`, doubled with each try, to a minute.

    When the other side said `after`, never earlier than that.
    """
    if after is not None:
        return after * between(1.0, 1.1)
    return timedelta(
        seconds=min(_LONGEST_JOB_PAUSE, first.total_seconds() * 2 ** min(tried - 1, 16)) * between(0.5, 1.0)
    )
