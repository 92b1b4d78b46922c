"""The operations API in process, over views that the real folds made of records of the real engine.

`records.jsonl.gz` of the exporters' tests holds 14 payments of the tenant acme. Here one of them is told as globex's,
and the one with the concept "cancel" says that it gives back the one with the concept "return".
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from elasticsearch import Elasticsearch
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from exporters.audit import AuditFold
from exporters.documents import Documents
from exporters.elastic import ElasticReader, ElasticSink, Indexes, Patience, open_client
from exporters.operations import OperationsFold
from exporters.pipeline import Pipeline
from exporters.sift import RawMessage, Sifter
from exporters.views import VIEWS
from hub.migrations import migrate
from hub.settings import TokenSettings
from hub.statements import Statements, open_statements
from hub.tokens import JWKS_FILE, LocalIssuer, TokenVerifier
from operations_app.app import operations_app
from operations_app.journal import Journal
from operations_app.settings import OperationsSettings
from operations_app.views import Views, open_views

SEARCH_SECRET = b"for tests of the operations API"
ACME, GLOBEX = "acme", "globex"
RECORDS = Path(__file__).parent.parent / "exporters" / "records.jsonl.gz"


@dataclass(frozen=True)
class Told:
    """Views in Elasticsearch, and what is in them."""

    url: str
    prefix: str
    client: Elasticsearch
    transfers: Mapping[str, Mapping[str, Any]]
    foreign: str
    """The payment of globex."""

    def where(self, **wanted: Any) -> list[str]:
        """The payments of acme whose documents hold these values."""
        return [
            id_
            for id_, body in self.transfers.items()
            if body["tenantId"] == ACME and all(body.get(name) == value for name, value in wanted.items())
        ]


@pytest.fixture(scope="session")
def told(elasticsearch_url: str) -> Iterator[Told]:
    """Both views of the records, made once for all tests that only read."""
    import threading

    client, prefix = open_client(elasticsearch_url), f"t{uuid.uuid4().hex[:10]}"
    patience = Patience(threading.Event())
    messages, foreign = _messages()
    for name, make in (("operations", lambda kept: OperationsFold(kept, SEARCH_SECRET)), ("audit", AuditFold)):
        generation = Indexes(client, VIEWS[name], prefix).ensure()
        sink = ElasticSink(client, generation, patience, 4_000_000)
        pipeline = Pipeline(Sifter(None), make(Documents(ElasticReader(client, generation, patience), 50_000)))
        for begin in range(0, len(messages), 2000):
            pipeline.accept(messages[begin : begin + 2000], sink)
    client.indices.refresh(index=f"{prefix}-*")
    found = client.search(index=f"{prefix}-transfers", size=100)["hits"]["hits"]
    yield Told(elasticsearch_url, prefix, client, {hit["_id"]: hit["_source"] for hit in found}, foreign)
    for view in VIEWS.values():
        Indexes(client, view, prefix).drop(1)
        for family in view.families:
            client.indices.delete_index_template(name=f"{prefix}-{family}")
    client.close()


def _messages() -> tuple[list[RawMessage], str]:
    records = [json.loads(line) for line in gzip.decompress(RECORDS.read_bytes()).splitlines()]
    started = [one for one in records if one["valueType"] == "MESSAGE_START_EVENT_SUBSCRIPTION"]
    by_concept = {one["value"]["variables"].get("concept"): one["value"] for one in started}
    cancelled = by_concept["cancel"]["processInstanceKey"]
    for value in (one["value"] for one in records if one["valueType"] == "VARIABLE"):
        if (value["name"], value["scopeKey"]) == ("reference_number", cancelled):
            value["name"] = "original_payment_id"
            value["value"] = json.dumps(by_concept["return"]["variables"]["payment_id"])
    foreign = next(
        one["value"]["variables"]["payment_id"] for one in started if one["value"]["variables"].get("concept") == "Test"
    )
    for one in records:
        variables = one["value"].get("variables")
        if isinstance(variables, dict) and variables.get("payment_id") == foreign:
            variables["tenant_id"] = GLOBEX
    keys = [f'{{"partitionId":{one["partitionId"]},"position":{one["position"]}}}'.encode() for one in records]
    return [(key, json.dumps(one).encode()) for key, one in zip(keys, records, strict=True)], str(foreign)


@pytest.fixture(scope="session")
def tables(new_database: Callable[[], str], told: Told) -> str:
    """A database with every table, and the rows of PostgreSQL that belong to the payments told."""
    url = new_database()
    for component in (
        "ledger.migrations",
        "ledger.disbursement.migrations",
        "connectors.channel.migrations",
        "connectors.stp.migrations",
        "operations_app.migrations",
    ):
        migrate(component, url)
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        for number, (id_, body) in enumerate(told.transfers.items()):
            _remember(connection, id_, body, number)
    return url


def _remember(connection: psycopg.Connection[Any], id_: str, body: Mapping[str, Any], number: int) -> None:
    connection.execute(
        "INSERT INTO channel.tenant (id, name, callback_allow_list) VALUES (%s, %s, '{}') ON CONFLICT DO NOTHING",
        [body["tenantId"], body["tenantId"]],
    )
    connection.execute(
        "INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, client_ref_id, amount, currency, "
        "payer, payee, concept, publish_after, process_instance_key) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, '{}', '{}', 'x', now(), %s)",
        [
            id_,
            body["tenantId"],
            f"correlation-{number}",
            b"x" * 32,
            f"order-{number}",
            body.get("amount", 100),
            body.get("currency", "MXN"),
            int(body["processInstanceKey"]),
        ],
    )


_DESCRIPTION: dict[str, Any] = {}
"""What there is to call takes half a second to describe: once for all tests."""


@dataclass(frozen=True)
class Operations:
    """The API with a client."""

    app: FastAPI
    client: httpx.AsyncClient
    issuer: LocalIssuer
    database: Statements
    views: Views

    def headers(self, *roles: str, tenant: str = ACME, **more: str) -> dict[str, str]:
        token = self.issuer.mint(roles or ("viewer",), tenant, "olga")
        return {"Authorization": f"Bearer {token}", **more}

    async def get(self, path: str, *roles: str, tenant: str = ACME, **parameters: Any) -> httpx.Response:
        """Ask `/api/v1` + path."""
        return await self.client.get(f"/api/v1{path}", params=parameters, headers=self.headers(*roles, tenant=tenant))

    async def ok(self, path: str, *roles: str, tenant: str = ACME, **parameters: Any) -> Any:
        """The JSON of a 200."""
        answer = await self.get(path, *roles, tenant=tenant, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def operations(told: Told, tables: str, tmp_path: Path) -> AsyncIterator[Operations]:
    """The API over the views and tables of `told`."""
    async for made in opened(told.url, told.prefix, tables, tmp_path):
        yield made


async def opened(url: str, prefix: str, tables: str, folder: Path) -> AsyncIterator[Operations]:
    issuer = LocalIssuer.open(folder)
    async with open_views(url, prefix) as views, open_statements(tables, 8) as database:
        app = operations_app(
            TokenVerifier(TokenSettings(jwks_file=folder / JWKS_FILE)),
            views=views,
            database=database,
            ledger=database,
            journal=Journal(database),
            settings=OperationsSettings(cursor_secret=SecretStr("a secret of the tests")),
            search_secret=SEARCH_SECRET,
            probes={"database": database.ping},
        )
        app.openapi_schema = _DESCRIPTION or None
        _DESCRIPTION.update(app.openapi())
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://operations") as client:
            yield Operations(app, client, issuer, database, views)


@pytest.fixture
async def without_views(told: Told, tables: str, tmp_path: Path) -> AsyncIterator[Operations]:
    """The API when Elasticsearch is away."""
    async for made in opened("http://127.0.0.1:9", told.prefix, tables, tmp_path):
        yield made
