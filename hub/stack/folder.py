"""A stack's data folder, and the lock that gives it to one launcher at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hub.stack.errors import AlreadyRunning, MachineUnfit
from hub.stack.privileges import ServerUser

LOCK_FILE = "launcher.lock"


@contextmanager
def held_folder(data_folder: Path) -> Iterator[None]:
    """Hold a data folder for one launcher. Raises AlreadyRunning when another one has it."""
    with (data_folder / LOCK_FILE).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise AlreadyRunning(data_folder, f"launcher process {lock.read().strip() or 'unknown'}") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def is_held(data_folder: Path) -> bool:
    """Whether a launcher runs on this folder."""
    try:
        with (data_folder / LOCK_FILE).open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def prepare_folder(data_folder: Path, user: ServerUser | None) -> Path:
    """Make a data folder, whose path is returned absolute. Servers' users may pass through it, nobody else may look."""
    folder = data_folder.expanduser().resolve()
    try:
        for path in (folder, folder / "logs", folder / "run"):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)
        if user is not None:
            folder.chmod(0o711)
    except OSError as error:
        raise MachineUnfit(
            f"The data folder {folder} cannot be made: {error.strerror}.", "Name another with --data-dir."
        ) from error
    return folder
