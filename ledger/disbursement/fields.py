"""What a field must look like, wherever it comes from: an API body, a CSV cell, the seed file.

Each function returns the value as it is kept and raises `ValueError` with a sentence that says how to mend it; the
value itself is not repeated.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from hub.money import BadMoney, Money

CURRENCY: Final = "MXN"
"""The one currency of stores: STP pays no other."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CLABE: Final = re.compile(r"[0-9]{18}", re.ASCII)
_CLABE_WEIGHTS: Final = (3, 7, 1) * 5 + (3, 7)
# RFC of a person or a company, or a CURP.
_TAX_ID: Final = re.compile(r"[A-ZÑ&]{3,4}[0-9]{6}[A-Z0-9]{3}|[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[A-Z0-9][0-9]", re.ASCII)
_RATE: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,2})?", re.ASCII)
_LONGEST_NAME: Final = 140
_FORMULA: Final = ("=", "+", "-", "@")
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def object_id(text: str) -> str:
    """The id of a merchant, store, option or credit."""
    if _ID.fullmatch(text) is None:
        raise ValueError("an id has 1 to 64 letters, digits, '.', '_' or '-' and begins with a letter or digit")
    return text


def name(text: str) -> str:
    """A name: one printable line. What a spreadsheet would take for a formula is refused, since reports hold names."""
    if not text or text != text.strip():
        raise ValueError("a name is not empty and neither begins nor ends with a blank")
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"a name has at most {_LONGEST_NAME} characters")
    if not text.isprintable():
        raise ValueError("a name is one line without control characters")
    if text.startswith(_FORMULA):
        raise ValueError("a name that begins with =, +, - or @ is a formula to a spreadsheet; begin it with a letter")
    return text


def clabe(text: str) -> str:
    """A bank account's number of 18 digits, the last of them a check digit (Banco de México)."""
    if _CLABE.fullmatch(text) is None:
        raise ValueError("a CLABE has 18 digits; a spreadsheet must keep them as text")
    total = sum(int(digit) * weight % 10 for digit, weight in zip(text[:17], _CLABE_WEIGHTS, strict=True))
    if str(-total % 10) != text[17]:
        raise ValueError("the check digit of the CLABE is wrong; look for a mistyped digit")
    return text


def tax_id(text: str) -> str:
    """An RFC or a CURP."""
    if _TAX_ID.fullmatch(text) is None:
        raise ValueError("an RFC or CURP in capital letters, like XAXX010101000")
    return text


def amount(text: str) -> int:
    """A decimal amount of MXN, not negative, in minor units."""
    try:
        return Money.parse(text, CURRENCY).minor
    except BadMoney as error:
        raise ValueError(str(error)) from None


def positive_amount(text: str) -> int:
    """A decimal amount of MXN above zero, in minor units."""
    minor = amount(text)
    if minor == 0:
        raise ValueError("the amount must be more than zero")
    return minor


def signed_amount(text: str) -> int:
    """A decimal amount of MXN other than zero, with a minus sign when it takes away, in minor units."""
    try:
        return -positive_amount(text[1:]) if text.startswith("-") else positive_amount(text)
    except ValueError:
        raise ValueError("an amount like 80.00 or -80.00: other than zero, with at most two decimals") from None


def rate(text: str) -> int:
    """A percentage with up to two decimals, in basis points: `5.25` is 525."""
    if _RATE.fullmatch(text) is None:
        raise ValueError("a rate is a percentage with up to two decimals, like 5.25")
    whole, _, part = text.partition(".")
    points = int(whole) * 100 + int(part.ljust(2, "0") or "0")
    if points > 10_000:
        raise ValueError("a rate is at most 100.00")
    return points


def instant(text: str) -> datetime:
    """An instant of ISO 8601 with its time zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("an instant like 2026-03-05T12:00:00-06:00") from None
    if found.tzinfo is None:
        raise ValueError("an instant needs its time zone, as in 2026-03-05T12:00:00-06:00")
    if not _EARLIEST <= found <= _LATEST:
        raise ValueError(f"an instant from {_EARLIEST.year} to {_LATEST.year}")
    return found


def reason(text: str) -> str:
    """Why something is done by hand: a printable line that says something."""
    if not text.strip() or len(text) > 500 or not text.isprintable():
        raise ValueError("a reason is one line of 1 to 500 printable characters")
    return text
