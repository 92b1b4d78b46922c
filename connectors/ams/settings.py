"""Which account system a hub works with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from hub.settings import Settings, prefixed


class AmsSettings(Settings):
    """`PAYHUB_AMS_*`. Where our own ledger is says `PAYHUB_LEDGER_DATABASE_URL`."""

    model_config = prefixed("PAYHUB_AMS_")

    backend: Literal["ledger", "fineract"] = "ledger"
    """`ledger`: the hub's own book; `fineract`: Apache Fineract over its interoperation API."""


class FineractSettings(Settings):
    """Where Fineract is and who we are there; read when it is the backend."""

    model_config = prefixed("PAYHUB_AMS_FINERACT_")

    base_url: str
    """Up to the version, as in `https://bank.example/fineract-provider/api/v1`."""

    user: str
    """Of basic authentication; it needs the permissions of the interoperation API."""

    password: SecretStr
    """Its password."""

    tenants: dict[str, str] | None = None
    """Our tenants and what Fineract calls them, `{"acme": "default"}`; unset: the same. Others have no accounts."""

    ca_file: Path | None = None
    """PEM of the authority that signed Fineract's certificate; unset: those the system trusts."""

    connect_timeout: float = Field(default=3, gt=0, le=10)
    """Seconds to connect."""

    read_timeout: float = Field(default=8, gt=0, le=20)
    """Seconds for a whole answer; after them nobody knows what Fineract did, and it is looked up."""

    connections: int = Field(default=16, ge=1)
    """Connections at once."""

    @field_validator("base_url")
    @classmethod
    def _without_a_slash(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")


class FineractSimulatorSettings(Settings):
    """The pretend Fineract: `payhub serve fineract-simulator`. Never for production."""

    model_config = prefixed("PAYHUB_AMS_FINERACT_SIMULATOR_")

    user: str = "mifos"
    """The one user it knows."""

    password: SecretStr = SecretStr("password")
    """Fineract's own default."""

    seed_file: Path | None = None
    """Tenants and accounts in the form of the seed file (docs/seed.md); more come over the control API."""
