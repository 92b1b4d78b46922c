"""Telling Kafka what was booked, in the order in which it was committed, each transaction at least once.

Identity order is not commit order: a number that was drawn early may be committed late, and whoever remembers only the
highest one it told would never tell that one. So the whole set of numbers told is remembered, as ranges. What has
become visible since the last look is told by number; customers' accounts are locked before numbers are drawn, so of two
bookings of one customer the earlier has the lower one.

The set is kept after Kafka acknowledged: dying in between tells the same transactions again, with the same outbox ids.
Kafka being away delays and loses nothing, and no booking waits for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError
from prometheus_client import Counter
from psycopg import AsyncConnection

from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.money import Money
from hub.statements import Statements
from hub.telemetry import logger
from ledger.chain import ranged

CONSUMER: Final = "kafka"
BATCH: Final = 500
"""Transactions told per round at most."""

_ONE_RELAY: Final = 7204
_ACKNOWLEDGED_WITHIN: Final = 30.0  # seconds
_LONGEST_PAUSE: Final = 30.0  # seconds

_CURSOR: Final = "INSERT INTO ledger.outbox_cursor (consumer) VALUES (%(consumer)s) ON CONFLICT (consumer) DO NOTHING"
_SENT: Final = "SELECT sent FROM ledger.outbox_cursor WHERE consumer = %(consumer)s"
# First what became visible in the gaps, then what is new. A payload that is NULL is the transaction itself.
_WAITING: Final = (
    "WITH waiting AS ("
    "SELECT o.* FROM unnest(int8multirange(int8range(1, coalesce(upper(%(sent)s::int8multirange), 1))) "
    "- %(sent)s::int8multirange) g CROSS JOIN LATERAL (SELECT * FROM ledger.outbox o "
    "WHERE o.id >= lower(g) AND o.id < upper(g) ORDER BY o.id LIMIT %(limit)s) o "
    "UNION ALL (SELECT o.* FROM ledger.outbox o WHERE o.id >= coalesce(upper(%(sent)s::int8multirange), 1) "
    "ORDER BY o.id LIMIT %(limit)s) ORDER BY 1 LIMIT %(limit)s) "
    "SELECT w.id, w.topic, w.key, k.code, t.id, t.idem_key, t.kind, t.ext_ref, t.reason_code, t.booked_at, "
    "t.effective_at, t.reverses_id, t.hold_id, w.payload, "
    "coalesce((SELECT jsonb_agg(jsonb_build_object('leg', p.leg, "
    "'debit', d.kind || CASE d.owner_id WHEN '' THEN '' ELSE ':' || d.owner_id END, "
    "'credit', c.kind || CASE c.owner_id WHEN '' THEN '' ELSE ':' || c.owner_id END, "
    "'currency', split_part(p.asset, '/', 1), 'minor', p.amount, 'debit_sequence', p.dr_seq, "
    "'credit_sequence', p.cr_seq) ORDER BY p.leg) FROM ledger.posting p "
    "JOIN ledger.account d ON d.id = p.dr_account JOIN ledger.account c ON c.id = p.cr_account "
    "WHERE p.txn_id = t.id), '[]'), "
    "(SELECT jsonb_build_object('account', a.kind || CASE a.owner_id WHEN '' THEN '' ELSE ':' || a.owner_id END, "
    "'currency', split_part(h.asset, '/', 1), 'minor', h.amount, 'fee_minor', h.fee) "
    "FROM ledger.hold h JOIN ledger.account a ON a.id = h.from_account WHERE h.id = t.id) "
    "FROM waiting w JOIN ledger.txn t ON t.id = w.txn_id JOIN ledger.book k ON k.id = t.book_id ORDER BY w.id"
)
_ADVANCE: Final = "UPDATE ledger.outbox_cursor SET sent = sent + %(sent)s WHERE consumer = %(consumer)s"
_WITH_ALL_UP_TO: Final = "SELECT %(done)s::int8multirange + int8multirange(int8range(1, %(newest)s, '[]'))"
# A number of our own: whatever runs has a lower one, and draws no outbox number below those that are visible.
_MARK: Final = "SELECT pg_current_xact_id()::text, coalesce((SELECT max(id) FROM ledger.outbox), 0)"
_PASSED: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > %(mark)s::xid8"

_acknowledged = Counter("payhub_ledger_told_transactions", "Transactions that Kafka acknowledged, repeats included.")

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """One transaction on its way to Kafka. `key` is the payment id, or the operation id of what is no payment's."""

    outbox_id: int
    topic: str
    """What happened, as in `ledger.capture`; a header, since all go to one Kafka topic."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class _Mark:
    """Once everything that ran before `transaction` has ended, no outbox number up to `newest` can still appear."""

    transaction: str
    newest: int


Publish = Callable[[Sequence[Told]], Awaitable[None]]
"""Returns once all were acknowledged in this order. Raises when that is not certain."""


class Relay:
    """Tells what was committed and not told yet. Any number of them may run; one at a time does something."""

    def __init__(
        self, statements: Statements, publish: Publish, *, consumer: str = CONSUMER, batch: int = BATCH
    ) -> None:
        self._statements = statements
        self._publish = publish
        self._consumer, self._batch = consumer, batch
        self._mark: _Mark | None = None

    async def tell(self) -> int:
        """Tell one batch and say how many there were. Raises `Unavailable`, and what `publish` raises."""
        mark, self._mark = self._mark, None  # forgotten when this fails: the database may come back as it was before
        async with self._statements.connection() as connection:
            if not await _one(connection, "SELECT pg_try_advisory_lock(%(lock)s)", lock=_ONE_RELAY):
                return 0
            try:
                told, self._mark = await self._tell(connection, mark)
                return told
            finally:
                if not connection.closed:
                    await _one(connection, "SELECT pg_advisory_unlock(%(lock)s)", lock=_ONE_RELAY)

    async def _tell(self, connection: AsyncConnection[Any], mark: _Mark | None) -> tuple[int, _Mark | None]:
        await connection.execute(_CURSOR, {"consumer": self._consumer})
        passed = mark is not None and await _one(connection, _PASSED, mark=mark.transaction)
        sent = await _one(connection, _SENT, consumer=self._consumer)
        cursor = await connection.execute(_WAITING, {"sent": sent, "limit": self._batch})
        waiting = [_told(row) for row in await cursor.fetchall()]
        if waiting:
            await self._publish(waiting)
            _acknowledged.inc(len(waiting))
            failpoint("ledger.relay.after-acknowledgement")
        done = ranged(one.outbox_id for one in waiting)
        whole = len(waiting) < self._batch
        has_gaps = bool(waiting) or len(sent) > 1
        if mark is not None and passed and whole:
            # Everything up to the mark has been committed and told, or never will be: nobody looks there again.
            done = await _one(connection, _WITH_ALL_UP_TO, done=done, newest=mark.newest)
            mark = None
        if done and has_gaps:
            await connection.execute(_ADVANCE, {"sent": done, "consumer": self._consumer})
        if whole and mark is None and has_gaps:
            ((transaction, newest),) = await (await connection.execute(_MARK)).fetchall()
            mark = _Mark(transaction, newest)
        return len(waiting), mark


def _told(row: Sequence[Any]) -> Told:
    (outbox_id, topic, key, book, transaction, operation, kind, reference, reason, booked_at, effective_at) = row[:11]
    reverses, hold_id, payload, postings, hold = row[11:]
    for one in [*postings, *([hold] if hold else [])]:
        one["amount"] = Money(one.pop("minor"), one["currency"]).decimal()
    value = {
        "outbox_id": str(outbox_id),
        "tenant": book,
        "transaction": str(transaction),
        "operation": operation,
        "kind": kind,
        "reference": reference,
        "reason": reason,
        "booked_at": booked_at.isoformat(),
        "effective_at": effective_at.isoformat(),
        "reverses": None if reverses is None else str(reverses),
        "hold_of": None if hold_id is None else str(hold_id),
        "postings": postings,
        "hold": hold,
    }
    if hold is not None:
        hold["fee"] = Money(hold.pop("fee_minor"), hold["currency"]).decimal()
    if payload is not None:
        value["payload"] = payload
    return Told(outbox_id, topic, key, json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


async def _one(connection: AsyncConnection[Any], statement: Any, **values: Any) -> Any:
    row = await (await connection.execute(statement, values)).fetchone()
    return None if row is None else row[0]


# --- Kafka --------------------------------------------------------------------------------------------------------


class NotAcknowledged(Exception):
    """Kafka is away or did not take everything; what was not acknowledged is sent again."""


class KafkaTopic:
    """One Kafka topic of one partition. It is connected to on first use and again after each failure."""

    def __init__(self, bootstrap_servers: str, topic: str, configs: Mapping[str, str] | None = None) -> None:
        """`configs`: how the topic is made when it is missing, as in `{"retention.ms": "-1"}`."""
        self._servers, self._topic, self._configs = bootstrap_servers.split(","), topic, dict(configs or {})
        self._producer: KafkaProducer | None = None

    async def publish(self, waiting: Sequence[Told]) -> None:
        """Send and wait for every acknowledgement. Raises `NotAcknowledged`."""
        try:
            await asyncio.to_thread(self._publish, waiting)
        except (KafkaError, OSError) as error:
            await self.close()
            raise NotAcknowledged(type(error).__name__) from error

    def _publish(self, waiting: Sequence[Told]) -> None:
        producer = self._producer or self._connect()
        sent = [
            producer.send(
                self._topic,
                key=one.key.encode(),
                value=one.value,
                headers=[("outbox-id", str(one.outbox_id).encode()), ("event", one.topic.encode())],
            )
            for one in waiting
        ]
        producer.flush(timeout=_ACKNOWLEDGED_WITHIN)
        for each in sent:
            each.get(timeout=_ACKNOWLEDGED_WITHIN)

    def _connect(self) -> KafkaProducer:
        administration = KafkaAdminClient(
            bootstrap_servers=self._servers, request_timeout_ms=10_000, bootstrap_timeout_ms=5_000
        )
        try:
            if self._topic not in administration.list_topics():
                made: dict[str, Any] = {"num_partitions": 1, "replication_factor": -1, "configs": self._configs}
                administration.create_topics({self._topic: made})
        except TopicAlreadyExistsError:
            pass
        finally:
            administration.close()
        # One request under way at a time, and each told apart by the broker: order survives the client's own retries.
        self._producer = KafkaProducer(
            bootstrap_servers=self._servers,
            client_id="payhub-ledger",
            bootstrap_timeout_ms=5_000,
            acks="all",
            enable_idempotence=True,
            max_in_flight_requests_per_connection=1,
            linger_ms=5,
            max_block_ms=10_000,
            delivery_timeout_ms=int(_ACKNOWLEDGED_WITHIN * 1000),
            request_timeout_ms=10_000,
        )
        return self._producer

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await asyncio.to_thread(producer.close, timeout=2)


class Telling(Protocol):
    """A relay: this one, or another that tells in batches."""

    async def tell(self) -> int:
        """Tell one batch and say how many there were. Raises `Unavailable`, `NotAcknowledged`."""
        ...


async def tell_for_ever(relay: Telling, every: float) -> None:
    """Tell what waits, at once again as long as there is more, else after `every` seconds; less and less often, down to
    twice a minute, while that fails."""
    pause = every
    while True:
        try:
            while await relay.tell():
                pass
            pause = every
        except (Unavailable, NotAcknowledged) as error:
            pause = max(every, min(pause * 2, _LONGEST_PAUSE))
            log.warning("outbox.later", cause=str(error), pause=pause)
        await asyncio.sleep(pause)
