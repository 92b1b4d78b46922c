"""Account systems of each kind: our ledger, and a pretend Fineract over real HTTP; each test has its own tenant."""

from __future__ import annotations

import asyncio
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from pydantic import SecretStr

from connectors.ams.client import AccountSystem
from connectors.ams.fake import FineractSimulator, build_simulator_app
from connectors.ams.fineract_backend import FineractBackend
from connectors.ams.fineract_client import open_fineract
from connectors.ams.fineract_steps import Steps
from connectors.ams.ledger_backend import LedgerBackend
from connectors.ams.settings import FineractSettings, FineractSimulatorSettings
from hub.api import serve
from hub.migrations import migrate
from hub.statements import Statements, open_statements
from hub.transfer import TenantId
from ledger.book import Ledger
from ledger.model import AccountRef
from ledger.seed import Seed, seed


class Branch(Protocol):
    """A tenant with accounts in an account system."""

    tenant: TenantId
    accounts: AccountSystem

    async def open(self, *accounts: dict[str, Any], fees: Sequence[dict[str, Any]] = ()) -> None:
        """Open accounts as the seed file says them."""

    async def close(self, account: str) -> None:
        """Close an account that is open."""


@dataclass(frozen=True)
class LedgerBranch:
    tenant: TenantId
    accounts: AccountSystem
    url: str
    book: Ledger

    async def open(self, *accounts: dict[str, Any], fees: Sequence[dict[str, Any]] = ()) -> None:
        tenant = {"id": self.tenant, "fees": list(fees), "accounts": [{"currency": "MXN", **one} for one in accounts]}
        await seed(self.url, Seed.model_validate({"tenants": [tenant]}))

    async def close(self, account: str) -> None:
        await self.book.set_policy(self.tenant, AccountRef.customer(account), "MXN", "close", reason="test")


@dataclass(frozen=True)
class FineractBranch:
    tenant: TenantId
    accounts: FineractBackend
    simulator: FineractSimulator
    statements: Statements
    settings: FineractSettings

    async def open(self, *accounts: dict[str, Any], fees: Sequence[dict[str, Any]] = ()) -> None:
        self.simulator.open(self.tenant, [{"currency": "MXN", **one} for one in accounts], fees)

    async def close(self, account: str) -> None:
        self.simulator.tenants[self.tenant].account(account).status = "CLOSED"

    def rule(self, operation: str, do: str, **more: Any) -> None:
        """What the pretend Fineract is to do with the next request of this kind."""
        self.simulator.rules.append({"match": {"operation": operation}, "do": do, "uses": 1, **more})

    def asked(self, *operations: str) -> list[str]:
        """The requests of these kinds so far, in order."""
        return [one["operation"] for one in self.simulator.requests if one["operation"] in operations]

    @asynccontextmanager
    async def opened(self, **settings: Any) -> AsyncIterator[FineractBackend]:
        """Another process's view of the same Fineract."""
        chosen = self.settings.model_copy(update=settings)
        async with open_fineract(chosen) as fineract:
            yield FineractBackend(fineract, Steps(self.statements))


@pytest.fixture(scope="session")
def ams_url(database_url: str) -> str:
    migrate("ledger.migrations", database_url)
    migrate("connectors.ams.migrations", database_url)
    return database_url


@pytest.fixture
async def ledger_branch(ams_url: str) -> AsyncIterator[LedgerBranch]:
    async with open_statements(ams_url) as statements:
        tenant = TenantId(f"bank-{uuid.uuid4().hex[:8]}")
        yield LedgerBranch(tenant, LedgerBackend(statements), ams_url, Ledger(statements))


@pytest.fixture(scope="session")
def served_fineract() -> Iterator[tuple[FineractSimulator, str]]:
    """One pretend Fineract for all tests, each with a tenant of its own, and its base URL."""
    simulator = FineractSimulator(FineractSimulatorSettings())
    listening = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()
    serving = loop.create_task(serve(build_simulator_app(simulator), "127.0.0.1", 0, listening=listening))

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(serving)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield simulator, f"http://127.0.0.1:{listening.getsockname()[1]}/fineract-provider/api/v1/"
    loop.call_soon_threadsafe(serving.cancel)
    thread.join(30)


@pytest.fixture
async def fineract(ams_url: str, served_fineract: tuple[FineractSimulator, str]) -> AsyncIterator[FineractBranch]:
    simulator, base_url = served_fineract
    simulator.rules.clear()
    simulator.requests.clear()
    tenant = TenantId(f"bank-{uuid.uuid4().hex[:8]}")
    settings = FineractSettings(
        base_url=base_url, user="mifos", password=SecretStr("password"), tenants={tenant: tenant}, read_timeout=2
    )
    async with open_statements(ams_url) as statements, open_fineract(settings) as client:
        yield FineractBranch(tenant, FineractBackend(client, Steps(statements)), simulator, statements, settings)


@pytest.fixture(params=["ledger", "fineract"])
def branch(request: pytest.FixtureRequest) -> Branch:
    """Each account system in turn."""
    found: Branch = request.getfixturevalue("ledger_branch" if request.param == "ledger" else "fineract")
    return found
