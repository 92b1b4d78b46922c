"""The table that chooses the rail, asked on the real engine."""

from __future__ import annotations

import pytest

FACTS = [
    ("on-us", True, "MXN", "CLABE"),
    ("on-us", True, "USD", "ALIAS"),
    ("stp", False, "MXN", "CLABE"),
    ("stp", False, "MXN", "CARD"),
    ("stp", False, "MXN", "MSISDN"),
    ("none", False, "MXN", "ACCOUNT_ID"),
    ("none", False, "MXN", "IBAN"),
    ("none", False, "USD", "CLABE"),
]


@pytest.mark.parametrize(("rail", "on_us", "currency", "id_type"), FACTS)
async def test_the_rail_follows_from_who_is_paid_and_in_what(engine, rail, on_us, currency, id_type):
    facts = {"on_us": on_us, "currency": currency, "payee": {"id_type": id_type, "identifier": "x"}}
    assert await engine.evaluate("choose-rail", facts) == rail


async def test_no_rail_is_chosen_when_nothing_is_known(engine):
    assert await engine.evaluate("choose-rail", {}) == "none"
