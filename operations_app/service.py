"""The operations API, put together top to bottom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.stp.callbacks import Callbacks
from connectors.stp.deposit_store import DepositStore
from connectors.stp.deposits import Deposits
from connectors.stp.log import Reprocessing
from connectors.stp.orders import OrderStore
from exporters.settings import ExportSettings
from hub.connector import Service
from hub.messages import Engine
from hub.settings import DatabaseSettings, KafkaSettings, Settings, TokenSettings, prefixed, read
from hub.statements import Statements, open_statements
from hub.tokens import TokenVerifier
from hub.transfer import TenantId
from ledger.settings import LedgerSettings
from operations_app.app import operations_app
from operations_app.callback_mirror import callback_loops
from operations_app.journal import Journal
from operations_app.mirror import log_loops
from operations_app.settings import OperationsSettings, OperatorLogSettings
from operations_app.views import open_views


@asynccontextmanager
async def open_service(engine: Engine) -> AsyncIterator[Service]:
    """The operations API. It writes to the operator log and to its own tables; everything else it only reads."""
    settings, tables, book = read(OperationsSettings), read(DatabaseSettings), read(LedgerSettings)
    verifier, secret = TokenVerifier(read(TokenSettings)), read(ExportSettings).search_secret
    async with (
        open_statements(tables.url, tables.pool_size, role=settings.role) as database,
        open_statements(book.database_url, book.pool_size, role=book.role) as ledger,
        open_statements(tables.url, 2) as connectors,  # as the STP connector, whose posts may be handled once more
        open_views() as views,
        log_loops(journal := Journal(database), read(OperatorLogSettings), read(KafkaSettings)) as loops,
        callback_loops(connectors, settings, read(KafkaSettings)) as telling,
    ):
        app = operations_app(
            verifier,
            views=views,
            database=database,
            ledger=ledger,
            journal=journal,
            settings=settings,
            engine=engine,
            search_secret=secret.get_secret_value().encode() if secret else None,
            probes={"database": database.ping},  # without views or book the rest still answers; /api/v1/health tells
        )
        app.state.reprocessing = _reprocessing(connectors, engine)
        app.openapi()  # takes half a second, which the first who asks should not wait
        yield Service(app, loops=[*loops, *telling])


class _StpSettings(Settings):
    model_config = prefixed("PAYHUB_STP_")

    tenant_id: str | None = None


def _reprocessing(database: Statements, engine: Engine) -> Reprocessing:
    orders, tenant = OrderStore(database), read(_StpSettings).tenant_id
    callbacks = Callbacks(orders, engine)
    deposits = Deposits(
        DepositStore(database), orders, callbacks, engine, tenant=None if tenant is None else TenantId(tenant)
    )
    return Reprocessing(callbacks, deposits)
