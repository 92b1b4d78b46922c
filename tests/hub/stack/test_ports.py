"""Ports: who is in the way, and how to step aside."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.stack import ports
from hub.stack.errors import PortInUse, StackError
from hub.stack.ports import choose_free, is_free, parse_assignments, require_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_names_port_part_holder_and_fix(taken: int):
    with pytest.raises(PortInUse) as caught:
        require_free({"kafka": taken})
    message = str(caught.value)
    assert f"Port {taken}, needed by kafka, is in use by process {os.getpid()}" in message
    assert "--port kafka=NUMBER" in message
    assert "--free-ports" in message


def test_two_parts_may_not_want_the_same_port():
    with pytest.raises(StackError, match="wanted by both kafka and zeebe"):
        require_free({"kafka": 29999, "zeebe": 29999})


def test_free_ports_keep_what_is_free_and_replace_what_is_taken(taken: int):
    (free,) = choose_free({"a": 0}).values()
    chosen = choose_free({"kept": free, "replaced": taken, "also": free})
    assert chosen["kept"] == free
    assert chosen["replaced"] != taken
    assert len(set(chosen.values())) == 3
    assert all(is_free(port) for port in chosen.values())


def test_stacks_that_choose_at_once_share_no_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(ports, "_FREE_PORT_RANGE", range(20000, 20100))
    wanted = {f"part-{number}": 0 for number in range(25)}
    first, second = choose_free(wanted).values(), choose_free(wanted).values()
    assert not set(first) & set(second)
    for claim in (tmp_path / "payhub-ports").iterdir():
        os.utime(claim, (0, 0))
    assert len(choose_free({f"part-{number}": 0 for number in range(60)})) == 60, "what was chosen long ago is free"


def test_assignments_are_names_and_numbers():
    assert parse_assignments(["zeebe=26600", "kafka=9192"]) == {"zeebe": 26600, "kafka": 9192}
    for wrong in ("zeebe", "zeebe=", "=1", "zeebe=99999", "zeebe=x"):
        with pytest.raises(StackError, match="is not a port assignment"):
            parse_assignments([wrong])
