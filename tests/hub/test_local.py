"""What `payhub up` tells its processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from connectors import registry
from hub.local import SERVICES, WORKERS, LocalHub
from hub.stack.plan import HubPlan
from hub.stack.ports import choose_free
from hub.stack.state import Profile, new_state


def plan(folder: Path) -> HubPlan:
    hub = LocalHub(folder)
    state = new_state(Profile.BAREBONE, choose_free(dict.fromkeys(hub.ports(Profile.BAREBONE), 0)))
    servers = {
        "zeebe": SecretStr("localhost:26500"),
        "postgres": SecretStr("postgresql+psycopg://u:p@localhost/payhub"),
    }
    return hub.plan(state.model_copy(update={"existing": servers}))


def test_everything_that_a_connector_brings_is_started():
    assert set(WORKERS) == set(registry.MODULES)
    asked_for = {"fineract-simulator"}  # only by whoever has Fineract as the account system
    assert set(SERVICES) == {"ledger", *registry.SERVICES} - asked_for


def test_only_the_simulator_is_asked_without_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert plan(tmp_path).environment["PAYHUB_STP_CONSULTS_PER_HOUR"] == "1000000"
    monkeypatch.setenv("PAYHUB_STP_BASE_URL", "https://stp.example")
    environment = plan(tmp_path).environment
    assert environment["PAYHUB_STP_BASE_URL"] == "https://stp.example"
    assert "PAYHUB_STP_CONSULTS_PER_HOUR" not in environment
    assert "PAYHUB_STP_PAGE_PAUSE" not in environment


def test_with_fineract_reconciliation_leaves_our_ledger_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert plan(tmp_path).environment["PAYHUB_STP_RECONCILE_LEDGER"] == "true"
    monkeypatch.setenv("PAYHUB_AMS_BACKEND", "fineract")
    assert plan(tmp_path).environment["PAYHUB_STP_RECONCILE_LEDGER"] == "false"
