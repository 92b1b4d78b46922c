"""How the account-system connector is put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from connectors.ams.ledger_backend import LedgerBackend
from connectors.ams.settings import AmsSettings
from connectors.ams.worker import AmsWorker
from hub.connector import Connector, Work
from hub.messages import Engine
from hub.settings import read
from hub.statements import open_statements
from ledger.settings import LedgerSettings


@asynccontextmanager
async def open_work(_: Engine) -> AsyncIterator[Work]:
    """The jobs of `AmsWorker` on the tenant's book."""
    read(AmsSettings)  # refuses a backend that does not exist
    settings = read(LedgerSettings)
    async with open_statements(settings.database_url, settings.pool_size) as statements:
        accounts = LedgerBackend(statements)
        yield Work(workers=[AmsWorker(accounts)], probes={"ledger": accounts.ping})


CONNECTOR: Final = Connector(name="ams", worker_classes=(AmsWorker,), open_work=open_work)
