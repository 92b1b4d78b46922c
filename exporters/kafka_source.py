"""The engine's records as Kafka keeps them, and the topic for what can never be indexed.

Consumers read committed messages only, since the engine's exporter writes in transactions. With each committed offset
goes the sifter's state behind it, so that a restart knows what was seen.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

from exporters.pipeline import DeadLetter
from exporters.sift import RawMessage

_LONGEST_PAUSE: Final = 2_000
"""Milliseconds between two tries to reach Kafka."""

_LARGEST_LETTER: Final = 900_000
_LARGEST_KEY: Final = 10_000
"""Bytes. With headers and an envelope that is less than the 1 MiB of a message that Kafka and its client begin with."""

__all__ = ["Batch", "DeadLetters", "KafkaError", "KafkaSource", "TopicPartition"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one Kafka partition, in order."""

    partition: TopicPartition
    messages: Sequence[RawMessage]
    next_offset: int
    left: int
    """Messages behind these that Kafka already has, as far as is known."""
    since: float
    """When Kafka got the first of them, seconds since 1970."""


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # the client publishes no types
    def __init__(self, lost: Callable[[set[TopicPartition]], None]) -> None:
        self._lost = lost

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._lost(set(revoked))

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        pass


class KafkaSource:
    """A consumer of some topics for one group. Every method raises `KafkaError` when Kafka cannot do it now."""

    def __init__(self, servers: str, topics: Sequence[str], group: str, most_records: int) -> None:
        self._topics: Final = topics
        self._most = most_records
        self._consumer = KafkaConsumer(
            bootstrap_servers=servers.split(","),
            group_id=group,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            max_poll_records=most_records,
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=2 * 2**20,
            # A topic that was made after we asked for it is noticed within this time.
            metadata_max_age_ms=30_000,
            # A Kafka that was away for long is found within this time of its return, and not within half a minute.
            reconnect_backoff_max_ms=_LONGEST_PAUSE,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
        )

    def share(self, lost: Callable[[set[TopicPartition]], None]) -> None:
        """Take the partitions that the group gives us; `lost` is told, inside of `poll`, which it takes away."""
        self._consumer.subscribe(list(self._topics), listener=_Listener(lost))

    def take_all(self) -> None:
        """Take every partition, without sharing."""
        self._consumer.assign(
            [
                TopicPartition(topic, number)
                for topic in self._topics
                for number in sorted(self._consumer.partitions_for_topic(topic) or ())
            ]
        )

    def ends(self) -> dict[TopicPartition, int]:
        """Where each of our partitions ends now. Asks Kafka, which polling does not tell from a Kafka that is away."""
        ours = list(self._consumer.assignment())
        found: dict[TopicPartition, int] = self._consumer.end_offsets(ours, timeout_ms=3_000)
        return found

    def left(self, partition: TopicPartition) -> int:
        """Messages that Kafka has and did not give us yet, those of unfinished transactions included."""
        reached: int = self._consumer.position(partition, timeout_ms=1000)
        return max(0, (self._consumer.highwater(partition) or reached) - reached)

    def position(self, partition: TopicPartition) -> int:
        offset: int = self._consumer.position(partition)
        return offset

    def poll(self, milliseconds: int) -> list[Batch]:
        """What is there, or nothing after that time."""
        polled = self._consumer.poll(timeout_ms=milliseconds, max_records=self._most)
        batches = []
        for partition, messages in polled.items():
            after = messages[-1].offset + 1
            left = max(0, (self._consumer.highwater(partition) or after) - after)
            raw = [(message.key, message.value) for message in messages]
            batches.append(Batch(partition, raw, after, left, messages[0].timestamp / 1000))
        return batches

    def keep_alive(self) -> None:
        """Stay in the group without taking anything."""
        assigned = self._consumer.assignment()
        self._consumer.pause(*assigned)
        try:
            if self._consumer.poll(timeout_ms=0):
                # Of a partition that came to us this moment. They must not be passed over.
                raise KafkaError("messages came while none were wanted")
        finally:
            self._consumer.resume(*(assigned & self._consumer.assignment()))

    def committed(self, partition: TopicPartition) -> Mapping[str, Sequence[int]]:
        """The sifter's state at the committed offset; empty when nothing was committed."""
        return self._committed(partition)[1]

    def begin(self, partition: TopicPartition) -> Mapping[str, Sequence[int]]:
        """Go back to the committed offset; the sifter's state there."""
        offset, state = self._committed(partition)
        if offset is None:
            self._consumer.seek_to_beginning(partition)
        else:
            self._consumer.seek(partition, offset)
        return state

    def _committed(self, partition: TopicPartition) -> tuple[int | None, Mapping[str, Sequence[int]]]:
        found = self._consumer.committed(partition, metadata=True)
        if found is None or found.offset < 0 or not found.metadata:
            return None, {}
        state: dict[str, list[int]] = json.loads(found.metadata)
        return found.offset, state

    def commit(self, reached: Mapping[TopicPartition, tuple[int, Mapping[str, Sequence[int]]]]) -> None:
        """Commit the next offset of each partition together with the sifter's state before it."""
        self._consumer.commit(
            {
                partition: OffsetAndMetadata(offset, json.dumps(state, separators=(",", ":")), -1)
                for partition, (offset, state) in reached.items()
            }
        )

    def close(self) -> None:
        with contextlib.suppress(KafkaError):
            self._consumer.close(autocommit=False)


def make_topics(servers: str, topics: Sequence[str]) -> set[str]:
    """Make those of the topics that are missing, each with one partition. What is told there is kept for ever.

    The names of all topics that were there before.
    """
    admin = KafkaAdminClient(
        bootstrap_servers=servers.split(","), request_timeout_ms=10_000, reconnect_backoff_max_ms=_LONGEST_PAUSE
    )
    try:
        there = set(admin.list_topics())
        for topic in (topic for topic in topics if topic not in there):
            made = {"num_partitions": 1, "replication_factor": -1, "configs": {"retention.ms": "-1"}}
            with contextlib.suppress(TopicAlreadyExistsError):
                admin.create_topics({topic: made})
    finally:
        admin.close()
    return there


class DeadLetters:
    """The topic for what can never be indexed: each message whole, with the view and the reason as headers.

    What is larger than a broker takes unless told otherwise is cut, and a header says how long it was.
    """

    def __init__(self, servers: str, topic: str, view: str) -> None:
        self._servers = servers.split(",")
        self._topic = topic
        self._view = view
        self._producer: KafkaProducer | None = None

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when Kafka has them; raises what it answered to the first that it has not."""
        if self._producer is None:
            self._producer = KafkaProducer(bootstrap_servers=self._servers, acks="all", allow_auto_create_topics=False)
        sent = [self._send(self._producer, letter) for letter in letters]
        self._producer.flush(timeout=10)
        for future in sent:
            future.get(timeout=0)  # flushing waits and is silent about what was refused

    def _send(self, producer: KafkaProducer, letter: DeadLetter) -> Any:
        headers = [("view", self._view.encode()), ("reason", letter.reason.encode())]
        size = len(letter.content)
        if size > _LARGEST_LETTER:
            headers.append(("cut-from", str(size).encode()))
        return producer.send(
            self._topic, value=letter.content[:_LARGEST_LETTER], key=letter.key[:_LARGEST_KEY], headers=headers
        )

    def close(self) -> None:
        if self._producer is not None:
            with contextlib.suppress(KafkaError):
                self._producer.close(timeout=2)
