"""The edge of the operations API: who may call what, what it says of itself, and what happens without its views."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import TypeAdapter

from connectors.channel.store import ChannelStore
from hub.api import Caller
from hub.transfer import TenantId
from operations_app.access import SCOPES, scopes_of
from operations_app.app import SLICES, own
from operations_app.compat import router as compat
from operations_app.description import examples, operation_id, routes, scopes_asked
from operations_app.reveal import Reveal

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


def test_every_route_has_an_example_that_fits_its_models():
    shown = examples()
    known = {operation_id(route): route for route in routes((*SLICES, own, compat))}
    assert shown.keys() == known.keys()
    for name, example in shown.items():
        route = known[name]
        if route.response_model is not None and not isinstance(example["answer"], str):
            as_it_is(route.response_model, example["answer"], name)
        body = Reveal if name == "reveal.reveal" else route.body_field and route.body_field.field_info.annotation
        assert ("request" in example) == bool(body) or name == "bulk.steer", name
        if body and "request" in example:
            TypeAdapter(body).validate_python(example["request"])


def as_it_is(model: Any, example: Any, name: str) -> None:
    """Whole: a field that is missing, left over or written in another way shows."""
    adapter = TypeAdapter(model)
    read = adapter.validate_json(json.dumps(example))
    assert adapter.dump_python(read, mode="json", by_alias=True) == example, name


async def test_each_example_and_each_problem_is_in_the_description(operations):
    for path, methods in (await operations.ok("/openapi.json"))["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                for content in answer.get("content", {}).values():
                    assert "example" in content, (method, path, status)
                    assert status < "400" or content["example"]["status"] == int(status)
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert "example" in content, (method, path)


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


ODD = ("a\x00", "..", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")
NEEDED = {"identifierType": "MSISDN", "identifier": "1", "businessKey": "1", "id": "1", "currency": "MXN"}


async def test_no_value_of_any_parameter_is_a_defect(operations, told):
    """Whatever is asked is answered, refused or not found."""
    headers = operations.headers(*SCOPES)
    for path, methods in operations.app.openapi()["paths"].items():
        if "get" not in methods or path.endswith((".csv", ".ndjson", "/health")):  # asked as the lists beside them
            continue
        given = methods["get"].get("parameters", [])
        needed = {one["name"]: NEEDED[one["name"]] for one in given if one.get("required") and one["in"] == "query"}
        asked: list[tuple[str, dict[str, str]]] = []
        if "{" in path:
            asked += [(re.sub(r"\{[a-z_]+\}", quote(odd, safe="").replace(".", "%2e"), path), needed) for odd in ODD]
        else:
            names = [one["name"] for one in given if one["in"] == "query"]
            amounts = {name: {"currency": "MXN"} for name in names if name.startswith("amount")}
            asked += [(path, needed | amounts.get(name, {}) | {name: odd}) for name in names for odd in ODD]
        for where, query in asked:
            answer = await operations.client.get(where, params=query, headers=headers)
            assert answer.status_code in {200, 400, 404, 422}, (where, query, answer.text)
            assert answer.status_code < 400 or answer.headers["content-type"] == "application/problem+json"
