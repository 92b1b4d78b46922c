"""The seed file says whose the numbers are that deposits come in for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from connectors.stp.seed import Seed, seed
from hub.statements import open_statements

FILE = {
    "tenants": [
        {
            "id": "seeded-a",
            "name": "not looked at",
            "clabe_prefixes": ["646180777"],
            "accounts": [
                {"id": "1", "identifiers": [
                    {"type": "CLABE", "value": "646180888000000017"},
                    {"type": "MSISDN", "value": "+525577770001"},
                    {"type": "CARD", "value": "4152313777770001"},
                    {"type": "ACCOUNT_ID", "value": "1"},
                    {"type": "MSISDN", "value": "4915112345678"},
                ]},
                {"id": "2"},
            ],
        },
        {"id": "seeded-b", "accounts": [{"identifiers": [{"type": "MSISDN", "value": "5577770001"}]}]},
    ]
}  # fmt: skip


async def test_accounts_and_prefixes_become_receivers_and_a_repeat_changes_nothing(migrated_url):
    for _ in range(2):
        await seed(migrated_url, Seed.model_validate(FILE))
    async with open_statements(migrated_url) as database:
        rows = await database.rows(
            "SELECT kind, prefix, tenant_id, identifier FROM stp.receiver WHERE tenant_id LIKE 'seeded-%%'"
            " ORDER BY kind, prefix",
            {},
        )
    assert [tuple(row) for row in rows] == [
        (3, "4152313777770001", "seeded-a", "4152313777770001"),
        (10, "5577770001", "seeded-a", "+525577770001"),
        (40, "646180777", "seeded-a", None),
        (40, "646180888000000017", "seeded-a", "646180888000000017"),
    ]


@pytest.mark.parametrize("prefix", ["64618", "646180157000000017", "64618015x"])
def test_a_prefix_is_six_to_seventeen_digits(prefix):
    with pytest.raises(ValidationError):
        Seed.model_validate({"tenants": [{"id": "a", "clabe_prefixes": [prefix]}]})
