"""Books to test with. Every test has a tenant of its own; those that damage the database get one of their own too."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from hub.database import open_database
from hub.migrations import migrate
from hub.money import Money
from hub.statements import open_statements
from ledger.book import Ledger
from ledger.model import AccountRef
from ledger.queries import LedgerQueries
from ledger.seed import Seed, seed
from ledger.settings import APP_ROLE


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


@dataclass(frozen=True)
class Bank:
    """A tenant with its book."""

    name: str
    url: str
    ledger: Ledger
    queries: LedgerQueries
    engine: AsyncEngine
    """For what no verb and no question is made for."""

    async def open(self, *accounts: dict[str, object], fees: Sequence[dict[str, object]] = ()) -> None:
        """Load accounts; those that name no currency are in MXN."""
        tenant = {"id": self.name, "fees": list(fees), "accounts": [{"currency": "MXN", **one} for one in accounts]}
        await seed(self.url, Seed.model_validate({"tenants": [tenant]}))

    async def booked(self, account: str | AccountRef, currency: str = "MXN") -> str:
        """The booked balance of an account, as a decimal string."""
        return (await self._balance(account, currency)).booked.decimal()

    async def held(self, account: str | AccountRef, currency: str = "MXN") -> str:
        return (await self._balance(account, currency)).held.decimal()

    async def _balance(self, account: str | AccountRef, currency: str):
        ref = AccountRef.customer(account) if isinstance(account, str) else account
        return await self.queries.balance(self.name, ref, currency)


def plain(url: str) -> str:
    """The address in the form psycopg itself takes."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _copy(server: str, template: str | None) -> str:
    name = f"ledger_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(plain(server), autocommit=True) as connection:
        source = "" if template is None else f" TEMPLATE {make_url(template).database}"
        connection.execute(f"CREATE DATABASE {name}{source}".encode())
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def new_database(database_server: str) -> Callable[[], str]:
    """Makes empty databases."""
    return lambda: _copy(database_server, None)


@pytest.fixture(scope="session")
def template(new_database: Callable[[], str]) -> str:
    """A migrated database that nobody connects to."""
    url = new_database()
    migrate("ledger.migrations", url)
    return url


@pytest.fixture(scope="session")
def ledger_url(database_server: str, template: str) -> str:
    return _copy(database_server, template)


@pytest.fixture
def own_url(database_server: str, template: str) -> str:
    """A database that this test may damage."""
    return _copy(database_server, template)


@asynccontextmanager
async def _opened(url: str, name: str) -> AsyncIterator[Bank]:
    async with open_statements(url, 16, role=APP_ROLE) as statements, open_database(url, 1) as engine:
        yield Bank(name, url, Ledger(statements), LedgerQueries(statements), engine)


@pytest.fixture
async def bank(ledger_url: str) -> AsyncIterator[Bank]:
    async with _opened(ledger_url, f"bank-{uuid.uuid4().hex[:8]}") as opened:
        yield opened


@pytest.fixture
async def own_bank(own_url: str) -> AsyncIterator[Bank]:
    async with _opened(own_url, "own-bank") as opened:
        yield opened
