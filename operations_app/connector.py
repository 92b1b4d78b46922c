"""How the operations application is put together, top to bottom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from hub.connector import Connector, Service, Work
from hub.messages import Engine
from hub.settings import DatabaseSettings, TokenSettings, read
from hub.statements import open_statements
from hub.tokens import TokenVerifier
from operations_app.app import operations_app
from operations_app.worker import OperationsWorker


@asynccontextmanager
async def open_work(_: Engine) -> AsyncIterator[Work]:
    """The jobs of operator-action.bpmn."""
    settings = read(DatabaseSettings)
    async with open_statements(settings.url, settings.pool_size) as database:
        yield Work(workers=[OperationsWorker()], probes={"database": database.ping})


@asynccontextmanager
async def open_api(_: Engine) -> AsyncIterator[Service]:
    """The operations API."""
    settings, verifier = read(DatabaseSettings), TokenVerifier(read(TokenSettings))
    async with open_statements(settings.url, settings.pool_size) as database:
        yield Service(operations_app(verifier, {"database": database.ping}))


CONNECTOR: Final = Connector(
    name="operations",
    worker_classes=(OperationsWorker,),
    open_work=open_work,
    services={"operations": open_api},
    migrations="operations_app.migrations",
)
