"""Text as SPEI carries it. What is signed and what is sent are both made from the cleaned text, so they agree."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

LONGEST: Final = 39
"""Names and concepts are cut here: STP's limit is 40, and clients in production stay one below."""

_NOT_CARRIED: Final = re.compile(r"[^ -{}~]+")
_FOREIGN: Final = re.compile(r"[^\x00-\x7f]")
_BLANKS: Final = re.compile(r" {2,}")
_DROPPED: Final = frozenset({"Mn", "Mc", "Me", "Cf"})  # accents, and marks without width
_TAX_ID: Final = re.compile(r"[A-Z&]{3,4}[0-9]{6}[A-Z0-9]{3}|[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[A-Z0-9][0-9]", re.ASCII)

# Letters that do not decompose, as a Mexican bank would write them.
_LETTERS: Final = str.maketrans({"ß": "ss", "Ø": "O", "ø": "o", "Æ": "AE", "æ": "ae", "Œ": "OE", "œ": "oe", "Ł": "L",
                                 "ł": "l", "Đ": "D", "đ": "d", "Þ": "Th", "þ": "th", "ı": "i", "’": "'", "‘": "'",
                                 "“": '"', "”": '"', "–": "-", "—": "-"})  # fmt: skip


def clean(text: str | None, longest: int = LONGEST) -> str:
    """Printable ASCII without `|`, accents taken off, blanks squeezed, trimmed, and cut. It may come out empty.

    `|` separates the signed fields, so it becomes a blank, as do line ends and control characters. Raw accents would
    come back from the network as question marks.
    """
    if not text:
        return ""
    plain = text
    if not text.isascii():
        plain = unicodedata.normalize("NFKD", text.translate(_LETTERS))
        plain = _FOREIGN.sub(_unless_dropped, plain)
    plain = _BLANKS.sub(" ", _NOT_CARRIED.sub(" ", plain)).strip(" ")
    return plain[:longest].rstrip(" ")


def _unless_dropped(found: re.Match[str]) -> str:
    return "" if unicodedata.category(found[0]) in _DROPPED else found[0]


def tax_id(text: str | None) -> str:
    """An RFC (12 or 13 characters) or a CURP (18), or `ND`, the scheme's word for not known.

    An RFC with an Ñ cannot travel in ASCII and would be another person's without it, so it too becomes `ND`.
    """
    found = re.sub(r"[\s-]", "", text or "").upper()
    return found if _TAX_ID.fullmatch(found) else "ND"
