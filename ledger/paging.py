"""Reading on. A cursor says where a list goes on and belongs to one question: another question's cursor is refused."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from fastapi import Request

from hub.api import Problem, not_valid

_NOT_PART_OF_THE_QUESTION = frozenset({"cursor", "limit"})
_HIGHEST = 2**63 - 1


async def only_known_parameters(request: Request) -> None:
    """Dependency: refuse a query parameter that the route does not know, or that stands twice."""
    described = request.app.openapi()["paths"][request.scope["route"].path]["get"]
    known = {each["name"] for each in described.get("parameters", ()) if each["in"] == "query"}
    given = request.query_params.multi_items()
    faults = [
        {"parameter": name, "code": "unknown-field", "detail": "There is no such parameter."}
        for name in sorted({name for name, _ in given} - known)
    ]
    names = [name for name, _ in given]
    faults += [
        {"parameter": name, "code": "not-valid", "detail": "This parameter stands twice."}
        for name in sorted(known)
        if names.count(name) > 1
    ]
    if faults:
        raise not_valid(faults)


def cursor(request: Request, position: Sequence[int]) -> str:
    """Where this question's list goes on."""
    return base64.urlsafe_b64encode(json.dumps([_question(request), *position]).encode()).decode().rstrip("=")


def position(request: Request, given: str | None, length: int = 1) -> list[int] | None:
    """The `length` numbers of a cursor of this very question. Raises the 422 for any other text."""
    if given is None:
        return None
    found = _decoded(given)
    if len(found) != length + 1 or found[0] != _question(request):
        raise _unreadable()
    numbers = found[1:]
    if not all(type(number) is int and 0 <= number <= _HIGHEST for number in numbers):
        raise _unreadable()
    return numbers


def name_cursor(request: Request, name: str) -> str:
    """Where this question's list goes on when it is in the order of names."""
    return base64.urlsafe_b64encode(json.dumps([_question(request), name]).encode()).decode().rstrip("=")


def name_position(request: Request, given: str | None) -> str:
    """The name of a cursor of this very question, empty for none. Raises the 422 for any other text."""
    if given is None:
        return ""
    found = _decoded(given)
    if len(found) != 2 or found[0] != _question(request) or not isinstance(found[1], str) or "\0" in found[1]:
        raise _unreadable()
    return found[1]


def _decoded(given: str) -> list[Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise _unreadable() from None
    if not isinstance(found, list):
        raise _unreadable()
    return found


def _question(request: Request) -> str:
    asked = sorted(item for item in request.query_params.multi_items() if item[0] not in _NOT_PART_OF_THE_QUESTION)
    return hashlib.sha256(json.dumps([request.url.path, asked]).encode()).hexdigest()[:16]


def _unreadable() -> Problem:
    return not_valid([{"parameter": "cursor", "code": "not-valid", "detail": "Not a cursor of this very question."}])
