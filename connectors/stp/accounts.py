"""Accounts as SPEI names them: a CLABE, a debit card or a mobile number, and the institution that holds it.

The catalogue is the PyPI package `clabe`, which follows Banxico's by hand; what it lacks or has too long is corrected
by our own overrides and a deny list, never by changing the package's tables while running.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from clabe import BANKS, compute_control_digit

from connectors.stp.model import AccountUnknown, OrderRejected
from hub.transfer import IdentifierType, Party

STP: Final = 90646
"""The institution code of STP itself."""

DEMO_COUNTERPART: Final = ("846", 846)
"""The CLABE prefix and code of the counterpart in STP's demonstration environment; no catalogue has it."""

NOT_SERVED: Final = frozenset({90642})
"""Institutions to which STP allows no transfers, as clients in production found out."""

# ASCII on purpose: `clabe` takes any Unicode digit and breaks on superscripts.
_CLABE: Final = re.compile(r"[0-9]{18}", re.ASCII)
_CARD: Final = re.compile(r"[0-9]{15,16}", re.ASCII)
_MOBILE: Final = re.compile(r"(?:\+?521?)?([0-9]{10})", re.ASCII)


class AccountKind(IntEnum):
    """`tipoCuenta`: the kinds of account that orders of ours use."""

    CARD = 3
    MOBILE = 10
    CLABE = 40


def catalogue() -> dict[str, int]:
    """Institution codes by the first three digits of a CLABE, as the package knows them."""
    return {str(prefix): int(code) for prefix, code in BANKS.items()}


@dataclass(frozen=True, slots=True)
class Institutions:
    """Who holds which account."""

    by_prefix: Mapping[str, int] = field(default_factory=catalogue)
    """First three digits of a CLABE → institution."""
    by_card: Mapping[str, int] = field(default_factory=dict)
    """First digits of a card number → institution; the longest match counts. A card does not name its bank."""
    mobile: int | None = None
    """The institution to which mobile numbers are sent; a number does not name its bank either."""
    denied: frozenset[int] = NOT_SERVED


@dataclass(frozen=True, slots=True)
class Beneficiary:
    """An account that an order can go to."""

    account: str
    kind: AccountKind
    institution: int


def beneficiary(payee: Party, institutions: Institutions) -> Beneficiary:
    """Where to send the money of `payee`.

    Raises `AccountUnknown` when the identifier cannot be an account, `OrderRejected` when STP does not serve the bank.
    """
    match payee.id_type:
        case IdentifierType.CLABE:
            found = Beneficiary(payee.identifier, AccountKind.CLABE, clabe_institution(payee.identifier, institutions))
        case IdentifierType.CARD:
            found = Beneficiary(payee.identifier, AccountKind.CARD, _card_institution(payee.identifier, institutions))
        case IdentifierType.MSISDN:
            found = _mobile(payee.identifier, institutions)
        case IdentifierType.ACCOUNT_ID | IdentifierType.IBAN | IdentifierType.ALIAS:
            raise AccountUnknown(f"STP pays to a CLABE, a card or a mobile number, not to {payee.id_type}")
    if found.institution in institutions.denied:
        raise OrderRejected(f"STP does not serve institution {found.institution}")
    return found


def is_clabe(text: str) -> bool:
    """18 ASCII digits whose last one checks the others. Says nothing about the bank."""
    return _CLABE.fullmatch(text) is not None and compute_control_digit(text[:17]) == text[17]


def clabe_institution(clabe: str, institutions: Institutions) -> int:
    """The institution that a CLABE belongs to. Raises `AccountUnknown`."""
    if _CLABE.fullmatch(clabe) is None:
        raise AccountUnknown("a CLABE has 18 digits")
    if not is_clabe(clabe):
        raise AccountUnknown("the check digit of the CLABE is wrong")
    institution = institutions.by_prefix.get(clabe[:3])
    if institution is None:
        raise AccountUnknown("the CLABE names no institution of the catalogue")
    return institution


def _card_institution(card: str, institutions: Institutions) -> int:
    if _CARD.fullmatch(card) is None:
        raise AccountUnknown("a debit card has 15 or 16 digits")
    if not luhn(card):
        raise AccountUnknown("the check digit of the card is wrong")
    for length in range(8, 0, -1):
        institution = institutions.by_card.get(card[:length])
        if institution is not None:
            return institution
    raise AccountUnknown("the card's first digits name no known institution")


def luhn(digits: str) -> bool:
    """The check of card numbers (ISO/IEC 7812)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def _mobile(number: str, institutions: Institutions) -> Beneficiary:
    found = _MOBILE.fullmatch(number)
    if found is None:
        raise AccountUnknown("a Mexican mobile number has 10 digits, with +52 before them at most")
    if institutions.mobile is None:
        raise AccountUnknown("no institution is known for mobile numbers")
    return Beneficiary(found.group(1), AccountKind.MOBILE, institutions.mobile)
