"""Masks: what a view shows of a person, and a digest by which somebody who knows an identifier finds it.

Views hold masked forms only. Structure stays, leaves change: `012180001183597198` becomes `**************7198`,
`Luis Vega` becomes `L*** V***`, an RFC or a CURP vanishes. Free text is searched for whatever looks like one of them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from pydantic_core import from_json

from hub.telemetry import MASK, redact_text

_NAMES: Final = re.compile(r"(?i)(^|_)names?$|holder|beneficiary|ordenante|nombre|^(first|last|full)name$")
_IDENTIFIERS: Final = re.compile(
    r"(?i)^identifier$|account|clabe|card|msisdn|phone|mobile|iban|cuenta|email|(^|_)alias$"
)
_TAX: Final = re.compile(r"(?i)rfc|curp|tax_?id|birth|address|secret|password|firma|private_key")
_NOT_PERSONAL: Final = re.compile(r"(?i)(type|state|status|kind|code|key|url)$")
_NUMBERS: Final = re.compile(
    r"(?<![0-9A-Za-z-])[0-9]{10,18}(?![0-9A-Za-z-])|\+[0-9]{1,3}(?:[ -]?[0-9]){8,12}(?![0-9A-Za-z])"
)
_EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_BARE: Final = re.compile(r"-?[0-9][0-9.eE+-]*|true|false|null")
"""JSON that holds no text; what a number is about, its name tells."""

_DIGITS: Final = re.compile(r"[0-9]{3}|@")


def mask_identifier(identifier: str) -> str:
    """An account, card or phone number with all but its last four characters hidden; short ones wholly."""
    shown = 4 if len(identifier) >= 8 else 0
    return "*" * (len(identifier) - shown) + identifier[len(identifier) - shown :]


def mask_name(name: str) -> str:
    """A person's name as initials."""
    return " ".join(f"{word[0]}***" for word in name.split())


def mask_text(text: str) -> str:
    """Free text without what looks like an identifier, a tax number, a token or a key."""
    text = redact_text(text)
    if _DIGITS.search(text):
        text = _EMAIL.sub(MASK, _NUMBERS.sub(lambda found: mask_identifier(found[0]), text))
    return text


@lru_cache(maxsize=4096)
def _rule_for(key: str) -> str:
    """Keys are the words of drawings and jobs: few, and worth remembering."""
    if _NOT_PERSONAL.search(key):
        return ""
    if _TAX.search(key):
        return "hide"
    if _IDENTIFIERS.search(key):
        return "identifier"
    return "name" if _NAMES.search(key) else ""


def mask(value: Any, key: str = "") -> Any:
    """A variable's value, masked by the name it goes by and, inside of it, by the names of its members."""
    if isinstance(value, Mapping):
        return {name: mask(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [mask(inner, key) for inner in value]
    if value is None or isinstance(value, (bool, float)):
        return value
    rule = _rule_for(key)
    if not rule:
        return mask_text(value) if isinstance(value, str) else value
    text = str(value)
    if rule == "identifier":
        return mask_identifier(text)
    return mask_name(text) if rule == "name" else MASK


def mask_json(name: str, text: str) -> str:
    """The same for a variable as the engine keeps it: JSON in text."""
    if _BARE.fullmatch(text) and not _rule_for(name):
        return text
    try:
        value = from_json(text)
    except ValueError:
        return mask_text(text)
    if value is None or isinstance(value, (bool, float)):
        return text
    return json.dumps(mask(value, name), ensure_ascii=False, separators=(",", ":"))


def search_digest(secret: bytes, identifier: str) -> str:
    """The digest by which a party's whole identifier is found; nobody without the secret can try identifiers out."""
    return hmac.new(secret, identifier.encode(), hashlib.sha256).hexdigest()[:32]
