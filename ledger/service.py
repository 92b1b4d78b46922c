"""Opening the book: for those who write in it, and as the HTTP service that answers questions about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from hub.connector import Service
from hub.messages import Engine
from hub.repetition import repeat
from hub.settings import KafkaSettings, TokenSettings, read
from hub.statements import Statements, open_statements
from hub.tokens import TokenVerifier
from ledger.api import ledger_app
from ledger.book import Ledger
from ledger.chain import Sealer
from ledger.settings import LedgerSettings
from ledger.snapshots import take_due

Loop = Callable[[], Awaitable[None]]


async def free_expired_holds(ledger: Ledger, every: float) -> None:
    """Free holds whose time has run out, every `every` seconds, for ever."""
    await repeat("holds", ledger.expire_holds, every)


@asynccontextmanager
async def open_ledger_service(_: Engine) -> AsyncIterator[Service]:
    """What `payhub serve ledger` runs: the read API, and the loops that free holds whose time has run out, seal what
    was booked, keep balances for later, and tell Kafka where there is one."""
    settings, kafka = read(LedgerSettings), read(KafkaSettings)
    verifier = TokenVerifier(read(TokenSettings))
    async with (
        open_statements(settings.database_url, settings.pool_size, role=settings.role) as statements,
        # A connection each, so that no loop waits for a question or makes one wait.
        open_statements(settings.database_url, 4, role=settings.role) as background,
        _relayed(background, settings, kafka) as relaying,
    ):
        app = ledger_app(statements, verifier, {"database": statements.ping})
        loops: list[Loop] = [
            partial(free_expired_holds, Ledger(background), settings.expire_every_seconds),
            partial(repeat, "chain", Sealer(background).seal, settings.seal_every_seconds),
            partial(repeat, "snapshots", partial(take_due, background), settings.snapshot_every_seconds),
        ]
        yield Service(app, loops=[*loops, *relaying])


@asynccontextmanager
async def _relayed(statements: Statements, settings: LedgerSettings, kafka: KafkaSettings) -> AsyncIterator[list[Loop]]:
    """The loop that tells Kafka, when it is known where Kafka is."""
    if kafka.bootstrap_servers is None:
        yield []
        return
    # Here, since Kafka's client is large and not everybody has Kafka.
    from ledger.outbox import KafkaTopic, Relay, tell_for_ever  # noqa: PLC0415

    topic = KafkaTopic(kafka.bootstrap_servers, settings.outbox_topic)
    try:
        yield [partial(tell_for_ever, Relay(statements, topic.publish), settings.outbox_every_seconds)]
    finally:
        await topic.close()
