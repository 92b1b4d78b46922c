"""How disbursements are put together, top to bottom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from connectors.disbursement.api import disbursement_app
from connectors.disbursement.worker import DisbursementWorker
from hub.connector import Connector, Service, Work
from hub.messages import Engine
from hub.settings import TokenSettings, read
from hub.statements import Statements, open_statements
from hub.tokens import TokenVerifier
from ledger.settings import LedgerSettings


def _database() -> AbstractAsyncContextManager[Statements]:
    settings = read(LedgerSettings)
    return open_statements(settings.database_url, settings.pool_size, role=settings.role)


@asynccontextmanager
async def open_work(_: Engine) -> AsyncIterator[Work]:
    """The jobs."""
    async with _database() as statements:
        yield Work(workers=[DisbursementWorker()], probes={"database": statements.ping})


@asynccontextmanager
async def open_api(_: Engine) -> AsyncIterator[Service]:
    """The HTTP interface."""
    verifier = TokenVerifier(read(TokenSettings))
    async with _database() as statements:
        yield Service(disbursement_app(statements, verifier, {"database": statements.ping}))


CONNECTOR: Final = Connector(
    name="disbursement",
    worker_classes=(DisbursementWorker,),
    open_work=open_work,
    services={"disbursement": open_api},
)
