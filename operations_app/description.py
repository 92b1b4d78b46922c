"""What there is to call, as OpenAPI: every route with its scope, an example, and the problems it may answer with.

The examples are in `examples.json`, by what a route is called: `answer`, and `request` where there is a body.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from hub.api import PROBLEM_SCHEMA
from operations_app.access import DOORS, SCOPES, Scope

_PROBLEMS: Final[Mapping[str, tuple[str, str, str]]] = {
    "400": (
        "A cursor of another question, or a header that is missing or cannot be read.",
        "cursor-mismatch",
        "This cursor belongs to another question; ask for the first page again.",
    ),
    "401": ("No token, or not one that is believed.", "token-missing", "Send a bearer token."),
    "403": (
        "None of the caller's roles has the scope, or it is not for this caller to say.",
        "role-missing",
        "This needs one of the roles: operator, treasury.",
    ),
    "404": (
        "There is no such object, or it is another tenant's.",
        "not-found",
        "Your tenant has no such payment.",
    ),
    "409": (
        "Not possible as things stand; `code` and `detail` say why.",
        "repair-under-way",
        "Another action repairs this payment just now.",
    ),
    "412": (
        "The payment, or the policies, are not as the caller saw them.",
        "precondition-failed",
        "The payment has changed since; look at it again.",
    ),
    "422": (
        "The request was understood and is not acceptable; `errors` says where.",
        "not-valid",
        "The request was understood and is not acceptable; errors says where.",
    ),
    "428": (
        "The header that says which state the caller saw is missing.",
        "precondition-required",
        "This needs If-Match with the ETag of the transfer as you saw it.",
    ),
    "503": (
        "A part this needs is away; nothing was done. `Retry-After` says when to ask again.",
        "unavailable",
        "A part this needs is away for the moment. Nothing was done; the same request may be sent again.",
    ),
}
"""By status: what it means, and an example's code and detail."""
_ALWAYS: Final = ("401", "403", "422", "503")
_DECIDES: Final = frozenset({"actions", "bulk"})
"""Slices whose requests meet a state that may not allow them."""
_RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def routes(routers: Iterable[APIRouter]) -> Iterator[APIRoute]:
    """Every route of these routers."""
    for router in routers:
        yield from (route for route in router.routes if isinstance(route, APIRoute))


def operation_id(route: APIRoute) -> str:
    """What a route is called: its slice and its name, as in `actions.approve`."""
    tag = str(route.tags[0]) if route.tags else "other"
    return f"{tag.lower().replace(' ', '-')}.{route.name}"


def scopes_asked(route: APIRoute) -> frozenset[Scope]:
    """The scopes that a route's dependencies ask for."""
    found: set[Scope] = set()
    waiting = [route.dependant]
    while waiting:
        one = waiting.pop()
        found |= {scope for scope, door in DOORS.items() if one.call is door}
        waiting += one.dependencies
    return frozenset(found)


def examples() -> Mapping[str, Mapping[str, Any]]:
    """An example of each route, by what it is called."""
    found: Mapping[str, Mapping[str, Any]] = json.loads(files(__package__).joinpath("examples.json").read_text("utf-8"))
    return found


def describe(app: FastAPI, routers: Iterable[APIRouter], bodies: Mapping[str, type[BaseModel]]) -> None:
    """Let `app.openapi()` say so. `bodies`: of routes that read theirs themselves."""
    scopes = {operation_id(route): scopes_asked(route) for route in routes(routers)}
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = dict(PROBLEM_SCHEMA)
            shown = examples()
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    name = operation["operationId"]
                    if name in bodies:
                        operation["requestBody"] = _body(bodies[name], schemas)
                    _complete(operation, scopes.get(name, frozenset()))
                    _explain(operation, method, path)
                    _show(operation, shown.get(name, {}))
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], scopes: frozenset[Scope]) -> None:
    operation["x-scopes"] = sorted(scopes)
    roles = sorted(role for role, owned in SCOPES.items() if scopes and scopes <= owned)
    operation["description"] = f"{operation.get('description', '')}\n\nRoles: {', '.join(roles) or 'any'}.".strip()


def _explain(operation: dict[str, Any], method: str, path: str) -> None:
    """The problems that a route may answer with, each with an example."""
    names = {one["name"].lower() for one in operation.get("parameters", ())}
    found = set(_ALWAYS)
    if "{" in path or path.endswith("/balances/accounts"):
        found.add("404")
    if names & {"cursor", "idempotency-key"}:
        found.add("400")
    if method != "get" and operation["tags"][0] in _DECIDES:
        found.add("409")
    if "if-match" in names:
        found |= {"412", "428"}
    for status in sorted(found):
        meaning, code, detail = _PROBLEMS[status]
        example: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(int(status)).phrase}
        example |= {"status": int(status), "code": code, "detail": detail}
        if status == "422":
            fault = {"parameter": "stat", "code": "unknown-field", "detail": "There is no such parameter."}
            example["errors"] = [fault]
        content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
        operation["responses"][status] = {
            "description": meaning,
            "content": {"application/problem+json": content},
            **({"headers": _RETRY_AFTER} if status == "503" else {}),
        }


def _show(operation: dict[str, Any], example: Mapping[str, Any]) -> None:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        if "request" in example:
            content["example"] = example["request"]
    for status, answer in operation["responses"].items():
        if status < "300" and "answer" in example:
            for content in answer.get("content", {}).values():
                content["example"] = example["answer"]


def _body(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    made = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= made.pop("$defs", {})
    schemas[model.__name__] = made
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}
