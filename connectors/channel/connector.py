"""How the channel is put together, top to bottom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from connectors.channel.api import build_channel_app
from connectors.channel.callbacks import open_callbacks
from connectors.channel.model import PaymentAccepted
from connectors.channel.relay import Relay
from connectors.channel.settings import ChannelSettings
from connectors.channel.stand_in import open_stand_in
from connectors.channel.store import LOCK_TIMEOUT, ChannelStore
from connectors.channel.worker import ChannelWorker
from hub.connector import Connector, Service, Work
from hub.messages import Engine
from hub.settings import DatabaseSettings, TokenSettings, read
from hub.statements import Statements, open_statements
from hub.tokens import TokenVerifier


def _database(settings: DatabaseSettings) -> AbstractAsyncContextManager[Statements]:
    return open_statements(settings.url, settings.pool_size, lock_timeout=LOCK_TIMEOUT)


@asynccontextmanager
async def open_api(engine: Engine) -> AsyncIterator[Service]:
    """Takes payments in and hands them to the engine."""
    settings = read(ChannelSettings)
    verifier = TokenVerifier(read(TokenSettings))
    async with _database(read(DatabaseSettings)) as database:
        store = ChannelStore(database)
        relay = Relay(store, engine, settings)
        async with open_stand_in(database, settings) as stand_in:
            app = build_channel_app(store, relay, verifier, {"database": database.ping}, stand_in=stand_in)
            yield Service(app, loops=[relay.run, stand_in.run])


@asynccontextmanager
async def open_work(engine: Engine) -> AsyncIterator[Work]:
    """The two jobs, the callbacks, and a relay for what processes that died had in hand."""
    settings = read(ChannelSettings)
    async with _database(read(DatabaseSettings)) as database:
        store = ChannelStore(database)
        async with open_callbacks(store, settings) as callbacks:
            yield Work(
                workers=[ChannelWorker(store, callbacks.look)],
                loops=[callbacks.run, Relay(store, engine, settings).run],
                probes={"database": database.ping},
            )


CONNECTOR: Final = Connector(
    name="channel",
    worker_classes=(ChannelWorker,),
    open_work=open_work,
    services={"channel": open_api},
    messages=(PaymentAccepted,),
    migrations="connectors.channel.migrations",
)
