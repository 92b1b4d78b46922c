"""Settings of the exporters, and where Kafka and Elasticsearch are."""

from __future__ import annotations

from pydantic import Field, SecretStr

from hub.settings import Settings, prefixed


class KafkaSettings(Settings):
    """Where the engine's records are."""

    model_config = prefixed("PAYHUB_KAFKA_")

    bootstrap_servers: str = "127.0.0.1:9092"
    """Hosts and ports, with commas between."""


class ElasticsearchSettings(Settings):
    """Where the views are kept."""

    model_config = prefixed("PAYHUB_ELASTICSEARCH_")

    url: str = "http://127.0.0.1:9200"
    """Base URL; may hold user and password."""


class ExportSettings(Settings):
    """How records become views."""

    model_config = prefixed("PAYHUB_EXPORT_")

    topic: str = "zeebe"
    """The Kafka topic of the engine's records: one, so that their order is total in each partition."""

    operator_topic: str = "payhub-operator-acts"
    """The Kafka topic of the operator log; made when it is missing."""

    callback_topic: str = "payhub-callbacks"
    """The Kafka topic of callbacks, those that came and those that went; made when it is missing."""

    dead_letter_topic: str = "payhub-dead-letters"
    """Where things go that can never be indexed; made when it is missing."""

    index_prefix: str = "payhub"
    """First word of every alias and index; also of the consumer groups."""

    search_secret: SecretStr | None = None
    """With it, transfers carry a digest by which a party is found by its whole identifier; one for all."""

    batch_records: int = Field(default=1000, ge=1, le=10_000)
    """Most records taken from Kafka at once."""

    batch_bytes: int = Field(default=4_000_000, ge=10_000)
    """Most bytes sent to Elasticsearch at once."""

    documents_in_memory: int = Field(default=5_000, ge=100)
    """Documents kept per Kafka partition so that they need not be read back."""
