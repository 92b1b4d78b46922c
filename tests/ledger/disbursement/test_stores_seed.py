"""Stores of the seed file: ready to be paid when new, left alone when there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ledger.disbursement.merchants import Merchants
from ledger.disbursement.model import Frequency, VerdictCode
from ledger.disbursement.seed import Seed, StoresNotSeeded, seed

EXAMPLE = Path(__file__).parents[3] / "examples" / "seed.json"


def example(tenant: str):
    merchants = json.loads(EXAMPLE.read_text(encoding="utf-8"))["tenants"][0]["merchants"]
    return {"tenants": [{"id": tenant, "name": "not looked at", "merchants": merchants}]}


async def test_the_examples_three_stores_may_be_paid_and_repeating_it_changes_nothing(lender):
    wanted, merchants = Seed.model_validate(example(lender.name)), Merchants(lender.statements)
    await seed(lender.url, wanted)
    stores = await merchants.stores(lender.name, "nandu")
    assert [(one.frequency, one.manual_confirmation) for one in stores] == [
        (Frequency.INSTANT, False),
        (Frequency.DAILY, False),
        (Frequency.DAILY, True),
    ]
    verdicts = await lender.eligibility.explain(lender.name)
    assert {verdict.code for verdict in verdicts} == {VerdictCode.NOTHING_PENDING}
    await merchants.edit_store(lender.name, "nandu-sur", {"name": "Otro"}, actor="operator")
    await seed(lender.url, wanted)
    edited = await merchants.find_store(lender.name, "nandu-sur")
    assert (edited.name, edited.validated) == ("Otro", False)  # L53: a seed does not validate what was edited


async def test_a_store_that_cannot_be_added_keeps_its_tenant_out_and_is_named(lender):
    file = example(lender.name)
    file["tenants"][0]["merchants"][0]["stores"][1]["options"][0]["code"] = "again"
    twice = json.loads(json.dumps(file["tenants"][0]["merchants"][0]["stores"][1]["options"][0]))
    file["tenants"][0]["merchants"][0]["stores"][1]["options"].append({**twice, "id": "other"})
    with pytest.raises(StoresNotSeeded, match="nandu-norte"):
        await seed(lender.url, Seed.model_validate(file))
    assert [one.id for one in await Merchants(lender.statements).page(lender.name)] == ["m1"]


@pytest.mark.parametrize(
    ("place", "value"),
    [("bank_account", {"clabe": "1"}), ("frequency", "daily"), ("options", []), ("minimum_amount", 5)],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(place, value):
    file = example("acme")
    file["tenants"][0]["merchants"][0]["stores"][0][place] = value
    with pytest.raises(ValidationError, match=place):
        Seed.model_validate(file)
