"""Telling Kafka what is in the operator log, so that a copy is kept where the database's owner has no hand.

Numbers are committed in their order and without gaps, so one number says how much was told. It is moved on after Kafka
acknowledged: dying in between tells the same rows again, with the same numbers and hashes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from psycopg import AsyncConnection

from hub.failpoint import failpoint
from hub.repetition import repeat
from hub.settings import KafkaSettings
from hub.statements import Statements
from ledger.outbox import KafkaTopic, Publish, Told, tell_for_ever
from operations_app.journal import Entry, Journal, entries_after
from operations_app.settings import OperatorLogSettings

BATCH: Final = 500
"""Rows told per round at most."""

KEPT_FOR_EVER: Final = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
"""The topic is evidence: Kafka throws nothing of it away."""

_CONSUMER: Final = "kafka"
_LOCK: Final = "SELECT pg_try_advisory_lock(7207)"
_UNLOCK: Final = "SELECT pg_advisory_unlock(7207)"
_BEGIN: Final = "INSERT INTO operations.act_cursor (consumer) VALUES (%(consumer)s) ON CONFLICT DO NOTHING"
_TOLD: Final = "SELECT seq FROM operations.act_cursor WHERE consumer = %(consumer)s"
_ADVANCE: Final = "UPDATE operations.act_cursor SET seq = %(seq)s WHERE consumer = %(consumer)s AND seq < %(seq)s"

Loop = Callable[[], Awaitable[None]]


class Mirror:
    """Tells what was written and not told yet. Any number of them may run; one at a time does something."""

    def __init__(
        self, database: Statements, publish: Publish, *, consumer: str = _CONSUMER, batch: int = BATCH
    ) -> None:
        self._database, self._publish = database, publish
        self._consumer, self._batch = consumer, batch

    async def tell(self) -> int:
        """Tell one batch and say how many there were. Raises `Unavailable`, and what `publish` raises."""
        async with self._database.connection() as connection:
            if not await _one(connection, _LOCK):
                return 0
            try:
                return await self._tell(connection)
            finally:
                if not connection.closed:
                    await connection.execute(_UNLOCK)

    async def _tell(self, connection: AsyncConnection[Any]) -> int:
        await connection.execute(_BEGIN, {"consumer": self._consumer})
        told = await _one(connection, _TOLD, consumer=self._consumer)
        waiting = await entries_after(connection, told, self._batch)
        if not waiting:
            return 0
        await self._publish([_as_told(entry) for entry in waiting])
        failpoint("operations.mirror.after-acknowledgement")
        await connection.execute(_ADVANCE, {"consumer": self._consumer, "seq": waiting[-1].seq})
        return len(waiting)


def _as_told(entry: Entry) -> Told:
    value = json.dumps(entry.record(), separators=(",", ":"), ensure_ascii=False).encode()
    return Told(entry.seq, "operator.act", entry.payment_id or entry.target, value)


async def _one(connection: AsyncConnection[Any], statement: Any, **values: Any) -> Any:
    row = await (await connection.execute(statement, values)).fetchone()
    return None if row is None else row[0]


@asynccontextmanager
async def log_loops(
    journal: Journal, settings: OperatorLogSettings, kafka: KafkaSettings
) -> AsyncIterator[Sequence[Loop]]:
    """The loops beside the operations API: checkpoints, and the mirror where it is known where Kafka is."""
    secret = settings.secret.get_secret_value().encode() if settings.secret else None
    every = timedelta(seconds=settings.checkpoint_every)

    async def checkpoint() -> None:
        await journal.checkpoint(every, secret)

    loops: list[Loop] = [partial(repeat, "operator log", checkpoint, min(60.0, settings.checkpoint_every))]
    if kafka.bootstrap_servers is None:
        yield loops
        return
    topic = KafkaTopic(kafka.bootstrap_servers, settings.topic, KEPT_FOR_EVER)
    try:
        yield [*loops, partial(tell_for_ever, Mirror(journal.database, topic.publish), settings.mirror_every)]
    finally:
        await topic.close()


async def mirrored(servers: str, topic: str) -> dict[int, str] | None:
    """The hash of each row that Kafka has, by number; nothing when there is no such topic.

    Raises `KafkaError`, and `Contradiction` when two different rows were told under one number.
    """
    return await asyncio.to_thread(_mirrored, servers, topic)


class Contradiction(Exception):
    """Kafka was told two different rows under one number."""


def _mirrored(servers: str, topic: str) -> dict[int, str] | None:
    consumer = KafkaConsumer(
        bootstrap_servers=servers.split(","),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
    )
    try:
        if topic not in consumer.topics():
            return None
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        found: dict[int, str] = {}
        while consumer.position(partition) < end:
            for messages in consumer.poll(timeout_ms=1000).values():
                for message in messages:
                    told = json.loads(message.value)
                    if found.setdefault(told["seq"], told["hash"]) != told["hash"]:
                        raise Contradiction(f"two different rows were told to Kafka as row {told['seq']}")
        return found
    finally:
        consumer.close()
