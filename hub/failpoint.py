"""Named points at which a test may kill the process, to prove that dying right there loses and doubles nothing.

    PAYHUB_FAILPOINT="channel.accept.after-commit"      die the first time this point is reached
    PAYHUB_FAILPOINT="ams.hold.after-commit:20"         die the twentieth time
    PAYHUB_FAILPOINT_ONCE=/some/folder                  ... and once only, however often the process is started again

Without the setting a failpoint costs one dictionary look-up and does nothing.
"""

from __future__ import annotations

import os
import signal
from itertools import count
from pathlib import Path

_reached: dict[str, count[int]] = {}


def failpoint(name: str) -> None:
    """Kill this process (SIGKILL) if the environment asks for it at this point."""
    wanted = os.environ.get("PAYHUB_FAILPOINT")
    if not wanted:
        return
    point, _, hit = wanted.partition(":")
    if point != name or next(_reached.setdefault(name, count(1))) != int(hit or 1):
        return
    once = os.environ.get("PAYHUB_FAILPOINT_ONCE")
    if once:
        try:
            (Path(once) / name).touch(exist_ok=False)
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
