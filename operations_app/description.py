"""What there is to call, as OpenAPI: every route with its scope and the problems it may answer with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from operations_app.access import DOORS, SCOPES, Scope

_PROBLEM: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "An error (RFC 9457). `code` is stable and for machines.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}},
    },
    "example": {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "not-found",
        "detail": "Your tenant has no such payment.",
    },
}
_ANSWERS: Final[Mapping[str, str]] = {
    "401": "No token, or not one that is believed.",
    "403": "None of the caller's roles has the scope.",
    "422": "The request was understood and is not acceptable; `errors` says where.",
    "503": "A part this needs is away; nothing was done.",
}
_NOT_FOUND: Final = "There is no such object, or it is another tenant's."
_CONTENT: Final[Mapping[str, Any]] = {
    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
}


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


def describe(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Let `app.openapi()` say so."""
    scopes = {operation_id(route): scopes_asked(route) for route in routes(routers)}
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schema.setdefault("components", {}).setdefault("schemas", {})["Problem"] = dict(_PROBLEM)
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    _complete(operation, path, scopes.get(operation["operationId"], frozenset()))
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], path: str, scopes: frozenset[Scope]) -> None:
    answers: dict[str, Any] = operation["responses"]
    for status, detail in {**_ANSWERS, **({"404": _NOT_FOUND} if "{" in path else {})}.items():
        answers[status] = {"description": detail}
    for status, answer in answers.items():
        if status >= "400":
            answer["content"] = dict(_CONTENT)
    operation["x-scopes"] = sorted(scopes)
    roles = sorted(role for role, owned in SCOPES.items() if scopes and scopes <= owned)
    operation["description"] = f"{operation.get('description', '')}\n\nRoles: {', '.join(roles) or 'any'}.".strip()
