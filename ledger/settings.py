"""Where the book is."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from hub.settings import Settings, prefixed

APP_ROLE: Final = "payhub_ledger_app"
"""The role that reads, appends, and updates balances; it owns nothing and can change nothing that was written."""


class LedgerSettings(Settings):
    """`PAYHUB_LEDGER_*`."""

    model_config = prefixed("PAYHUB_LEDGER_")

    database_url: str = Field(repr=False)
    """SQLAlchemy form: `postgresql+psycopg://user:password@host:port/payhub`."""

    role: str | None = Field(default=None, pattern="^[a-z_][a-z0-9_]*$")
    """The database role to work as, when the user of the address is more than that: `payhub_ledger_app` may append and
    not change. Unset when the user is that role's member and nothing more."""

    pool_size: int = Field(default=8, ge=1, le=100)
    """Connections per process."""

    expire_every_seconds: float = Field(default=5.0, gt=0)
    """How often holds whose time has run out are freed. A late capture is refused before that, too."""

    seal_every_seconds: float = Field(default=10.0, gt=0)
    """How often what was booked is sealed into the chain of hashes."""

    snapshot_every_seconds: float = Field(default=10.0, gt=0)
    """How often it is looked whether balances are to be kept for questions about the past: once a day for every
    account, more often for the book's own."""

    outbox_topic: str = "ledger"
    """The Kafka topic that is told of every transaction; made with one partition when it is missing."""

    outbox_every_seconds: float = Field(default=1.0, gt=0)
    """How often it is looked for transactions to tell; nothing is, unless `PAYHUB_KAFKA_BOOTSTRAP_SERVERS` is set."""
