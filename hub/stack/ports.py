"""Which ports the stack listens on, and who is in the way when one is taken. Everything listens on loopback."""

import contextlib
import os
import random
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from hub.stack.errors import PortInUse, StackError

SERVER_PORTS: Mapping[str, int] = {
    "zeebe": 26500,
    "zeebe-command": 26501,
    "zeebe-internal": 26502,
    "zeebe-management": 9600,
    "zeebe-rest": 8088,
    "kafka": 9092,
    "kafka-controller": 9093,
    "elasticsearch": 9200,
    "elasticsearch-transport": 9300,
    "postgres": 5433,
}
"""Default port by name. The part a port belongs to is its name up to the first hyphen."""

# Below the range from which kernels pick ports for outgoing connections, so that nobody takes ours between two runs.
_FREE_PORT_RANGE = range(20000, 32000)

_CLAIM_SECONDS = 600
"""From its choice until a port is surely listened on, or given up."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder_of(port: int) -> str:
    """Who listens on a port, as a phrase for a message; needs root to name another user's process."""
    with contextlib.suppress(psutil.AccessDenied):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    return "another user's process"
                with contextlib.suppress(psutil.NoSuchProcess):
                    return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another process"


def require_free(ports: Mapping[str, int]) -> None:
    """Raise PortInUse for the first taken port, StackError when two parts want the same."""
    owners: dict[int, str] = {}
    for name, port in ports.items():
        if port in owners:
            raise StackError(
                f"Port {port} is wanted by both {owners[port]} and {name}.",
                f"Give one another with --port {name}=NUMBER.",
            )
        owners[port] = name
    for name, port in ports.items():
        if not is_free(port):
            raise PortInUse(name, port, holder_of(port))


def _claim(port: int) -> bool:
    """Whether no other stack of this machine chose this port lately: two that start at once share none."""
    claims = Path(tempfile.gettempdir()) / "payhub-ports"
    try:
        if not claims.is_dir():
            claims.mkdir(exist_ok=True)
            claims.chmod(0o1777)  # for stacks of other users
        with contextlib.suppress(FileExistsError):
            os.close(os.open(claims / str(port), os.O_CREAT | os.O_EXCL))
            return True
        is_old = time.time() - (claims / str(port)).stat().st_mtime > _CLAIM_SECONDS
        if is_old:
            os.utime(claims / str(port))
    except OSError:
        return True  # where nothing can be written, whether it is free must do
    return is_old


def choose_free(wanted: Mapping[str, int]) -> dict[str, int]:
    """Keep every wanted port that is free and replace the others; no two are equal."""
    chosen: dict[str, int] = {}
    taken: set[int] = set()
    for name, preferred in wanted.items():
        port, is_ours = preferred, True
        while port in taken or port not in range(1024, 65536) or not (is_ours and is_free(port)):
            port = random.choice(_FREE_PORT_RANGE)  # noqa: S311 -- not a secret
            is_ours = _claim(port)
        taken.add(port)
        chosen[name] = port
    return chosen


def parse_assignments(assignments: list[str]) -> dict[str, int]:
    """``["zeebe=26600"]`` as a mapping. Raises StackError on anything that is not NAME=NUMBER."""
    ports: dict[str, int] = {}
    for assignment in assignments:
        name, _, number = assignment.partition("=")
        if not name or not number.isdigit() or not 0 < int(number) < 65536:
            raise StackError(
                f"{assignment!r} is not a port assignment.", "Write NAME=NUMBER, for instance zeebe=26600."
            )
        ports[name] = int(number)
    return ports
