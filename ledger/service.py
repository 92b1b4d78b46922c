"""Opening the book: for those who write in it, and as the HTTP service that answers questions about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from hub.connector import Service
from hub.errors import Unavailable
from hub.messages import Engine
from hub.settings import TokenSettings, read
from hub.statements import open_statements
from hub.telemetry import logger
from hub.tokens import TokenVerifier
from ledger.api import ledger_app
from ledger.book import Ledger
from ledger.queries import LedgerQueries
from ledger.settings import LedgerSettings

log = logger(__name__)


async def free_expired_holds(ledger: Ledger, every: float) -> None:
    """Free holds whose time has run out, every `every` seconds, for ever."""
    while True:
        try:
            while await ledger.expire_holds():
                pass
        except Unavailable as error:
            log.warning("holds.not-expired", cause=str(error))
        await asyncio.sleep(every)


@asynccontextmanager
async def open_ledger_service(_: Engine) -> AsyncIterator[Service]:
    """What `payhub serve ledger` runs: the read API, and the loop that frees holds whose time has run out."""
    settings = read(LedgerSettings)
    verifier = TokenVerifier(read(TokenSettings))
    async with open_statements(settings.database_url, settings.pool_size) as statements:
        app = ledger_app(LedgerQueries(statements), verifier, {"database": statements.ping})
        yield Service(app, loops=[partial(free_expired_holds, Ledger(statements), settings.expire_every_seconds)])
