"""A whole channel for each test: its routes in process, its tables in PostgreSQL, an engine that only remembers."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from connectors.channel.api import build_channel_app
from connectors.channel.callbacks import open_callbacks
from connectors.channel.model import ClaimPayment, PaymentAccepted, RecordOutcome
from connectors.channel.relay import Relay
from connectors.channel.settings import ChannelSettings
from connectors.channel.stand_in import StandIn, open_stand_in
from connectors.channel.store import LOCK_TIMEOUT, ChannelStore
from connectors.channel.worker import ChannelWorker
from hub.jobs import JobFacts
from hub.migrations import migrate
from hub.settings import TokenSettings
from hub.statements import Statements, open_statements
from hub.testing import FakeEngine, job_facts, run
from hub.tokens import JWKS_FILE, LocalIssuer, TokenVerifier
from hub.transfer import Outcome, PaymentId, Reason, TenantId
from hub.zeebe.outcomes import Ending

SECRET = "whsec_dGVzdC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcyE="
ALLOW_LIST = ["http://127.0.0.1:*/hooks", "http://localhost:*/hooks"]


def request_body(**changes: Any) -> dict[str, Any]:
    """A request that is accepted."""
    return {
        "clientRefId": "order-7",
        "payer": {"partyIdInfo": {"partyIdType": "MSISDN", "partyIdentifier": "525511110001"}, "name": "Ana Torres"},
        "payee": {
            "partyIdInfo": {"partyIdType": "CLABE", "partyIdentifier": "012180001183597198"},
            "name": "Luis Vega",
        },
        "amount": {"amount": "850.00", "currency": "MXN"},
        "note": "Rent November",
        **changes,
    }


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that happens beside the test."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@dataclass
class Channel:
    """The channel's parts and the few things tests do with them."""

    app: FastAPI
    client: httpx.AsyncClient
    store: ChannelStore
    database: Statements
    engine: FakeEngine
    relay: Relay
    settings: ChannelSettings
    issuer: LocalIssuer
    tenant: TenantId
    stand_in: StandIn
    looks: int = 0
    _loops: list[asyncio.Task[None]] = field(default_factory=list)

    body = staticmethod(request_body)
    until = staticmethod(until)

    def token(self, tenant: str | None = None, role: str = "channel") -> str:
        return self.issuer.mint(role, tenant or self.tenant)

    def headers(self, key: str | None = None, tenant: str | None = None, **more: str) -> dict[str, str]:
        tenant = tenant or self.tenant
        return {
            "Authorization": f"Bearer {self.token(tenant)}",
            "Platform-TenantId": tenant,
            "X-CorrelationID": key or uuid.uuid4().hex,
            **more,
        }

    async def send(
        self, body: Mapping[str, Any] | bytes | None = None, key: str | None = None, **headers: str
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(request_body() if body is None else body)
        return await self.client.post(
            "/channel/transfer",
            content=content,
            headers={"Content-Type": "application/json", **self.headers(key), **headers},
        )

    async def accepted(self, **headers: str) -> PaymentId:
        answer = await self.send(**headers)
        assert answer.status_code == 202, answer.text
        return PaymentId(answer.json()["transactionId"])

    async def ask(self, payment_id: str, tenant: str | None = None) -> httpx.Response:
        return await self.client.get(f"/channel/transfer/{payment_id}", headers=self.headers(tenant=tenant))

    async def claim(self, payment_id: PaymentId, instance: int = 11, tenant: TenantId | None = None) -> Ending:
        job = ClaimPayment(payment_id=payment_id, tenant_id=tenant or self.tenant)
        return await run(self.worker(), job, facts_of(job, instance))

    async def record(
        self, payment_id: PaymentId, outcome: Outcome, reason: Reason, detail: str | None = None
    ) -> Ending:
        job = RecordOutcome(
            payment_id=payment_id, tenant_id=self.tenant, outcome=outcome, reason=reason, reason_detail=detail
        )
        return await run(self.worker(), job)

    def worker(self) -> ChannelWorker:
        def looked() -> None:
            self.looks += 1

        return ChannelWorker(self.store, looked)

    def start(self, loop: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(loop())
        self._loops.append(task)
        return task

    async def stop(self) -> None:
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops.clear()

    async def rows(self, statement: str, **parameters: Any) -> list[Any]:
        return await self.database.rows(statement, parameters)

    async def published(self, count: int) -> list[PaymentAccepted]:
        """What the engine was given, once it was given that many."""
        await self.until(lambda: len(self.engine.messages) >= count)
        return self.engine.published(PaymentAccepted)

    async def age(self, payment_id: PaymentId, by: timedelta) -> None:
        """Let the lease of a payment be over."""
        await self.rows(
            "UPDATE channel.payment SET publish_after = publish_after - %(by)s WHERE id = %(id)s", by=by, id=payment_id
        )


def facts_of(job: ClaimPayment, instance: int) -> JobFacts:
    facts = job_facts(job)
    return JobFacts(
        key=facts.key,
        process_instance_key=instance,
        process_id=facts.process_id,
        element_id=facts.element_id,
        retries=facts.retries,
        deadline=facts.deadline,
    )


@pytest.fixture(scope="session")
def channel_database(new_database: Callable[[], str]) -> str:
    url = new_database()
    migrate("connectors.channel.migrations", url)
    return url


OpenChannel = Callable[..., Any]


@pytest.fixture
def open_channel(channel_database: str, tmp_path: Path) -> OpenChannel:
    """Opens a channel with settings of its own; each has a tenant of its own, so tests do not meet."""

    @asynccontextmanager
    async def opened(engine: FakeEngine | None = None, **settings: Any) -> AsyncIterator[Channel]:
        chosen = ChannelSettings(**{"sweep_every": 0.05, "callback_first_pause": 0.05, **settings})
        issuer = LocalIssuer.open(tmp_path)
        tenant = TenantId(f"t{uuid.uuid4().hex[:10]}")
        async with open_statements(channel_database, 8, lock_timeout=LOCK_TIMEOUT) as database:
            store = ChannelStore(database)
            # Whatever other tests left must not be swept up here.
            await database.rows("UPDATE channel.payment SET publish_after = 'infinity', published_at = NULL")
            await database.rows("UPDATE channel.callback SET state = 'GIVEN_UP' WHERE state = 'DUE'")
            await store.put_tenant(tenant, "A tenant", ALLOW_LIST, SECRET)
            engine = engine or FakeEngine()
            relay = Relay(store, engine, chosen)
            verifier = TokenVerifier(TokenSettings(jwks_file=tmp_path / JWKS_FILE))
            async with AsyncExitStack() as opened:
                stand_in = await opened.enter_async_context(open_stand_in(database, chosen))
                app = build_channel_app(store, relay, verifier, stand_in=stand_in)
                transport = httpx.ASGITransport(app, raise_app_exceptions=False)
                client = await opened.enter_async_context(
                    httpx.AsyncClient(transport=transport, base_url="http://channel")
                )
                channel = Channel(app, client, store, database, engine, relay, chosen, issuer, tenant, stand_in)
                try:
                    yield channel
                finally:
                    with suppress(asyncio.CancelledError):
                        await channel.stop()

    return opened


@pytest.fixture
async def channel(open_channel: OpenChannel) -> AsyncIterator[Channel]:
    """A channel whose relay does not run."""
    async with open_channel() as opened:
        yield opened


@pytest.fixture
async def running(open_channel: OpenChannel) -> AsyncIterator[Channel]:
    """A channel whose relay and callbacks run."""
    async with open_channel() as opened, open_callbacks(opened.store, opened.settings) as callbacks:
        opened.start(opened.relay.run)
        opened.start(callbacks.run)
        await asyncio.sleep(0)
        yield opened
