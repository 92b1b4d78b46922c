"""How the STP connector is put together, top to bottom."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from connectors.stp.api import build_callbacks_app
from connectors.stp.callbacks import Callbacks
from connectors.stp.client import open_stp
from connectors.stp.consults import ConsultBudget
from connectors.stp.decisions import DecisionWorker
from connectors.stp.deposit_store import DepositStore
from connectors.stp.deposits import Deposits, DepositWorker
from connectors.stp.dispatch import Dispatch, Rules
from connectors.stp.fake import Simulator, build_simulator_app
from connectors.stp.model import DepositArrived, OrderReturnedLate, OrderStatusChanged
from connectors.stp.orders import OrderStore
from connectors.stp.poller import Pace, Poller
from connectors.stp.reconciliation import ReconciliationWorker
from connectors.stp.reconciliation_store import ReconciliationStore
from connectors.stp.reconciliation_wiring import open_book, reconciliation
from connectors.stp.returns import ReturnsWorker
from connectors.stp.settings import StpCallbackSettings, StpSettings, StpSimulatorSettings
from connectors.stp.tenants import profiles
from connectors.stp.worker import StpWorker, Timers
from hub.api import add_probes
from hub.connector import Connector, Service, Work
from hub.messages import Engine
from hub.repetition import repeat
from hub.settings import DatabaseSettings, SettingsError, read
from hub.statements import open_statements
from hub.transfer import TenantId

_REAL_STP: Final = "stpmex.com"


def rules(settings: StpSettings) -> Rules:
    """When orders may be sent again."""
    return Rules(
        resend=settings.resend,
        in_flight_at_most=settings.in_flight_at_most(),
        rollover_guard=timedelta(seconds=settings.rollover_guard),
    )


@asynccontextmanager
async def open_work(engine: Engine) -> AsyncIterator[Work]:
    """The jobs, the sweeps that finish what callbacks left, and the poller that asks when none came."""
    settings, database_settings = read(StpSettings), read(DatabaseSettings)
    known = profiles(settings)
    async with (
        open_statements(database_settings.url, database_settings.pool_size) as database,
        open_stp(settings, budget := ConsultBudget(database, settings.consults_per_hour)) as stp,
        open_book(settings) as book,
    ):
        orders = OrderStore(database)
        dispatch = Dispatch(orders, stp, known, rules(settings))
        worker = StpWorker(
            orders=orders,
            dispatch=dispatch,
            profiles=known,
            institutions=settings.known_institutions(),
            timers=Timers(timedelta(seconds=settings.inquire_after), timedelta(seconds=settings.inquire_again_after)),
        )
        callbacks, store = Callbacks(orders, engine), DepositStore(database)
        deposits = Deposits(store, orders, callbacks, engine, tenant=_tenant(settings.tenant_id))
        poller = Poller(
            database=database,
            orders=orders,
            dispatch=dispatch,
            budget=budget,
            pace=Pace(timedelta(seconds=settings.poll_after)),
        )
        comparing = reconciliation(settings, database=database, stp=stp, budget=budget, known=known, book=book)
        again_after = timedelta(seconds=settings.reconcile_again_after)
        yield Work(
            workers=[
                worker,
                DecisionWorker(orders),
                ReturnsWorker(orders=orders, dispatch=dispatch, profiles=known),
                DepositWorker(store),
                ReconciliationWorker(comparing, ReconciliationStore(database), again_after),
            ],
            loops=[
                partial(repeat, "callbacks", callbacks.sweep, settings.sweep_every),
                partial(repeat, "deposits", deposits.sweep, settings.sweep_every),
                partial(repeat, "open orders", poller.poll, settings.poll_every),
            ],
            probes={"database": database.ping},
        )


@asynccontextmanager
async def open_callbacks(engine: Engine) -> AsyncIterator[Service]:
    """Where STP posts what became of orders."""
    settings, database_settings = read(StpCallbackSettings), read(DatabaseSettings)
    async with open_statements(database_settings.url, database_settings.pool_size) as database:
        orders = OrderStore(database)
        callbacks = Callbacks(orders, engine)
        deposits = Deposits(DepositStore(database), orders, callbacks, engine, tenant=_tenant(settings.tenant_id))
        app = build_callbacks_app(settings, callbacks, deposits)
        add_probes(app, {"database": database.ping})
        yield Service(app, loops=[callbacks.mark_for_ever])


def _tenant(name: str | None) -> TenantId | None:
    return TenantId(name) if name else None


@asynccontextmanager
async def open_simulator(_: Engine) -> AsyncIterator[Service]:
    """A pretend STP over real HTTP, for demonstrations and tests. It refuses to stand beside the real one."""
    real = urlsplit(os.environ.get("PAYHUB_STP_BASE_URL", "")).hostname or ""
    if real == _REAL_STP or real.endswith(f".{_REAL_STP}"):
        raise SettingsError(f"PAYHUB_STP_BASE_URL: names {real}; the simulator does not run where the real STP is used")
    async with Simulator.open(read(StpSimulatorSettings)) as simulator:
        yield Service(build_simulator_app(simulator))


CONNECTOR: Final = Connector(
    name="stp",
    worker_classes=(StpWorker, DecisionWorker, ReturnsWorker, DepositWorker, ReconciliationWorker),
    open_work=open_work,
    services={"stp-callbacks": open_callbacks, "stp-simulator": open_simulator},
    messages=(OrderStatusChanged, OrderReturnedLate, DepositArrived),
    migrations="connectors.stp.migrations",
)
