"""Where the book is."""

from __future__ import annotations

from pydantic import Field

from hub.settings import Settings, prefixed


class LedgerSettings(Settings):
    """`PAYHUB_LEDGER_*`."""

    model_config = prefixed("PAYHUB_LEDGER_")

    database_url: str = Field(repr=False)
    """SQLAlchemy form: `postgresql+psycopg://user:password@host:port/payhub`."""

    pool_size: int = Field(default=8, ge=1, le=100)
    """Connections per process."""

    expire_every_seconds: float = Field(default=5.0, gt=0)
    """How often holds whose time has run out are freed. A late capture is refused before that, too."""
