"""What `GET /openapi.json` answers: every route with an example of what is sent and of what is answered, errors too.

FastAPI describes bodies and answers of the models. What it cannot know is put in here: that errors are problems with
stable codes, and what a page or another answer without an example of its own looks like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from connectors.disbursement.access import REMEDIES, status_of, unknown
from hub.api import PROBLEM_SCHEMA
from ledger.disbursement.model import DisbursementRefused

_REF: Final = "#/components/schemas/"
_ALWAYS: Final = {
    "401": ("No token, or none that is believed.", {"token-missing": "This needs a token."}),
    "403": ("A token without the role.", {"role-missing": "This needs one of the roles: operator, treasury."}),
    "503": ("Certainly not done; ask again later.", {"unavailable": "The database is away; ask again."}),
}
_WITH_BODY: Final = {
    "400": ("No JSON.", {"malformed-json": "The body is not JSON: Expecting value."}),
    "413": ("Too long.", {"body-too-large": "A body may hold 1000000 bytes."}),
}
_NOT_VALID: Final = {"not-valid": "The request was understood and is not acceptable; errors says where."}


def describe(app: FastAPI) -> None:
    """Let `app.openapi()` say so. Lists ask it too, for the parameters that they know."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = dict(PROBLEM_SCHEMA)
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            _describe(path, verb, operation, schemas)
    return document


def _describe(path: str, verb: str, operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    for answer in answers.values():
        for content in answer.get("content", {}).values():
            schema = content.get("schema", {})
            if schema.get("$ref", "").startswith(_REF):
                content["example"] = _example(schema, schemas)
    problems = dict(_ALWAYS)
    if "requestBody" in operation:
        problems |= _WITH_BODY
    if "{" in path or "requestBody" in operation:
        problems["404"] = ("Unknown, or another's.", {code: _detail(code) for code in _codes("404", path)})
    if operation.get("parameters") or "requestBody" in operation:
        refused = {code: _detail(code) for code in _codes("422", path)} if verb != "get" else {}
        problems["422"] = ("Not acceptable; `errors` says where.", _NOT_VALID | refused)
    if verb != "get":
        problems["409"] = ("Refused by a rule.", {code: _detail(code) for code in _codes("409", path)})
    for status, (why, details) in sorted(problems.items()):
        answers[status] = _problem(int(status), why, details)


def _problem(status: int, why: str, details: Mapping[str, str]) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    examples = {
        code: {"value": {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}}
        for code, detail in details.items()
    }
    content = {"schema": {"$ref": f"{_REF}Problem"}, "examples": examples}
    named = ", ".join(f"`{code}`" for code in details)
    return {"description": f"{why} Codes: {named}.", "content": {"application/problem+json": content}}


def _codes(status: str, path: str) -> Iterator[str]:
    """The codes that the rules refuse with."""
    if path.endswith(("/report", ".json", ".csv", ".html", "/deliveries", "/report-address")) and status == "404":
        yield "not-found"
        return
    for code in sorted({refused.code for refused in _refusals(DisbursementRefused)}):
        if status == str(status_of(code)):
            yield code


def _refusals(kind: type[DisbursementRefused]) -> Iterator[type[DisbursementRefused]]:
    for below in kind.__subclasses__():
        yield below
        yield from _refusals(below)


def _detail(code: str) -> str:
    return unknown(code) or REMEDIES.get(code, "What stands in the way, and what to do about it.")


def _named(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schemas[schema["$ref"].removeprefix(_REF)]
    return found


def _example(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    """An example made of those of the parts."""
    if "$ref" in schema:
        return _example(_named(schema, schemas), schemas)
    if "example" in schema:
        # FastAPI leaves out what is null, which an answer does not.
        return {**dict.fromkeys(schema.get("properties", {})), **schema["example"]}
    if schema.get("examples"):
        return schema["examples"][0]
    if "properties" in schema:
        return {name: _example(part, schemas) for name, part in schema["properties"].items()}
    if schema.get("type") == "array":
        return [_example(schema["items"], schemas)]
    return schema.get("default")
