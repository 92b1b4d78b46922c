"""What is a well-formed identifier. The CLABEs are real examples of public documentation."""

from __future__ import annotations

import pytest
from clabe import compute_control_digit
from hypothesis import given
from hypothesis import strategies as st

from connectors.channel.identifiers import BadIdentifier, clabe_check_digit, normal, passes_luhn
from hub.transfer import IdentifierType

DIGITS_17 = st.text("0123456789", min_size=17, max_size=17)


@given(DIGITS_17)
def test_the_check_digit_of_a_clabe_is_what_another_implementation_says(digits: str) -> None:
    assert clabe_check_digit(digits) == compute_control_digit(digits)


@given(DIGITS_17, st.integers(0, 16), st.integers(1, 9))
def test_one_mistyped_digit_of_a_clabe_is_noticed(digits: str, place: int, change: int) -> None:
    clabe = digits + clabe_check_digit(digits)
    wrong = clabe[:place] + str((int(clabe[place]) + change) % 10) + clabe[place + 1 :]
    with pytest.raises(BadIdentifier) as refused:
        normal(IdentifierType.CLABE, wrong)
    assert refused.value.code == "bad-check-digit"


@given(st.text("0123456789", min_size=15, max_size=15), st.integers(0, 14), st.integers(1, 9))
def test_one_mistyped_digit_of_a_card_is_noticed(digits: str, place: int, change: int) -> None:
    card = next(digits + last for last in "0123456789" if passes_luhn(digits + last))
    assert normal(IdentifierType.CARD, card) == card
    wrong = card[:place] + str((int(card[place]) + change) % 10) + card[place + 1 :]
    with pytest.raises(BadIdentifier):
        normal(IdentifierType.CARD, wrong)


@pytest.mark.parametrize(
    ("kind", "given_text", "kept"),
    [
        (IdentifierType.CLABE, "012180001183597198", "012180001183597198"),
        (IdentifierType.CARD, "4111111111111111", "4111111111111111"),
        (IdentifierType.MSISDN, "+525511110001", "525511110001"),
        (IdentifierType.MSISDN, "525511110001", "525511110001"),
        (IdentifierType.IBAN, "gb82 west 1234 5698 7654 32", "GB82WEST12345698765432"),
        (IdentifierType.ACCOUNT_ID, "acme-ana", "acme-ana"),
        (IdentifierType.ALIAS, "ana@acme", "ana@acme"),
    ],
)
def test_an_identifier_is_kept_in_one_spelling(kind: IdentifierType, given_text: str, kept: str) -> None:
    assert normal(kind, given_text) == kept


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [
        (IdentifierType.CLABE, "01218000118359719", "bad-format"),
        (IdentifierType.CLABE, "012180001183597199", "bad-check-digit"),
        (IdentifierType.CLABE, "٠١٢١٨٠٠٠١١٨٣٥٩٧١٩٨", "bad-format"),
        (IdentifierType.CLABE, "01218000118359719⁸", "bad-format"),
        (IdentifierType.CARD, "4111111111111112", "bad-check-digit"),
        (IdentifierType.CARD, "4111 1111 1111 1111", "bad-format"),
        (IdentifierType.MSISDN, "0525511110001", "bad-format"),
        (IdentifierType.MSISDN, "5255-1111", "bad-format"),
        (IdentifierType.MSISDN, "٥٢٥٥١١١١٠٠٠١", "bad-format"),
        (IdentifierType.IBAN, "GB83WEST12345698765432", "bad-check-digit"),
        (IdentifierType.IBAN, "GB82", "bad-format"),
        (IdentifierType.ACCOUNT_ID, " acme-ana", "bad-format"),
    ],
)
def test_what_cannot_be_an_identifier_is_refused_without_repeating_it(
    kind: IdentifierType, text: str, code: str
) -> None:
    with pytest.raises(BadIdentifier) as refused:
        normal(kind, text)
    assert refused.value.code == code
    assert text.strip() not in str(refused.value)
