"""Settings of the operations application."""

from __future__ import annotations

from typing import Final

from pydantic import Field, SecretStr

from hub.settings import Settings, prefixed

APP_ROLE: Final = "payhub_operations_app"
"""The role that the operations application works as: it appends to the log and can change nothing in it."""


class OperationsSettings(Settings):
    """What operators may see and do."""

    model_config = prefixed("PAYHUB_OPERATIONS_")

    cursor_secret: SecretStr = Field(min_length=16)
    """Signs the cursors of lists; the same for every instance of the operations API."""

    parts: dict[str, str] = Field(default_factory=dict)
    """The other processes of the hub and the base addresses of their health pages, as a JSON object:
    `{"serve-channel": "http://127.0.0.1:8100"}`."""

    callback_topic: str = "payhub-callbacks"
    """The Kafka topic that callbacks are told to, for the audit view; made when it is missing."""

    role: str | None = Field(default=None, pattern="^[a-z_][a-z0-9_]*$")
    """The database role to work as, when the user of the address is more than that: `payhub_operations_app` appends to
    the operator log and cannot change it, and reads what the connectors wrote."""

    action_expires_after: float = Field(default=14_400.0, gt=0)
    """Seconds in which an action has to be approved."""

    action_confirm_within: float = Field(default=60.0, gt=0)
    """Seconds in which the engine's records have to show that an action was carried out; then it counts as failed."""

    action_linked_within: float = Field(default=172_800.0, gt=0)
    """Seconds in which a payment that gives money back has to settle."""

    action_recall_within: float = Field(default=2_592_000.0, gt=0)
    """Seconds for which a recall over a rail waits for the money or for an answer."""

    action_look_for_money_every: float = Field(default=3600.0, gt=0)
    """Seconds between looks whether recalled money came back."""

    action_publish_every: float = Field(default=0.3, gt=0)
    """Seconds between looks for requests and decisions that the engine was not given yet."""

    bulk_every: float = Field(default=0.2, gt=0)
    """Seconds between looks for items of bulk operations that may begin."""


class OperatorLogSettings(Settings):
    """Where the operator log is told to, and what proves it."""

    model_config = prefixed("PAYHUB_OPERATIONS_LOG_")

    topic: str = "payhub-operator-acts"
    """The Kafka topic that the operator log is told to; made to be kept for ever when it is missing."""

    mirror_every: float = Field(default=0.5, gt=0)
    """Seconds between looks for acts to tell; nothing is told unless `PAYHUB_KAFKA_BOOTSTRAP_SERVERS` is set."""

    checkpoint_every: float = Field(default=3600.0, gt=0)
    """Seconds between checkpoints: rows of the operator log that say how it stands."""

    secret: SecretStr | None = None
    """Signs the checkpoints. Keep it from whoever administers the database."""
