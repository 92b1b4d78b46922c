"""The commands around the views, as far as they need no server."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from hub.cli import app


@pytest.mark.parametrize("command", ["export", "rebuild"])
def test_a_view_that_there_is_none_of_is_refused_with_those_there_are(command: str):
    done = CliRunner().invoke(app, [command, "nonsense", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"] == "there is no view nonsense; there are audit, operations"


def test_a_rebuild_without_servers_fails_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAYHUB_ELASTICSEARCH_URL", "http://127.0.0.1:1")
    done = CliRunner().invoke(app, ["rebuild", "audit", "--json", "--data-dir", "/nowhere"])
    assert done.exit_code == 1
    assert "error" in json.loads(done.stdout)
