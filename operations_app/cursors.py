"""Reading on. A cursor says where a list goes on; it is signed, and belongs to one list, one filter and one tenant.

    cursors = Cursors(secret)
    after = cursors.read(request, who, cursor)       # None on the first page
    following = cursors.write(request, who, page.hits[-1].sort)

A cursor that was changed, made by somebody else, or taken from another question is answered with 400 cursor-mismatch.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request

from hub.api import Caller, Problem, not_valid

PREFIX: Final = "/api/v1"
"""What the application puts before the path of every route."""

MAX_LIMIT: Final = 200

Cursor = Annotated[
    str | None, Query(max_length=1024, description="`nextCursor` of the page before.", examples=["eyJhIjpbMV19.c2ln"])
]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="The most rows of a page.")]

_NOT_PART_OF_THE_QUESTION: Final = frozenset({"cursor", "limit"})


class Cursors:
    """Writes and reads cursors with one secret. `secret`: the same in every instance of the service."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.new(secret, b"cursors", hashlib.sha256).digest()

    def write(self, request: Request, caller: Caller, position: Sequence[Any]) -> str:
        """Where this question's list goes on: `position` is what JSON can hold."""
        content = json.dumps(list(position), separators=(",", ":")).encode()
        return f"{_text(content)}.{_text(self._signature(request, caller, content))}"

    def read(self, request: Request, caller: Caller, cursor: str | None) -> list[Any] | None:
        """The position in a cursor of this very question. Raises the 400 for any other text."""
        if cursor is None:
            return None
        content_text, _, signature = cursor.partition(".")
        try:
            content, signed = _bytes(content_text), _bytes(signature)
        except (binascii.Error, ValueError):
            raise _mismatch() from None
        if not hmac.compare_digest(signed, self._signature(request, caller, content)):
            raise _mismatch()
        position: list[Any] = json.loads(content)
        return position

    def _signature(self, request: Request, caller: Caller, content: bytes) -> bytes:
        given = request.query_params.multi_items()
        asked = sorted(item for item in given if item[0] not in _NOT_PART_OF_THE_QUESTION)
        question = json.dumps([caller.tenant, request.url.path, asked]).encode()
        return hmac.new(self._key, hashlib.sha256(question).digest() + content, hashlib.sha256).digest()[:16]


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))


def _mismatch() -> Problem:
    return Problem(400, "cursor-mismatch", "This cursor belongs to another question; ask for the first page again.")


async def _cursors(request: Request) -> Cursors:
    cursors: Cursors = request.app.state.cursors
    return cursors


Paging = Annotated[Cursors, Depends(_cursors)]
"""Parameter of a route that answers in pages."""


async def only_known_parameters(request: Request) -> None:
    """Dependency: refuse a query parameter that the route does not know, since a misspelt filter must not show
    everything, and a text that no database can hold."""
    if any("\x00" in str(value) for value in request.path_params.values()):
        raise Problem(404, "not-found", "There is nothing at this address.")
    known = _parameters_of(request)
    faults = [
        {"parameter": name, "code": "unknown-field", "detail": "There is no such parameter."}
        for name in sorted(set(request.query_params) - known.keys())
    ]
    faults += [
        {"parameter": name, "code": "not-valid", "detail": "This parameter stands twice."}
        for name, many in sorted(known.items())
        if not many and len(request.query_params.getlist(name)) > 1
    ]
    faults += [
        {"parameter": name, "code": "bad-format", "detail": "No text holds the character U+0000."}
        for name, value in request.query_params.multi_items()
        if "\x00" in value
    ]
    if faults:
        raise not_valid(faults)


def _parameters_of(request: Request) -> dict[str, bool]:
    """The query parameters that a route is described with, and whether each may stand more than once."""
    paths: dict[str, Any] = request.app.openapi()["paths"]
    path: str = request.scope["route"].path
    described = paths.get(PREFIX + path, paths.get(path, {})).get(request.method.lower(), {})
    return {
        each["name"]: each["schema"].get("type") == "array"
        for each in described.get("parameters", ())
        if each["in"] == "query"
    }
