"""An account system per test: our ledger on a tenant of its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from connectors.ams.client import AccountSystem
from connectors.ams.ledger_backend import LedgerBackend
from hub.migrations import migrate
from hub.statements import open_statements
from hub.transfer import TenantId
from ledger.book import Ledger
from ledger.seed import Seed, seed


@dataclass(frozen=True)
class Branch:
    """A tenant with accounts in an account system."""

    tenant: TenantId
    accounts: AccountSystem
    url: str
    book: Ledger
    """The book behind it, for what the contract has no word for: freezing, closing."""

    async def open(self, *accounts: dict[str, Any], fees: Sequence[dict[str, Any]] = ()) -> None:
        tenant = {"id": self.tenant, "fees": list(fees), "accounts": [{"currency": "MXN", **one} for one in accounts]}
        await seed(self.url, Seed.model_validate({"tenants": [tenant]}))


@pytest.fixture(scope="session")
def ams_url(database_url: str) -> str:
    migrate("ledger.migrations", database_url)
    return database_url


@pytest.fixture
async def branch(ams_url: str) -> AsyncIterator[Branch]:
    async with open_statements(ams_url) as statements:
        tenant = TenantId(f"bank-{uuid.uuid4().hex[:8]}")
        yield Branch(tenant, LedgerBackend(statements), ams_url, Ledger(statements))
