"""How the operations application is put together, top to bottom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from hub.connector import Connector, Service, Work
from hub.messages import Engine
from hub.repetition import repeat
from hub.settings import DatabaseSettings, read
from hub.statements import open_statements
from ledger.settings import LedgerSettings
from operations_app.actions import wiring
from operations_app.actions.model import ActionDecided, ActionRequested, RecallAnswered
from operations_app.bulk.runner import BulkRunner
from operations_app.bulk.single import ActionsOfBulk
from operations_app.bulk.store import BulkStore
from operations_app.journal import Journal
from operations_app.settings import OperationsSettings
from operations_app.views import open_views
from operations_app.worker import OperationsWorker


@asynccontextmanager
async def open_work(engine: Engine) -> AsyncIterator[Work]:
    """The jobs of operator-action.bpmn, and the messages that start and move its instances."""
    settings, tables, book = read(OperationsSettings), read(DatabaseSettings), read(LedgerSettings)
    async with (
        open_statements(tables.url, tables.pool_size, role=settings.role) as database,
        open_statements(book.database_url, book.pool_size, role=book.role) as ledger,
        open_views() as views,
    ):
        journal = Journal(database)
        parts = wiring.carrying(
            engine, views=views, database=database, ledger=ledger, journal=journal, settings=settings
        )
        single = ActionsOfBulk(wiring.actions(views, database, ledger, journal, settings))
        runner = BulkRunner(BulkStore(database), journal, single)
        yield Work(
            workers=[OperationsWorker(parts.carrying)],
            loops=[parts.relay.run, partial(repeat, "bulk operations", runner.step, settings.bulk_every)],
            probes={"database": database.ping},
        )


@asynccontextmanager
async def open_api(engine: Engine) -> AsyncIterator[Service]:
    """The operations API."""
    from operations_app.service import open_service  # noqa: PLC0415 -- the worker carries none of its routes

    async with open_service(engine) as service:
        yield service


CONNECTOR: Final = Connector(
    name="operations",
    worker_classes=(OperationsWorker,),
    open_work=open_work,
    services={"operations": open_api},
    messages=(ActionRequested, ActionDecided, RecallAnswered),
    migrations="operations_app.migrations",
)
