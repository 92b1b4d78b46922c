"""Lenders to test with: a tenant with its book, stores, credits and the verbs; every test has one of its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.migrations import migrate
from hub.money import Money
from hub.statements import Statements, open_statements
from ledger.disbursement.balances import Balances
from ledger.disbursement.eligibility import Eligibility
from ledger.disbursement.model import BalanceUpdate, BankTransfer, Collected, NothingToPay, Outcome, Trigger
from ledger.disbursement.transfers import Transfers
from ledger.model import STANDARD_CHART
from ledger.settings import APP_ROLE

CLABE = "646180110400000007"


def mxn(amount: str) -> Money:
    """An amount as a decimal string; it may be negative."""
    return -Money.parse(amount[1:], "MXN") if amount.startswith("-") else Money.parse(amount, "MXN")


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@dataclass
class Lender:
    """A tenant that pays stores."""

    name: str
    url: str
    statements: Statements
    balances: Balances = field(init=False)
    transfers: Transfers = field(init=False)
    eligibility: Eligibility = field(init=False)

    def __post_init__(self) -> None:
        self.balances = Balances(self.statements)
        self.transfers = Transfers(self.statements)
        self.eligibility = Eligibility(self.statements)

    async def merchant(self, name: str = "m1", *, automation: bool = True, validated: bool = True) -> None:
        await self.statements.rows(
            "INSERT INTO disbursement.merchant (tenant_id, id, name, tax_id, automation, validated) "
            "VALUES (%(tenant)s, %(id)s, 'Muebles', 'MUE010101AAA', %(automation)s, %(validated)s)",
            {"tenant": self.name, "id": name, "automation": automation, "validated": validated},
        )

    async def store(
        self,
        name: str = "s1",
        *,
        merchant: str = "m1",
        frequency: str = "DAILY",
        minimum: str = "0",
        manual: bool = False,
        validated: bool = True,
        account: bool = True,
        authenticated: bool = True,
    ) -> None:
        """A store that is paid daily, with all that this needs unless told otherwise."""
        await self.statements.rows(
            "INSERT INTO disbursement.store (tenant_id, id, merchant_id, name, frequency, minimum_amount, "
            "manual_confirmation, validated) VALUES (%(tenant)s, %(id)s, %(merchant)s, 'Centro', %(frequency)s, "
            "%(minimum)s, %(manual)s, %(validated)s)",
            {
                "tenant": self.name,
                "id": name,
                "merchant": merchant,
                "frequency": frequency,
                "minimum": mxn(minimum).minor,
                "manual": manual,
                "validated": validated,
            },
        )
        if account:
            await self.account(name, authenticated=authenticated)

    async def account(self, store: str, clabe: str = CLABE, *, authenticated: bool = True) -> None:
        await self.statements.rows(
            "INSERT INTO disbursement.bank_account (tenant_id, store_id, clabe, holder_name, tax_id, authenticated_at, "
            "authenticated_by) SELECT %(tenant)s, %(store)s, %(clabe)s, 'Muebles SA', 'MUE010101AAA', a, b "
            "FROM (SELECT CASE WHEN %(ok)s THEN now() END, CASE WHEN %(ok)s THEN 'treasury' END) AS n (a, b)",
            {"tenant": self.name, "store": store, "clabe": clabe, "ok": authenticated},
        )

    async def credit(self, name: str, amount: str, commission: str | None = "0", *, store: str = "s1") -> None:
        await self.statements.rows(
            "INSERT INTO disbursement.credit (tenant_id, id, store_id, amount, commission, signed_at) "
            "VALUES (%(tenant)s, %(id)s, %(store)s, %(amount)s, %(commission)s, now())",
            {
                "tenant": self.name,
                "id": name,
                "store": store,
                "amount": mxn(amount).minor,
                "commission": None if commission is None else mxn(commission).minor,
            },
        )

    async def delivered(
        self, credit: str, amount: str, commission: str | None = "0", *, store: str = "s1"
    ) -> BalanceUpdate:
        """A credit that is signed and delivered."""
        await self.credit(credit, amount, commission, store=store)
        return await self.contribute(credit)

    async def contribute(self, credit: str) -> BalanceUpdate:
        return await self.balances.contribute(self.name, credit, operation=f"{credit}:delivered", actor="partner")

    async def cancel(self, credit: str) -> BalanceUpdate:
        return await self.balances.cancel_credit(
            self.name, credit, operation=f"{credit}:cancelled", reason="returned goods", actor="partner"
        )

    async def adjust(self, effect: str, operation: str, *, store: str = "s1") -> BalanceUpdate:
        return await self.balances.adjust(
            self.name, store, mxn(effect), operation=operation, reason="ticket 7", actor="treasury"
        )

    async def fire(
        self, trigger: Trigger = Trigger.DAILY, *, store: str = "s1", payment_id: str | None = None
    ) -> Collected | NothingToPay:
        return await self.transfers.collect(self.name, store, payment_id or str(uuid.uuid4()), trigger)

    async def collected(self, trigger: Trigger = Trigger.DAILY, *, store: str = "s1") -> BankTransfer:
        made = await self.fire(trigger, store=store)
        assert isinstance(made, Collected), made
        return made.transfer

    async def sent(self, *, store: str = "s1") -> BankTransfer:
        """A transfer that the provider took."""
        transfer = await self.collected(store=store)
        await self.transfers.record_sent(self.name, transfer.id)
        return transfer

    async def told(self, transfer: BankTransfer, outcome: Outcome, reason: str | None = None):
        return await self.transfers.record_outcome(self.name, transfer.id, outcome, reason=reason)

    async def status(self, transfer: BankTransfer) -> str:
        found = await self.transfers.find(self.name, transfer.id)
        assert found is not None
        return found.status

    async def balance(self, store: str = "s1") -> str:
        return (await self.balances.balance(self.name, store)).balance.decimal()

    async def statuses(self, store: str = "s1") -> list[str]:
        """Of the store's updates, oldest first, as in `CONTRIBUTION PENDING`."""
        updates = await self.balances.updates(self.name, store)
        return [f"{update.type} {update.status}" for update in reversed(updates)]

    async def disbursed(self, credit: str) -> bool:
        rows = await self.statements.rows(
            "SELECT disbursed FROM disbursement.credit WHERE tenant_id = %(tenant)s AND id = %(id)s",
            {"tenant": self.name, "id": credit},
        )
        return rows[0][0]

    async def booked(self, kind: str, owner: str = "") -> int:
        """Minor units on an account of the book, on its own side."""
        rows = await self.statements.rows(
            "SELECT CASE b.side WHEN 'C' THEN b.credits - b.debits ELSE b.debits - b.credits END "
            "FROM ledger.book k JOIN ledger.account a ON a.book_id = k.id JOIN ledger.balance b ON b.account_id = a.id "
            "WHERE k.code = %(tenant)s AND a.kind = %(kind)s AND a.owner_id = %(owner)s",
            {"tenant": self.name, "kind": kind, "owner": owner},
        )
        return rows[0][0] if rows else 0

    async def outbox(self) -> list[tuple[str, str, dict]]:
        """Messages of this tenant, oldest first."""
        return await self.statements.rows(
            "SELECT message, correlation, payload FROM disbursement.outbox WHERE payload ->> 'tenant_id' = %(tenant)s "
            "ORDER BY id",
            {"tenant": self.name},
        )


def _copied(server: str, template: str) -> str:
    name = f"stores_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(plain(server), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {make_url(template).database}".encode())
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def stores_template(database_server: str, template: str) -> str:
    """A migrated database that nobody connects to."""
    url = _copied(database_server, template)
    migrate("ledger.disbursement.migrations", url)
    return url


@pytest.fixture(scope="session")
def stores_url(database_server: str, stores_template: str) -> str:
    return _copied(database_server, stores_template)


@pytest.fixture(scope="session")
def new_stores(database_server: str, stores_template: str) -> Callable[[], str]:
    """Makes databases that a test may damage."""
    return lambda: _copied(database_server, stores_template)


@asynccontextmanager
async def opened_lender(url: str) -> AsyncIterator[Lender]:
    """A new lender with one merchant and no store."""
    name = f"lender-{uuid.uuid4().hex[:8]}"
    async with open_statements(url, 20, role=APP_ROLE) as statements:
        await statements.rows(
            "WITH made AS (INSERT INTO ledger.book (code) VALUES (%(name)s) RETURNING id) "
            "INSERT INTO ledger.chart (book_id, kind, side, auto_create) "
            "SELECT made.id, line.kind, line.side, line.auto FROM made, "
            "unnest(%(kinds)s::text[], %(sides)s::text[], %(autos)s::boolean[]) AS line (kind, side, auto)",
            {
                "name": name,
                "kinds": [line.kind for line in STANDARD_CHART],
                "sides": [line.side for line in STANDARD_CHART],
                "autos": [line.auto_create for line in STANDARD_CHART],
            },
        )
        lender = Lender(name, url, statements)
        await lender.merchant()
        yield lender


@pytest.fixture
async def lender(stores_url: str) -> AsyncIterator[Lender]:
    async with opened_lender(stores_url) as opened:
        yield opened


@pytest.fixture
async def own_lender(new_stores: Callable[[], str]) -> AsyncIterator[Lender]:
    async with opened_lender(new_stores()) as opened:
        yield opened


@pytest.fixture(scope="session")
def open_lender() -> Callable[[str], AbstractAsyncContextManager[Lender]]:
    """Opens a lender in the database of this address."""
    return opened_lender
