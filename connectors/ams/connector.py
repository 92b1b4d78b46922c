"""How the account-system connector is put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from connectors.ams.client import AccountSystem
from connectors.ams.settings import AmsSettings, FineractSettings, FineractSimulatorSettings
from connectors.ams.worker import AmsWorker
from hub.connector import Connector, Service, Work
from hub.messages import Engine
from hub.settings import DatabaseSettings, read
from hub.statements import open_statements


@asynccontextmanager
async def open_ledger() -> AsyncIterator[AccountSystem]:
    """Our own ledger."""
    from connectors.ams.ledger_backend import LedgerBackend  # noqa: PLC0415 -- the other backend needs no ledger
    from ledger.settings import LedgerSettings  # noqa: PLC0415

    settings = read(LedgerSettings)
    async with open_statements(settings.database_url, settings.pool_size, role=settings.role) as statements:
        yield LedgerBackend(statements)


@asynccontextmanager
async def open_fineract_backend() -> AsyncIterator[AccountSystem]:
    """Apache Fineract, with the table in which we note what we asked of it."""
    from connectors.ams.fineract_backend import FineractBackend  # noqa: PLC0415 -- our ledger needs no HTTP
    from connectors.ams.fineract_client import open_fineract  # noqa: PLC0415
    from connectors.ams.fineract_steps import Steps  # noqa: PLC0415

    settings, database = read(FineractSettings), read(DatabaseSettings)
    async with open_statements(database.url, database.pool_size) as statements, open_fineract(settings) as fineract:
        yield FineractBackend(fineract, Steps(statements))


BACKENDS: Final = {"ledger": open_ledger, "fineract": open_fineract_backend}


@asynccontextmanager
async def open_work(_: Engine) -> AsyncIterator[Work]:
    """The jobs of `AmsWorker` on the account system that the settings name."""
    backend = read(AmsSettings).backend
    async with BACKENDS[backend]() as accounts:
        yield Work(workers=[AmsWorker(accounts)], probes={backend: accounts.ping})


@asynccontextmanager
async def open_simulator(_: Engine) -> AsyncIterator[Service]:
    """A pretend Fineract over real HTTP, for demonstrations and tests."""
    from connectors.ams.fake import FineractSimulator, build_simulator_app  # noqa: PLC0415 -- never in production

    yield Service(build_simulator_app(FineractSimulator(read(FineractSimulatorSettings))))


CONNECTOR: Final = Connector(
    name="ams",
    worker_classes=(AmsWorker,),
    open_work=open_work,
    services={"fineract-simulator": open_simulator},
    migrations="connectors.ams.migrations",
)
