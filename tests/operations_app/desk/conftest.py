"""The operations API over PostgreSQL alone, as the roles it works as. Every test has a tenant of its own."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import make_url

from connectors.stp.callbacks import Callbacks
from connectors.stp.deposit_store import DepositStore
from connectors.stp.deposits import Deposits
from connectors.stp.log import Reprocessing
from connectors.stp.orders import OrderStore
from hub.migrations import migrate
from hub.settings import TokenSettings
from hub.statements import Statements, open_statements
from hub.testing import FakeEngine
from hub.tokens import JWKS_FILE, LocalIssuer, TokenVerifier
from hub.transfer import TenantId
from ledger.settings import APP_ROLE as BOOK_ROLE
from operations_app.app import operations_app
from operations_app.journal import Entry, Journal
from operations_app.settings import APP_ROLE, OperationsSettings
from operations_app.views import open_views

PAYER = {"id_type": "MSISDN", "identifier": "525511110001", "name": "Ana Prueba", "tax_id": None}
PAYEE = {"id_type": "CLABE", "identifier": "012180001183597198", "name": "Luis Vega", "tax_id": "VEGL800101AB1"}


@pytest.fixture(scope="session")
def desk_url(new_database: Callable[[], str]) -> str:
    """A database with every table of the hub."""
    url = new_database()
    for package in (
        "ledger.migrations",
        "ledger.disbursement.migrations",
        "connectors.channel.migrations",
        "connectors.stp.migrations",
        "operations_app.migrations",
    ):
        migrate(package, url)
    return url


@pytest.fixture(scope="session")
def desk_issuer(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalIssuer, Path]:
    folder = tmp_path_factory.mktemp("issuer")
    return LocalIssuer.open(folder), folder / JWKS_FILE


@dataclass
class Desk:
    """The API with a client, and the tables behind it as their owner sees them."""

    app: FastAPI
    client: httpx.AsyncClient
    issuer: LocalIssuer
    database: Statements
    owner: Statements
    url: str
    engine: FakeEngine
    callbacks: Callbacks
    deposits: Deposits
    tenant: TenantId = field(default_factory=lambda: TenantId(f"bank-{uuid.uuid4().hex[:8]}"))

    async def ask(
        self,
        method: str,
        path: str,
        *roles: str,
        subject: str = "olga",
        tenant: str | None = None,
        body: Any = None,
        query: dict[str, Any] | None = None,
        **headers: str,
    ) -> httpx.Response:
        token = self.issuer.mint(roles or ("viewer",), tenant or self.tenant, subject)
        sent = {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(method, f"/api/v1{path}", json=body, params=query, headers=sent)

    async def ok(self, method: str, path: str, *roles: str, status: int = 200, **more: Any) -> Any:
        answer = await self.ask(method, path, *roles, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def log(self, action: str | None = None) -> list[Entry]:
        """This tenant's rows of the operator log."""
        entries, seq = [], 0
        while page := await Journal(self.database).after(seq):
            entries += [one for one in page if one.tenant_id == self.tenant and action in {None, one.action}]
            seq = page[-1].seq
        return entries

    async def payment(self, amount: int = 12_500, tenant: str | None = None) -> str:
        """A payment that the channel took in."""
        payment_id = str(uuid.uuid4())
        await self.owner.rows(
            "INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, amount, currency, payer, "
            "payee, concept, publish_after) VALUES (CAST(%(id)s AS uuid), %(tenant)s, CAST(%(id)s AS uuid)::text, "
            "'\\x00', %(amount)s, 'MXN', %(payer)s, "
            "%(payee)s, 'Renta', now())",
            {
                "id": payment_id,
                "tenant": tenant or self.tenant,
                "amount": amount,
                "payer": json.dumps(PAYER),
                "payee": json.dumps(PAYEE),
            },
        )
        return payment_id

    async def order(self, company: str | None = None) -> tuple[str, str]:
        """An order that STP accepted: its payment's id and its tracking key."""
        payment_id, key = await self.payment(), f"PH{uuid.uuid4().hex[:20].upper()}"
        await self.owner.rows(
            "INSERT INTO stp.stp_order (payment_id, tenant_id, company, tracking_key, amount, payee_account, body, "
            "joined_sha256, operation_date, sending) VALUES (%(id)s, %(tenant)s, %(company)s, %(key)s, 12500, "
            "'012180001183597198', '{}', '', current_date, 'ACCEPTED')",
            {"id": payment_id, "tenant": self.tenant, "company": company or self.tenant.upper(), "key": key},
        )
        return payment_id, key

    async def acts(self, **wanted: Any) -> list[str]:
        """Outcomes of the rows of the log that hold these values."""
        return [
            one.outcome
            for one in await self.log()
            if all(getattr(one, name) == value for name, value in wanted.items())
        ]


@pytest.fixture(scope="session")
def desk_app(desk_issuer: tuple[LocalIssuer, Path]) -> FastAPI:
    """The application, described once: what it works on is each test's own."""
    nothing: Any = None
    return operations_app(
        TokenVerifier(TokenSettings(jwks_file=desk_issuer[1])),
        views=nothing,
        database=nothing,
        ledger=nothing,
        journal=nothing,
        settings=OperationsSettings(cursor_secret="a secret of the tests"),
        probes={},
    )


_KEPT_BY_SLICES = ("callback_log", "bulk", "actions", "reprocessing")


@pytest.fixture
async def desk(desk_url: str, desk_issuer: tuple[LocalIssuer, Path], desk_app: FastAPI) -> AsyncIterator[Desk]:
    issuer, _ = desk_issuer
    async with (
        open_statements(desk_url, 8, role=APP_ROLE) as database,
        open_statements(desk_url, 4, role=BOOK_ROLE) as ledger,
        open_statements(desk_url, 4) as owner,
        open_views("http://127.0.0.1:9", "none") as views,
    ):
        engine, orders = FakeEngine(), OrderStore(owner)
        callbacks = Callbacks(orders, engine)
        deposits = Deposits(DepositStore(owner), orders, callbacks, engine)
        app = desk_app
        for name in _KEPT_BY_SLICES:
            app.state._state.pop(name, None)
        app.state.views, app.state.database, app.state.ledger = views, database, ledger
        app.state.journal = Journal(database)
        app.state.reprocessing = Reprocessing(callbacks, deposits)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://operations") as client:
            yield Desk(
                app=app,
                client=client,
                issuer=issuer,
                database=database,
                owner=owner,
                url=desk_url,
                engine=engine,
                callbacks=callbacks,
                deposits=deposits,
            )


def owner_of(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
