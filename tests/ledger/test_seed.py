"""Bringing a book in: repeating changes nothing, contradictions are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hub.money import Money
from ledger.model import OPENING_EQUITY, AccountRef, UnknownAccount
from ledger.seed import Seed, SeedConflict
from ledger.verify import verify

ANA = AccountRef.customer("ana")
MXN_ANA: dict[str, Any] = {
    "id": "ana",
    "currency": "MXN",
    "opening_balance": "100.00",
    "holder_name": "Ana Prueba",
    "identifiers": [{"type": "CLABE", "value": "646180157000000017"}],
}


async def test_opening_balances_are_postings_against_opening_equity(bank):
    await bank.open(MXN_ANA, {"id": "bruno", "opening_balance": "0.50"})
    (line,) = await bank.queries.statement(bank.name, ANA, "MXN")
    assert (line.operation, line.contra, line.reason) == ("seed:ana:opening", OPENING_EQUITY, "opening")
    assert await bank.booked(OPENING_EQUITY) == "-100.50"


async def test_repeating_a_seed_changes_nothing(own_bank):
    bank = own_bank
    fees = [{"currency": "MXN", "fixed": "1.00", "min": "1.00", "max": "9.00"}]
    await bank.open(MXN_ANA, {"id": "cold", "status": "frozen", "opening_balance": "3"}, fees=fees)

    async def rows() -> dict[str, int]:
        async with bank.engine.connect() as connection:
            tables = ("book", "chart", "account", "account_policy_event", "txn", "posting", "tariff", "tariff_band")
            return {
                table: (await connection.exec_driver_sql(f"SELECT count(*) FROM ledger.{table}")).scalar_one()
                for table in tables
            }

    before = await rows()
    await bank.open(MXN_ANA, {"id": "cold", "status": "frozen", "opening_balance": "3"}, fees=fees)
    assert await rows() == before
    assert (await verify(bank.url)).sound


async def test_a_second_seed_may_add_accounts_identifiers_and_correct_names(bank):
    await bank.open(MXN_ANA)
    more = [*MXN_ANA["identifiers"], {"type": "ALIAS", "value": "anita"}]
    await bank.open(MXN_ANA | {"identifiers": more, "holder_name": "Ana María Prueba"}, {"id": "bruno"})
    found = await bank.queries.account(bank.name, "ALIAS", "anita")
    assert (found.ref, found.holder_name) == (ANA, "Ana María Prueba")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"opening_balance": "100.01"}, "opening_balance"),
        ({"opening_balance": "0"}, "opening_balance"),
        ({"currency": "USD"}, "currency"),
        ({"status": "closed"}, "status"),
        ({"status": "frozen"}, "status"),
    ],
)
async def test_a_changed_account_is_refused_by_its_name_and_field(bank, change, field):
    await bank.open(MXN_ANA)
    with pytest.raises(SeedConflict, match=f"tenant {bank.name}, account ana, {field}"):
        await bank.open({"id": "new", "opening_balance": "1"}, MXN_ANA | change)
    assert await bank.booked("ana") == "100.00"
    assert await bank.queries.balances(bank.name, AccountRef.customer("new")) == []  # nothing of that seed is there


async def test_an_opening_balance_that_comes_later_is_a_change_too(bank):
    await bank.open({"id": "bruno"})
    with pytest.raises(SeedConflict, match="account bruno, opening_balance"):
        await bank.open({"id": "bruno", "opening_balance": "5"})


async def test_an_identifier_points_to_one_account(bank):
    await bank.open(MXN_ANA)
    with pytest.raises(SeedConflict, match="account bruno, identifiers"):
        await bank.open({"id": "bruno", "identifiers": MXN_ANA["identifiers"]})


async def test_what_an_operator_changed_since_is_left_alone(bank):
    await bank.open(MXN_ANA)
    await bank.ledger.set_policy(bank.name, ANA, "MXN", "freeze-debits", reason="court order")
    await bank.open(MXN_ANA)
    assert (await bank.queries.account(bank.name, "CLABE", "646180157000000017")).debits_frozen


async def test_a_changed_fee_table_is_a_new_one_and_the_old_one_stays_on_record(bank):
    phones = (
        {"id": "a", "identifiers": [{"type": "MSISDN", "value": "1"}]},
        {"id": "b", "identifiers": [{"type": "MSISDN", "value": "2"}]},
    )

    async def fee() -> str:
        quote = await bank.ledger.quote(bank.name, ("MSISDN", "1"), ("MSISDN", "2"), Money(100, "MXN"), routable=False)
        return str(quote.fee.decimal())

    await bank.open(*phones, fees=[{"currency": "MXN", "fixed": "1"}])
    assert await fee() == "1.00"
    await bank.open(*phones, fees=[{"currency": "MXN", "fixed": "2"}])
    assert await fee() == "2.00"
    async with bank.engine.connect() as connection:
        found = await connection.exec_driver_sql(
            "SELECT b.fixed FROM ledger.tariff t JOIN ledger.book k ON k.id = t.book_id "
            f"JOIN ledger.tariff_band b ON b.tariff_id = t.id WHERE k.code = '{bank.name}' ORDER BY t.id"
        )
        assert [row[0] for row in found] == [100, 200]


async def test_a_tenants_accounts_are_unknown_to_another(bank):  # H16
    await bank.open(MXN_ANA)
    with pytest.raises(UnknownAccount):
        await bank.queries.account(f"{bank.name}-other", "CLABE", "646180157000000017")


def tenant(**more: Any) -> dict[str, Any]:
    return {"tenants": [{"id": "acme", **more}]}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({}, "tenants"),
        (tenant(accounts=[{"id": "a"}]), "currency"),
        (tenant(accounts=[{"id": "a", "currency": "XXX"}]), "opening_balance: 'XXX' is not an ISO 4217 currency"),
        (tenant(accounts=[{"id": "a", "currency": "MXN", "opening_balance": "1.005"}]), "decimal places"),
        (tenant(accounts=[{"id": "a", "currency": "MXN", "opening_balance": "-1"}]), "opening_balance"),
        (tenant(accounts=[{"id": "a", "currency": "MXN", "opening_balance": 1.5}]), "opening_balance"),
        (tenant(accounts=[{"id": "a b", "currency": "MXN"}]), "id"),
        (tenant(accounts=[{"id": "a", "currency": "MXN", "status": "asleep"}]), "status"),
        (tenant(accounts=[{"id": "a", "currency": "MXN"}, {"id": "a", "currency": "MXN"}]), "a stands twice"),
        (
            tenant(accounts=[{"id": "a", "currency": "MXN", "identifiers": [{"type": "FAX", "value": "1"}]}]),
            "identifiers",
        ),
        (
            tenant(
                accounts=[
                    {"id": one, "currency": "MXN", "identifiers": [{"type": "MSISDN", "value": "1"}]} for one in "ab"
                ]
            ),
            "MSISDN 1 stands twice",
        ),
        (tenant(fees=[{"currency": "MXN", "fixed": "x"}]), "fixed"),
        (tenant(fees=[{"currency": "MXN", "basis_points": 10_001}]), "basis_points"),
        (tenant(fees=[{"currency": "MXN", "min": "2", "max": "1"}]), "max: must not be below min"),
        (tenant(fees=[{"currency": "MXN", "amount_from": "2", "amount_to": "1"}]), "amount_from"),
        (tenant(fees=[{"currency": "MXN"}, {"currency": "MXN", "amount_from": "5"}]), "bands of one currency overlap"),
        ({"tenants": [{"id": "acme"}, {"id": "acme"}]}, "acme stands twice"),
    ],
)
def test_a_seed_that_cannot_be_meant_is_refused_by_field(document, problem):
    with pytest.raises(ValidationError) as raised:
        Seed.model_validate(document)
    assert problem in str(raised.value)


def test_keys_of_other_components_are_left_to_them():
    read = Seed.model_validate({"version": 1, "tenants": [{"id": "acme", "callback_secret": "x", "accounts": []}]})
    assert read.tenants[0].id == "acme"


def test_the_example_is_a_seed():
    example = Path(__file__).parents[2] / "examples" / "seed.json"
    assert Seed.model_validate(json.loads(example.read_text(encoding="utf-8"))).tenants
