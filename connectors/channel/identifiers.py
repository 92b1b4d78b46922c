"""What makes an identifier well formed. A right check digit says nothing about whether the account exists."""

from __future__ import annotations

import re
from typing import Final

from hub.transfer import IdentifierType

# ASCII throughout: other scripts have digits too, and no bank takes them.
_CLABE: Final = re.compile(r"[0-9]{18}", re.ASCII)
_CARD: Final = re.compile(r"[0-9]{13,19}", re.ASCII)
_MSISDN: Final = re.compile(r"\+?([1-9][0-9]{6,14})", re.ASCII)
_IBAN: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", re.ASCII)
_CLABE_WEIGHTS: Final = (3, 7, 1) * 5 + (3, 7)


class BadIdentifier(ValueError):
    """The text cannot be an identifier of its kind. `code` is stable; the text itself is not repeated."""

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(detail)


def normal(kind: IdentifierType, text: str) -> str:
    """The one spelling under which this identifier is kept: a number without `+`, an IBAN without blanks.

    Raises `BadIdentifier`.
    """
    match kind:
        case IdentifierType.CLABE:
            return _clabe(text)
        case IdentifierType.CARD:
            return _card(text)
        case IdentifierType.MSISDN:
            return _msisdn(text)
        case IdentifierType.IBAN:
            return _iban(text)
        case IdentifierType.ACCOUNT_ID | IdentifierType.ALIAS:
            if text != text.strip():
                raise BadIdentifier("bad-format", "an identifier neither begins nor ends with a blank")
            return text


def clabe_check_digit(first_17: str) -> str:
    """The last digit of a CLABE: weights 3, 7, 1; each product modulo 10 (Banco de México)."""
    total = sum(int(digit) * weight % 10 for digit, weight in zip(first_17, _CLABE_WEIGHTS, strict=True))
    return str(-total % 10)


def passes_luhn(digits: str) -> bool:
    """The check of card numbers (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def _clabe(text: str) -> str:
    if _CLABE.fullmatch(text) is None:
        raise BadIdentifier("bad-format", "a CLABE has 18 digits")
    if clabe_check_digit(text[:17]) != text[17]:
        raise BadIdentifier("bad-check-digit", "the check digit of the CLABE is wrong; look for a mistyped digit")
    return text


def _card(text: str) -> str:
    if _CARD.fullmatch(text) is None:
        raise BadIdentifier("bad-format", "a card number has 13 to 19 digits")
    if not passes_luhn(text):
        raise BadIdentifier("bad-check-digit", "the check digit of the card is wrong; look for a mistyped digit")
    return text


def _msisdn(text: str) -> str:
    found = _MSISDN.fullmatch(text)
    if found is None:
        raise BadIdentifier("bad-format", "an MSISDN has 7 to 15 digits and begins with the country's code (E.164)")
    return found.group(1)


def _iban(text: str) -> str:
    iban = text.replace(" ", "").upper()
    if _IBAN.fullmatch(iban) is None:
        raise BadIdentifier("bad-format", "an IBAN has a country, two check digits and up to 30 letters or digits")
    if int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 != 1:  # ISO 7064
        raise BadIdentifier("bad-check-digit", "the check digits of the IBAN are wrong; look for a mistyped character")
    return iban
