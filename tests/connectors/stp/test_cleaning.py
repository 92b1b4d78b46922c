"""Text as SPEI carries it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.stp.cleaning import LONGEST, clean, tax_id


@pytest.mark.parametrize(
    ("given_text", "sent"),
    [
        ("Ricardo Sánchez", "Ricardo Sanchez"),
        ("Ñandú Güemes", "Nandu Guemes"),
        ("  doble   blanco ", "doble blanco"),
        ("a|b", "a b"),
        ("a\r\nb\tc", "a b c"),
        ("Café 😀 olé", "Cafe ole"),
        ("😀", ""),
        ("", ""),
        (None, ""),
        ("\u200b\u202e", ""),
        ("Straße Øst", "Strasse Ost"),
        ("ＡＢＣ", "ABC"),
        ("e\u0301", "e"),
        ("O’Brien – hijo", "O'Brien - hijo"),
        ("x" * 45, "x" * LONGEST),
        ("x" * 38 + " yz", "x" * 38),
        ("\x00\x7f", ""),
        ("\ud800", ""),
    ],
)
def test_text_is_cleaned(given_text, sent):
    assert clean(given_text) == sent


@given(st.text(max_size=120))
def test_cleaned_text_is_short_plain_and_clean(text):
    cleaned = clean(text)
    assert cleaned.isascii()
    assert cleaned.isprintable()
    assert len(cleaned) <= LONGEST
    assert "|" not in cleaned
    assert cleaned == cleaned.strip()
    assert "  " not in cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("given_text", "sent"),
    [
        ("GODE561231GR8", "GODE561231GR8"),
        ("gode561231gr8", "GODE561231GR8"),
        ("GODE-561231-GR8", "GODE561231GR8"),
        ("ABC680524P76", "ABC680524P76"),
        ("GODE561231HDFRRN09", "GODE561231HDFRRN09"),
        ("ÑAÑ680524P76", "ND"),
        ("123", "ND"),
        ("", "ND"),
        (None, "ND"),
        ("GODE561231GR8|x", "ND"),
    ],
)
def test_a_tax_id_is_an_rfc_a_curp_or_not_known(given_text, sent):
    assert tax_id(given_text) == sent
