"""The edge of the operations API: who may call what, what it says of itself, and what happens without its views."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from connectors.channel.store import ChannelStore
from hub.api import Caller
from hub.transfer import TenantId
from operations_app.access import SCOPES, scopes_of
from operations_app.app import SLICES, own
from operations_app.compat import router as compat
from operations_app.description import operation_id, routes, scopes_asked

ASKS_INSIDE = {"reveal.reveal"}
"""Asks for its scope in the handler, since a refusal is written to the operator log too."""

ANYBODY = {"description.openapi_document"}
"""For whoever has a token."""

OPEN = {"/health/live", "/health/ready", "/metrics"}


def test_every_route_asks_for_a_scope():
    without = {operation_id(route) for route in routes((*SLICES, own, compat)) if not scopes_asked(route)}
    assert without == ASKS_INSIDE | ANYBODY


async def test_nothing_but_health_and_metrics_is_told_without_a_token(operations):
    paths = operations.app.openapi()["paths"]
    for path, methods in paths.items():
        for method in methods:
            answer = await operations.client.request(method.upper(), re.sub(r"\{[a-z_]+\}", "1", path))
            assert answer.status_code == 401, path
            assert answer.json()["code"] == "token-missing"
    for path in OPEN:
        assert (await operations.client.get(path)).status_code == 200


def test_whoever_asks_for_actions_does_not_approve_them_by_the_same_role():
    for pair in (("actions:request", "actions:approve"), ("bulk:request", "bulk:approve")):
        assert [role for role, scopes in SCOPES.items() if scopes.issuperset(pair)] == []
    assert scopes_of(Caller("ana", TenantId("acme"), frozenset({"channel", "nonsense"}))) == frozenset()


@pytest.mark.parametrize(
    ("path", "role", "status"),
    [
        ("/transfers", "channel", 403),
        ("/transfers", "viewer", 200),
        ("/audit", "viewer", 403),
        ("/audit", "auditor", 200),
        ("/audit.csv", "treasury", 403),
    ],
)
async def test_a_role_opens_what_the_table_says(operations, path, role, status):
    assert (await operations.get(path, role)).status_code == status


async def test_the_description_is_whole(operations):
    described = await operations.ok("/openapi.json")
    assert described["openapi"].startswith("3.")
    operation_ids = []
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            operation_ids.append(operation["operationId"])
            assert operation["tags"], where
            assert operation["description"], where
            assert operation["responses"].keys() >= {"401", "403", "422", "503"}, where
            assert ("404" in operation["responses"]) or "{" not in path, where
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert list(answer["content"]) == ["application/problem+json"], where
            named = set(re.findall(r"\{([a-z_]+)\}", path))
            assert named == {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}, where
    assert len(operation_ids) == len(set(operation_ids))
    assert references(described) <= {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert described["components"]["schemas"]["TransferRow"]["examples"]


def references(value: Any) -> set[str]:
    """Every `$ref` of a description."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(one) for one in value.values()))
    return set().union(*(references(one) for one in value)) if isinstance(value, list) else set()


async def test_without_elasticsearch_reading_is_refused_for_the_moment_and_payments_go_on(without_views, told):  # H15
    api = without_views
    for path in ("/transfers", f"/transfers/{told.foreign}", "/incidents/groups", "/processes", "/transfers.csv"):
        answer = await api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path
        assert answer.headers["retry-after"]
    assert (await api.client.get("/health/ready")).status_code == 200
    servers = {one["name"]: one["state"] for one in (await api.ok("/health"))["servers"]}
    assert (servers["elasticsearch"], servers["postgresql"]) == ("away", "ready")
    # What the channel reads is PostgreSQL's alone.
    assert await ChannelStore(api.database).find(TenantId("globex"), told.foreign) is not None


async def test_a_view_that_was_not_made_yet_is_as_good_as_away(operations, told):
    operations.views._prefix = f"none{uuid.uuid4().hex[:8]}"
    for path in ("/transfers", "/incidents", "/processes", f"/transfers/{uuid.uuid4()}"):
        assert (await operations.get(path)).status_code == 503, path
