"""The channel's part of the seed file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.channel.seed import Seed, seed

SECRET = "whsec_dGVzdC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcyE="


def _file(**changes: Any) -> dict[str, Any]:
    tenant = {
        "id": "seeded",
        "name": "Seeded",
        "callback_allow_list": ["http://127.0.0.1:*/"],
        "callback_secret": SECRET,
        "fees": [{"anything": 1}],
        "accounts": "not looked at",
        **changes,
    }
    return {"tenants": [tenant], "more": True}


async def test_a_seeded_tenant_may_pay_and_repeating_changes_nothing(channel, channel_database: str) -> None:
    async def version() -> Any:
        return await channel.rows("SELECT xmin, name, callback_allow_list FROM channel.tenant WHERE id = 'seeded'")

    await seed(channel_database, Seed.model_validate(_file()))
    before = await version()
    await seed(channel_database, Seed.model_validate(_file()))
    assert await version() == before
    answer = await channel.client.post(
        "/channel/transfer", json=channel.body(), headers=channel.headers(tenant="seeded")
    )
    assert answer.status_code == 202
    await seed(channel_database, Seed.model_validate(_file(name="Renamed")))
    assert (await version())[0][1] == "Renamed"


async def test_the_limits_of_the_stand_in_are_the_files(channel, channel_database: str) -> None:  # H8
    limits = {"payments": 5, "amounts": [{"currency": "MXN", "each": "50.00", "together": "1000.00"}]}
    await seed(channel_database, Seed.model_validate(_file(id="limited", stand_in=limits)))
    standing = await channel.stand_in.standing("limited")
    assert standing.body(None, False)["limits"] == limits


def test_the_example_file_is_good() -> None:
    example = Path(__file__).parents[3] / "examples" / "seed.json"
    assert Seed.model_validate_json(example.read_text()).tenants


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"id": ""}, "id"),
        ({"id": "Acme Pagos"}, "id"),
        ({"name": ""}, "name"),
        ({"callback_secret": "whsec_short"}, "callback_secret"),
        ({"callback_secret": "whsec_!!"}, "callback_secret"),
        ({"callback_secret": None}, "callback_allow_list"),
        ({"callback_allow_list": ["bank.example"]}, "callback_allow_list"),
        ({"stand_in": {"payments": -1}}, "stand_in"),
        ({"stand_in": {"amounts": [{"currency": "MXN", "each": "1.001"}]}}, "stand_in"),
        ({"stand_in": {"amounts": [{"currency": "XXX", "together": "1"}]}}, "stand_in"),
        ({"stand_in": {"sums": []}}, "stand_in"),
    ],
)
def test_what_cannot_be_loaded_is_named(change: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Seed.model_validate(_file(**change))
    assert refused.value.errors()[0]["loc"][:3] == ("tenants", 0, place)


def test_a_secret_does_not_print() -> None:
    assert SECRET not in repr(Seed.model_validate(_file()))
