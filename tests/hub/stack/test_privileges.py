"""The servers' user, and the folders it must be able to enter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hub.stack.errors import MachineUnfit
from hub.stack.privileges import ServerUser, closed_folder, server_user

SOMEBODY = ServerUser("somebody", 64_999, 64_999)


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that everybody can reach; pytest keeps its own to itself."""
    folder = tmp_path / "open"
    folder.mkdir()
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    return folder


def test_a_closed_folder_on_the_way_is_found(open_folder: Path):
    closed = open_folder / "home"
    closed.mkdir(mode=0o700)
    assert closed_folder(closed / "hub" / ".payhub", SOMEBODY) == closed


def test_an_open_way_is_open_even_where_folders_are_still_to_be_made(open_folder: Path):
    assert closed_folder(open_folder / "hub" / ".payhub", SOMEBODY) is None


def test_the_owner_enters_where_others_do_not(open_folder: Path):
    closed = open_folder / "home"
    closed.mkdir(mode=0o700)
    assert closed_folder(closed, ServerUser("owner", closed.stat().st_uid, SOMEBODY.gid)) is None


def test_who_is_not_root_simply_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert server_user() is None


def test_root_hands_servers_to_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    user = server_user()
    assert user is not None
    assert user.name == "nobody"


@pytest.mark.parametrize(("name", "problem"), [("no-such-user", "there is no user called"), ("root", "is root")])
def test_a_user_that_will_not_do_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, problem: str):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PAYHUB_STACK_USER", name)
    with pytest.raises(MachineUnfit, match=problem):
        server_user()
