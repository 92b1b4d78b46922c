"""Settings of the operations application."""

from __future__ import annotations

from pydantic import Field, SecretStr

from hub.settings import Settings, prefixed


class OperationsSettings(Settings):
    """What operators may see and do."""

    model_config = prefixed("PAYHUB_OPERATIONS_")

    cursor_secret: SecretStr = Field(min_length=16)
    """Signs the cursors of lists; the same for every instance of the operations API."""

    parts: dict[str, str] = Field(default_factory=dict)
    """The other processes of the hub and the base addresses of their health pages, as a JSON object:
    `{"serve-channel": "http://127.0.0.1:8100"}`."""

    role: str | None = Field(default=None, pattern="^[a-z_][a-z0-9_]*$")
    """The database role to work as, when the user of the address is more than that: `payhub_operations_app` appends to
    the operator log and cannot change it, and reads what the connectors wrote."""

    log_topic: str = "payhub-operator-acts"
    """The Kafka topic that the operator log is told to; made to be kept for ever when it is missing."""

    log_mirror_every: float = Field(default=0.5, gt=0)
    """Seconds between looks for acts to tell; nothing is told unless `PAYHUB_KAFKA_BOOTSTRAP_SERVERS` is set."""

    log_checkpoint_every: float = Field(default=3600.0, gt=0)
    """Seconds between checkpoints: rows of the operator log that say how it stands."""

    log_secret: SecretStr | None = None
    """Signs the checkpoints. Keep it from whoever administers the database."""
