"""The words of the book."""

from __future__ import annotations

import pytest

from hub.money import BadMoney
from ledger.model import REFUSALS, STANDARD_CHART, AccountKind, AccountRef, LedgerRefused, asset_of


def test_an_address_reads_back_as_the_account_it_names():
    for ref in (AccountRef.customer("A-17"), AccountRef.customer("a:b"), AccountRef(AccountKind.FEE_INCOME)):
        assert AccountRef.parse(str(ref)) == ref
    assert str(AccountRef.customer("A-17")) == "customer-deposit:A-17"


def test_an_account_of_a_kind_that_is_not_in_the_chart_is_no_account():
    with pytest.raises(ValueError, match="petty-cash"):
        AccountRef.parse("petty-cash:1")


def test_an_asset_is_the_currency_with_its_minor_digits():
    assert [asset_of(currency) for currency in ("MXN", "JPY", "KWD")] == ["MXN/2", "JPY/0", "KWD/3"]
    with pytest.raises(BadMoney):
        asset_of("XXX")


def test_the_chart_has_every_kind_once():
    assert sorted(line.kind for line in STANDARD_CHART) == sorted(AccountKind)


def test_every_refusal_has_a_code_of_its_own():
    assert set(REFUSALS.values()) == set(LedgerRefused.__subclasses__())
    assert len(REFUSALS) == len(LedgerRefused.__subclasses__())
