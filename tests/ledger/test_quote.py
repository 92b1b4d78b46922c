"""The quote: who pays, who is paid, and what it costs (H1, L87)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.money import MAX_MINOR, Money
from ledger.model import (
    AccountClosed,
    AccountFrozen,
    AccountRef,
    AmountNotAllowed,
    CurrencyMismatch,
    Quote,
    SameAccount,
    UnknownAccount,
)

CLABE, MSISDN = "646180157000000017", "525511110001"


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


def phone(value: str) -> dict[str, object]:
    return {"identifiers": [{"type": "MSISDN", "value": value}]}


async def people(bank: Any, fees: list[dict[str, object]] | None = None) -> None:
    await bank.open(
        {
            "id": "ana",
            "identifiers": [{"type": "CLABE", "value": CLABE}, {"type": "MSISDN", "value": MSISDN}],
        },
        {"id": "bruno", **phone("2")},
        {"id": "usd", "currency": "USD", **phone("3")},
        {"id": "shut", "status": "closed", **phone("4")},
        {"id": "cold", "status": "frozen", **phone("5")},
        fees=fees or [],
    )


async def quote(
    bank: Any, payer: str, payee: str, amount: str = "100", payee_type: str = "MSISDN", **more: Any
) -> Quote:
    routable = more.pop("routable", False)
    found = await bank.ledger.quote(bank.name, ("MSISDN", payer), (payee_type, payee), mxn(amount), routable=routable)
    assert isinstance(found, Quote)
    return found


async def test_both_parties_of_ours_are_found_by_any_of_their_identifiers(bank):
    await people(bank)
    assert await quote(bank, MSISDN, "2") == Quote("ana", "bruno", Money(0, "MXN"))
    assert (await quote(bank, "2", CLABE, payee_type="CLABE")).payee_account == "ana"


async def test_a_payee_elsewhere_is_fine_when_a_rail_may_reach_it_and_unknown_otherwise(bank):
    await people(bank)
    assert (await quote(bank, MSISDN, "072691004495711499", payee_type="CLABE", routable=True)).payee_account is None
    with pytest.raises(UnknownAccount, match="payee"):
        await quote(bank, MSISDN, "nobody", payee_type="ACCOUNT_ID")


async def test_the_refusals_of_a_quote_name_the_side(bank):
    await people(bank)
    for payer, payee, refusal, side in (
        ("0", "2", UnknownAccount, "payer"),
        ("4", "2", AccountClosed, "payer"),
        ("5", "2", AccountFrozen, "payer"),
        ("3", "2", CurrencyMismatch, "payer"),
        (MSISDN, "4", AccountClosed, "payee"),
        (MSISDN, "3", CurrencyMismatch, "payee"),
        (MSISDN, MSISDN, SameAccount, "same-account"),
    ):
        with pytest.raises(refusal, match=side):
            await quote(bank, payer, payee)
    assert (await quote(bank, MSISDN, "5")).payee_account == "cold"  # L85: it still takes credits
    await bank.ledger.set_policy(bank.name, AccountRef.customer("cold"), "MXN", "freeze-credits", reason="court order")
    with pytest.raises(AccountFrozen, match="payee"):
        await quote(bank, MSISDN, "5")


async def test_a_tenant_without_a_book_knows_nobody(bank):
    with pytest.raises(UnknownAccount):
        await quote(bank, MSISDN, "2", routable=True)


async def test_another_tenants_customer_is_no_customer_of_ours(bank):  # H16
    await people(bank)
    await bank.__class__(f"{bank.name}-other", bank.url, bank.ledger, bank.queries, bank.engine).open(
        {"id": "carla", **phone("77")}
    )
    assert (await quote(bank, MSISDN, "77", routable=True)).payee_account is None


async def test_the_fee_is_fixed_part_plus_share_within_its_bounds(bank):
    await people(bank, [{"currency": "MXN", "fixed": "1.00", "basis_points": 25, "min": "1.10", "max": "3.00"}])
    fees = {amount: (await quote(bank, MSISDN, "2", amount)).fee.decimal() for amount in ("0.01", "100", "500", "9000")}
    assert fees == {"0.01": "1.10", "100": "1.25", "500": "2.25", "9000": "3.00"}


async def test_a_half_cent_rounds_to_even(bank):  # L87
    await people(bank, [{"currency": "MXN", "basis_points": 100}])
    assert [(await quote(bank, MSISDN, "2", amount)).fee.minor for amount in ("0.50", "1.50", "2.50")] == [0, 2, 2]


async def test_bands_are_chosen_by_the_amount_and_a_gap_between_them_is_not_allowed(bank):
    await people(
        bank,
        [
            {"currency": "MXN", "amount_to": "100.00", "fixed": "1"},
            {"currency": "MXN", "amount_from": "200.00", "amount_to": "300.00", "fixed": "2"},
        ],
    )
    assert (await quote(bank, MSISDN, "2", "100.00")).fee == mxn("1")
    assert (await quote(bank, MSISDN, "2", "200.00")).fee == mxn("2")
    assert (await quote(bank, MSISDN, "2", "300.00")).fee == mxn("2")
    for amount in ("100.01", "199.99", "300.01"):
        with pytest.raises(AmountNotAllowed):
            await quote(bank, MSISDN, "2", amount)


async def test_an_amount_that_no_balance_could_hold_with_its_fee_is_not_allowed(bank):
    await people(bank, [{"currency": "MXN", "fixed": "0.01"}])
    most = Money(MAX_MINOR - 1, "MXN").decimal()
    assert (await quote(bank, MSISDN, "2", most)).fee.minor == 1
    with pytest.raises(AmountNotAllowed):
        await quote(bank, MSISDN, "2", Money(MAX_MINOR, "MXN").decimal())


@pytest.fixture
def fee_of(ledger_url: str):
    import psycopg
    from sqlalchemy.engine import make_url

    address = make_url(ledger_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:

        def ask(*values: int | None) -> int:
            row = connection.execute("SELECT ledger.fee_of(%s, %s, %s, %s, %s)", values).fetchone()
            assert row is not None
            return int(row[0])

        yield ask


def test_the_database_computes_a_share_as_money_does(fee_of):  # L87
    @settings(max_examples=150, deadline=None)
    @given(st.integers(1, MAX_MINOR), st.integers(0, 10_000))
    def agrees(amount: int, basis_points: int) -> None:
        assert fee_of(amount, 0, basis_points, 0, None) == Money(amount, "MXN").share(basis_points).minor

    agrees()
