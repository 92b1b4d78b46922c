"""Who the servers run as. Elasticsearch and PostgreSQL refuse root, so root hands all servers to another user."""

import ctypes
import os
import pwd
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

from hub.stack.errors import MachineUnfit

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ServerUser:
    """The unprivileged user of the servers."""

    name: str
    uid: int
    gid: int


def server_user() -> ServerUser | None:
    """The user to run servers as, or None when we are not root and simply stay who we are.

    ``PAYHUB_STACK_USER`` names one; the default is ``nobody``. Raises MachineUnfit for a name the system does not know.
    """
    if os.geteuid() != 0:
        return None
    name = os.environ.get("PAYHUB_STACK_USER", "nobody")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise MachineUnfit(
            f"The servers refuse to run as root, and there is no user called {name!r} to run them as.",
            "Set PAYHUB_STACK_USER to an existing unprivileged user, or run payhub as one.",
        ) from None
    if entry.pw_uid == 0:
        raise MachineUnfit(
            f"The servers refuse to run as root, and {name!r} is root.",
            "Set PAYHUB_STACK_USER to an unprivileged user.",
        )
    return ServerUser(name, entry.pw_uid, entry.pw_gid)


def closed_folder(path: Path, user: ServerUser | None) -> Path | None:
    """The first folder above or at ``path`` that ``user`` cannot enter; None when the way is open.

    Folders that do not exist yet are taken as ours to create, and open.
    """
    if user is None:
        return None
    resolved = path.resolve()
    for folder in (*reversed(resolved.parents), resolved):
        try:
            status = folder.stat()
        except FileNotFoundError:
            return None
        if status.st_uid == user.uid:
            allowed = status.st_mode & stat.S_IXUSR
        elif status.st_gid == user.gid:
            allowed = status.st_mode & stat.S_IXGRP
        else:
            allowed = status.st_mode & stat.S_IXOTH
        if not allowed:
            return folder
    return None


def give_to(path: Path, user: ServerUser | None) -> None:
    """Make ``path`` belong to the servers' user (a no-op when we are not root)."""
    if user is not None:
        os.chown(path, user.uid, user.gid)


def die_with(parent: int, death_signal: signal.Signals) -> None:
    """Ask the kernel to send ``death_signal`` to this process when ``parent`` ends, however it ends.

    For a freshly forked child, just before it becomes another program. The kernel forgets the wish when credentials
    change, so privileges must already be dropped; and it watches the *thread* that forked, so that one must last.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel took note
        os._exit(1)
