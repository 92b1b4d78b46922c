"""Which variables an operator may change where: the JSON schemas of bpmn/overrides.json.

Only the keywords that stand there are known here; an unknown one is refused when the file is read, so that no rule is
written down and not kept. `pattern` has to fit the whole text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

_TYPES: Final[Mapping[str, type]] = {"string": str, "integer": int, "boolean": bool, "null": type(None), "object": dict}
_KNOWN: Final = frozenset(
    {"type", "properties", "additionalProperties", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum"}
)

Schema = Mapping[str, Any]


class SchemaError(ValueError):
    """The file holds something that is not understood."""


@cache
def schemas() -> Mapping[tuple[str, str], Schema]:
    """The schema of each place, by process and element. Raises `SchemaError`."""
    read = json.loads(files("bpmn").joinpath("overrides.json").read_bytes())
    found = {
        (process, element): schema
        for process, elements in read.items()
        if not process.startswith("$")
        for element, schema in elements.items()
    }
    for schema in found.values():
        _understood(schema)
        if schema.get("additionalProperties", True) is not False:
            raise SchemaError("additionalProperties has to be false: every variable is named")
    return found


def allowed_at(process_id: str, element_id: str) -> Schema | None:
    """What may be changed while a payment is stuck there. Nothing when nothing may."""
    return schemas().get((process_id, element_id))


def faults(schema: Schema, value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Where a value does not fit a schema, as JSON pointers, and why. The value itself is not repeated."""
    kinds = schema.get("type")
    if kinds is not None and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield at, f"has to be {kinds if isinstance(kinds, str) else ' or '.join(kinds)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield at, f"has to be one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, str):
        yield from _text_faults(schema, value, at)
    elif type(value) is int:
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield at, f"has to be from {schema.get('minimum')} to {schema.get('maximum')}"
    elif isinstance(value, dict):
        yield from _object_faults(schema, value, at)


def _is(value: Any, kind: str) -> bool:
    return type(value) is _TYPES[kind]


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def _text_faults(schema: Schema, value: str, at: str) -> Iterator[tuple[str, str]]:
    if _CONTROL.search(value):
        yield at, "has to be printable text"
    if "pattern" in schema and re.fullmatch(schema["pattern"], value, re.ASCII) is None:
        yield at, f"has to fit {schema['pattern']}"
    if len(value) > schema.get("maxLength", len(value)) or len(value) < schema.get("minLength", 0):
        yield at, "is too long or too short"


def _object_faults(schema: Schema, value: Mapping[str, Any], at: str) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties", {})
    for name, inner in value.items():
        if name in properties:
            yield from faults(properties[name], inner, f"{at}/{name}")
        elif schema.get("additionalProperties", True) is False:
            yield f"{at}/{name}", "may not be changed here"


def _understood(schema: Schema) -> None:
    kinds = schema.get("type", [])
    unknown = schema.keys() - _KNOWN | {k for k in ([kinds] if isinstance(kinds, str) else kinds) if k not in _TYPES}
    if unknown:
        raise SchemaError(f"not understood: {', '.join(sorted(unknown))}")
    for inner in schema.get("properties", {}).values():
        _understood(inner)
