"""Beneficiary accounts: what they are, whose they are, and what cannot be one."""

from __future__ import annotations

import pytest
from clabe import BANKS

from connectors.stp.accounts import (
    DEMO_COUNTERPART,
    AccountKind,
    Beneficiary,
    Institutions,
    beneficiary,
    catalogue,
    is_clabe,
    luhn,
)
from connectors.stp.model import AccountUnknown, OrderRejected
from hub.transfer import IdentifierType, Party

INSTITUTIONS = Institutions(by_card={"4242": 40072, "42": 40002}, mobile=40012)


def _party(kind: IdentifierType, identifier: str) -> Party:
    return Party(id_type=kind, identifier=identifier)


@pytest.mark.parametrize(
    ("kind", "identifier", "found"),
    [
        ("CLABE", "072691004495711499", Beneficiary("072691004495711499", AccountKind.CLABE, 40072)),
        ("CARD", "4242424242424242", Beneficiary("4242424242424242", AccountKind.CARD, 40072)),
        ("MSISDN", "5512345678", Beneficiary("5512345678", AccountKind.MOBILE, 40012)),
        ("MSISDN", "+525512345678", Beneficiary("5512345678", AccountKind.MOBILE, 40012)),
        ("MSISDN", "+5215512345678", Beneficiary("5512345678", AccountKind.MOBILE, 40012)),
    ],
)
def test_clabes_cards_and_mobiles_are_accounts(kind, identifier, found):
    assert beneficiary(_party(IdentifierType(kind), identifier), INSTITUTIONS) == found


@pytest.mark.parametrize(
    ("kind", "identifier", "why"),
    [
        ("CLABE", "07269100449571149", "18 digits"),
        ("CLABE", "072691004495711498", "check digit"),
        ("CLABE", "07269100449571149\u0660", "18 digits"),
        ("CLABE", "07269100449571149²", "18 digits"),
        ("CLABE", " 072691004495711499", "18 digits"),
        ("CLABE", "000000000000000000", "no institution"),
        ("CARD", "4242424242424241", "check digit"),
        ("CARD", "42424242", "15 or 16"),
        ("CARD", "5555555555554444", "no known institution"),
        ("MSISDN", "12345", "10 digits"),
        ("ALIAS", "ana", "not to ALIAS"),
        ("ACCOUNT_ID", "072691004495711499", "not to ACCOUNT_ID"),
        ("IBAN", "DE89370400440532013000", "not to IBAN"),
    ],
)
def test_what_cannot_be_an_account_is_refused_with_the_cause(kind, identifier, why):
    with pytest.raises(AccountUnknown, match=why):
        beneficiary(_party(IdentifierType(kind), identifier), INSTITUTIONS)


def test_a_mobile_without_an_institution_is_refused():
    with pytest.raises(AccountUnknown, match="no institution"):
        beneficiary(_party(IdentifierType.MSISDN, "5512345678"), Institutions())


def _clabe(first: str) -> str:
    digits = first.ljust(17, "1")
    return next(digits + str(last) for last in range(10) if is_clabe(digits + str(last)))


def test_an_institution_on_the_deny_list_is_refused():
    with pytest.raises(OrderRejected, match="40072"):
        beneficiary(_party(IdentifierType.CLABE, _clabe("072")), Institutions(denied=frozenset({40072})))


def test_the_demo_counterpart_is_known_only_where_it_is_switched_on():
    party = _party(IdentifierType.CLABE, _clabe("846180"))
    with pytest.raises(AccountUnknown):
        beneficiary(party, Institutions())
    known = Institutions(by_prefix=catalogue() | dict([DEMO_COUNTERPART]))
    assert beneficiary(party, known).institution == 846


def test_overrides_leave_the_packages_table_alone():
    before = dict(BANKS)
    Institutions(by_prefix=catalogue() | {"072": 1})
    assert before == BANKS


def test_luhn_finds_every_single_wrong_digit():
    card = "4242424242424242"
    assert luhn(card)
    assert not any(
        luhn(card[:place] + str(digit) + card[place + 1 :])
        for place in range(16)
        for digit in range(10)
        if str(digit) != card[place]
    )
