"""`payhub stp sign FILE`: what would be signed for an order that a person wrote down, and the signature.

The file is the JSON of an order with STP's own field names. It is signed exactly as it stands: nothing is cleaned, cut
or filled in, because the value signed must be the value sent.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from connectors.stp.signature import Signer
from connectors.stp.wire import SIGNED, UNSIGNED, Orden


class OrderFileError(Exception):
    """The file is no order; the text names the field and the fix, and repeats no value."""


def read_order(path: Path) -> Orden:
    """Read an order from a file. Raises `OrderFileError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OrderFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OrderFileError(f"{path}: is not UTF-8 text") from None
    try:
        order = json.loads(text, parse_float=Decimal, object_pairs_hook=_once)
    except RecursionError:
        raise OrderFileError(f"{path}: is nested too deeply to be an order") from None
    except json.JSONDecodeError as error:
        raise OrderFileError(f"{path}: is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise OrderFileError(f"{path}: {error}") from None
    if not isinstance(order, dict):
        raise OrderFileError(f"{path}: must hold one JSON object with the order's fields")
    for ignored in (*UNSIGNED, "firma"):
        order.pop(ignored, None)
    try:
        return Orden.model_validate(order)
    except ValidationError as error:
        raise OrderFileError(f"{path}: " + "; ".join(_problem(problem) for problem in error.errors())) from None


def sign_file(path: Path, key: Path, passphrase: str | None = None) -> dict[str, str]:
    """The joined string and the base64 signature of the order in a file.

    Raises `OrderFileError` for the order and `connectors.stp.signature.BadKey` for the key.
    """
    joined = read_order(path).joined()
    return {"joined": joined, "signature": Signer.from_file(key, passphrase).sign(joined)}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different: of a field given twice nobody knows which value is sent."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name in found if [each for each, _ in pairs].count(name) > 1)
        raise ValueError(f"{twice}: is given twice")
    return found


def _problem(problem: Any) -> str:
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        close = next((known for known in SIGNED if known.lower() == name.lower()), None)
        return f"{name}: is no field of an order" + (f"; did you mean {close}?" if close else "")
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}"
