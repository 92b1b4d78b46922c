"""Settings of the operations application."""

from __future__ import annotations

from pydantic import Field

from hub.settings import Settings, prefixed


class OperationsSettings(Settings):
    """What operators may see and do."""

    model_config = prefixed("PAYHUB_OPERATIONS_")

    index_prefix: str = Field("payhub", pattern="^[a-z][a-z0-9-]*$")
    """First word of the aliases in Elasticsearch, as the exporters have it."""
