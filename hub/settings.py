"""Settings: one frozen class per component, read from `PAYHUB_<COMPONENT>_<NAME>`, checked before anything is opened.

Secrets are `SecretStr` or files and never print. Nobody reads the environment at import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(Exception):
    """A setting is missing or wrong; the text names the environment variable and what it should hold."""


class Settings(BaseSettings):
    """Base of each component's settings. Subclasses set `model_config = prefixed("PAYHUB_STP_")`."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)


def prefixed(prefix: str) -> SettingsConfigDict:
    """The configuration of a settings class whose variables begin with `prefix`."""
    return SettingsConfigDict(env_prefix=prefix, frozen=True, extra="ignore", env_ignore_empty=True)


S = TypeVar("S", bound=Settings)


def read(settings: type[S], **given: Any) -> S:
    """Read a settings class from the environment. Raises `SettingsError`: a sentence per missing or wrong variable."""
    try:
        return settings(**given)
    except ValidationError as error:
        prefix = settings.model_config.get("env_prefix", "")
        problems = [
            f"{prefix}{'_'.join(str(part) for part in problem['loc']).upper()}: "
            f"{'is not set' if problem['type'] == 'missing' else problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("; ".join(problems)) from None


class EngineSettings(Settings):
    """Where the engine is."""

    model_config = prefixed("PAYHUB_ZEEBE_")

    address: str = "127.0.0.1:26500"
    """Host and port of the Zeebe gateway."""


class DatabaseSettings(Settings):
    """Where the PostgreSQL of connectors that keep tables is (payments accepted, orders sent, callbacks received)."""

    model_config = prefixed("PAYHUB_DATABASE_")

    url: str
    """SQLAlchemy form: `postgresql+psycopg://user:password@host:port/payhub`."""

    pool_size: int = 8


class KafkaSettings(Settings):
    """Where Kafka is."""

    model_config = prefixed("PAYHUB_KAFKA_")

    bootstrap_servers: str | None = None
    """`host:port`, or several with commas between them; unset: there is none."""


class TokenSettings(Settings):
    """Whose tokens we believe."""

    model_config = prefixed("PAYHUB_TOKEN_")

    issuer: str = "payhub-local"
    """The `iss` claim of a valid token."""

    audience: str = "payhub"
    """The `aud` claim of a valid token."""

    jwks_url: str | None = None
    """Where the issuer publishes its keys."""

    jwks_file: Path | None = None
    """The same from a file; one of the two is needed."""
