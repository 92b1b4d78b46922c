"""How disbursements are put together, top to bottom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from connectors.disbursement.api import disbursement_app
from connectors.disbursement.model import RunRequested, StoreDue, TransferDecided
from connectors.disbursement.notices import open_notices
from connectors.disbursement.relay import Relay
from connectors.disbursement.settings import DisbursementSettings
from connectors.disbursement.worker import DisbursementWorker, RunWorker, Terms
from hub.connector import Connector, Service, Work
from hub.messages import Engine
from hub.repetition import repeat
from hub.settings import TokenSettings, read
from hub.statements import Statements, open_statements
from hub.tokens import TokenVerifier
from ledger.disbursement.pricing import Commissions
from ledger.disbursement.report import Reports
from ledger.disbursement.runs import Runs
from ledger.disbursement.transfers import Transfers
from ledger.settings import LedgerSettings


def _database() -> AbstractAsyncContextManager[Statements]:
    settings = read(LedgerSettings)
    return open_statements(settings.database_url, settings.pool_size, role=settings.role)


def _relay(statements: Statements, engine: Engine, settings: DisbursementSettings) -> Callable[[], Awaitable[None]]:
    relay = Relay(statements, engine, timedelta(seconds=settings.publish_lease))
    return partial(repeat, "outbox", relay.step, settings.publish_every)


@asynccontextmanager
async def open_work(engine: Engine) -> AsyncIterator[Work]:
    """The jobs, what merchants are told, and a relay for what processes that died had in hand."""
    settings = read(DisbursementSettings)
    terms = Terms(settings.concept, timedelta(seconds=settings.confirm_within))
    async with _database() as statements, open_notices(statements, settings) as notices:
        runs = Runs(statements, settings.defaults())
        yield Work(
            workers=[
                DisbursementWorker(Transfers(statements), Reports(statements), terms),
                RunWorker(runs, engine, settings.page),
            ],
            loops=[
                _relay(statements, engine, settings),
                notices.run,
                partial(repeat, "commissions", Commissions(statements).recalculate_due, settings.recalculate_every),
            ],
            probes={"database": statements.ping},
        )


@asynccontextmanager
async def open_api(engine: Engine) -> AsyncIterator[Service]:
    """The HTTP interface, and a relay for what its requests leave to the engine."""
    settings, verifier = read(DisbursementSettings), TokenVerifier(read(TokenSettings))
    async with _database() as statements:
        app = disbursement_app(statements, verifier, {"database": statements.ping}, settings.defaults())
        yield Service(app, loops=[_relay(statements, engine, settings)])


CONNECTOR: Final = Connector(
    name="disbursement",
    worker_classes=(DisbursementWorker, RunWorker),
    open_work=open_work,
    services={"disbursement": open_api},
    messages=(StoreDue, TransferDecided, RunRequested),
)
