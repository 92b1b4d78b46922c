"""The loop that keeps a view up to date: take from Kafka, fold, write, and only then commit.

While one batch is being written the next is folded. An offset is committed when Elasticsearch has every document of
its batch and Kafka every dead letter, so dying at any moment repeats work and loses none. Whatever goes wrong between
two batches ends the session; the next one begins at the committed offset with an empty memory.
"""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from elastic_transport import TransportError
from prometheus_client import Counter, Gauge

from exporters.documents import Documents
from exporters.elastic import ElasticReader, ElasticSink, Generation, Indexes, Patience, Stopped, ViewGone
from exporters.kafka_source import Batch, DeadLetters, KafkaError, KafkaSource, TopicPartition, make_topics
from exporters.pipeline import Folded, Pipeline
from exporters.record import Fate, Outcome, counted
from exporters.settings import ExportSettings
from exporters.views import View
from hub.elastic import ApiError, Elasticsearch
from hub.failpoint import failpoint
from hub.telemetry import logger

log = logger(__name__)

_records = Counter("payhub_export_records", "Messages taken from Kafka.", ("view", "fate"))
_documents = Counter("payhub_export_documents", "Documents sent to Elasticsearch.", ("view", "fate"))
_dead = Counter("payhub_export_dead_letters", "Messages and documents that can never be indexed.", ("view",))
_lag = Gauge(
    "payhub_export_lag_records", "Messages that Kafka has and the view has not.", ("view", "topic", "partition")
)
_behind = Gauge(
    "payhub_export_lag_seconds",
    "Age of the youngest record in the view while there are younger, or of the oldest that cannot be written.",
    ("view",),
)

_COMMIT_AFTER: Final = 0.5
"""Seconds for which offsets may stay uncommitted while there is more to take: dying repeats at most their records."""

_LOOK_AT_KAFKA: Final = 5.0
"""Seconds without messages after which Kafka is asked whether it is there at all."""

_LOOK_AT_ALIAS: Final = 2.0
"""Seconds between two looks at which generation the view's aliases point to."""


def look_for_less_garbage() -> None:
    """Documents in memory are many, live long and hold no circles: the usual looks cost a third of the fold's speed."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@dataclass(frozen=True)
class _Flight:
    """A batch that is being written."""

    batch: Batch
    folded: Folded
    pipeline: Pipeline
    written: Future[list[Outcome]]


class Session:
    """One consumer feeding one generation, from a committed offset until something goes wrong or it is done."""

    def __init__(
        self,
        *,
        source: KafkaSource,
        letters: DeadLetters,
        client: Elasticsearch,
        generation: Generation,
        settings: ExportSettings,
        patience: Patience,
    ) -> None:
        self._source = source
        self._letters = letters
        self._client = client
        self._generation = generation
        self._settings = settings
        self._patience = patience
        self._view: Final = generation.view
        self._sink = ElasticSink(client, generation, patience, settings.batch_bytes)
        self._pipelines: dict[TopicPartition, Pipeline] = {}
        self._flight: _Flight | None = None
        self._uncommitted: dict[TopicPartition, tuple[int, dict[str, list[int]]]] = {}
        self._commit_due = 0.0
        self._writer = ThreadPoolExecutor(1, "elasticsearch")
        self._latest = 0.0
        """The moment of the youngest record in the view, seconds since 1970; 0 before the first."""
        self.polled = 0.0
        """When Kafka was asked last, on the monotonic clock."""
        self._heard = time.monotonic()
        """When Kafka is known to have answered, on the same clock."""
        self.fates: dict[Fate, int] = dict.fromkeys(Fate, 0)

    def close(self) -> None:
        self._writer.shutdown(wait=True, cancel_futures=True)
        self._source.close()

    def stream(self, still_used: Indexes) -> None:
        """Share the topic with the other instances until told to stop. Raises what ends a session."""
        self._source.share(self._lost)
        look = time.monotonic() + _LOOK_AT_ALIAS
        while not self._patience.stop.is_set():
            self._step(100 if self._flight else 300)
            if time.monotonic() > look and not self._patience.waiting:
                look = time.monotonic() + _LOOK_AT_ALIAS
                current = still_used.current()
                if current is None or current.unique != self._generation.unique:
                    raise ViewGone
        self._land()
        self._commit()

    def replay(self) -> None:
        """Take everything that the topic holds now, alone."""
        self._source.take_all()
        ends = self._source.ends()
        while any(self._source.position(partition) < end for partition, end in ends.items()):
            if self._patience.stop.is_set():
                raise Stopped
            self._step(300)
        self._land()
        self._commit()

    def _step(self, milliseconds: int) -> None:
        batches = self._source.poll(milliseconds)
        self.polled = time.monotonic()
        if batches:
            self._heard = self.polled
        else:
            self._land()
            self._look_behind()
        if self._uncommitted and (not batches or self.polled > self._commit_due):
            self._commit()
        for batch in batches:
            pipeline = self._pipelines.get(batch.partition)
            if pipeline is None:
                self._open(batch.partition)
                continue
            folded = pipeline.fold(batch.messages)
            self._land()
            if self._pipelines.get(batch.partition) is not pipeline:
                continue  # another instance has this partition by now, from our last commit on
            written = self._writer.submit(self._sink.accept, folded.documents)
            self._flight = _Flight(batch, folded, pipeline, written)

    def _open(self, partition: TopicPartition) -> None:
        """Begin a partition that came to us where its documents and its offset are known to belong together."""
        self._land()
        reader = ElasticReader(self._client, self._generation, self._patience)
        documents = Documents(reader, self._settings.documents_in_memory)
        state = self._source.begin(partition)
        self._pipelines[partition] = self._view.pipeline(partition.topic, state, documents, self._settings)

    def _lost(self, partitions: set[TopicPartition]) -> None:
        """Forget what belongs to another instance now. It begins at our last commit, whatever we still write."""
        with suppress(KafkaError):
            self._commit()
        for partition in partitions:
            self._uncommitted.pop(partition, None)
            if self._pipelines.pop(partition, None) is not None:
                with suppress(KeyError):
                    _lag.remove(self._view.name, partition.topic, partition.partition)

    def _land(self) -> None:
        """Wait until the batch that is being written is there; then its offset may be committed."""
        flight = self._flight
        if flight is None:
            return
        while True:
            try:
                written = flight.written.result(timeout=1)
                break
            except NotYet:
                self._source.keep_alive()
                self.polled = time.monotonic()
                waiting = flight.batch
                self._lags(waiting, len(waiting.messages) + waiting.left, max(0.0, time.time() - waiting.since))
        self._flight = None
        dead = flight.pipeline.settle(flight.folded, written)
        if dead:
            self._letters.send(dead)
            _dead.labels(self._view.name).inc(len(dead))
            for letter in dead[:10]:
                log.error("dead letter", view=self._view.name, number=len(dead), cause=letter.reason)
        failpoint(f"export.{self._view.name}.after-write")
        if self._pipelines.get(flight.batch.partition) is flight.pipeline:
            if not self._uncommitted:
                self._commit_due = time.monotonic() + _COMMIT_AFTER
            self._uncommitted[flight.batch.partition] = (flight.batch.next_offset, flight.folded.sifted)
        self._measure(flight, written)

    def _commit(self) -> None:
        """Tell Kafka how far the view has everything."""
        if self._uncommitted:
            self._source.commit(self._uncommitted)
            self._uncommitted = {}

    def _look_behind(self) -> None:
        """Kafka gave nothing: there is nothing, a transaction is not finished, or Kafka is away, which raises."""
        if self.polled > self._heard + _LOOK_AT_KAFKA:
            self._source.ends()
            self._heard = time.monotonic()
        left = {partition: self._source.left(partition) for partition in self._pipelines}
        for partition, number in left.items():
            _lag.labels(self._view.name, partition.topic, partition.partition).set(number)
        _behind.labels(self._view.name).set(self._age() if any(left.values()) else 0.0)

    def _age(self) -> float:
        return max(0.0, time.time() - self._latest) if self._latest else 0.0

    def _measure(self, flight: _Flight, written: list[Outcome]) -> None:
        name = self._view.name
        for fate, number in counted(flight.folded.outcomes).items():
            self.fates[fate] += number
            _records.labels(name, fate).inc(number)
        for fate, number in counted(written).items():
            _documents.labels(name, fate).inc(number)
        self._latest = max(self._latest, flight.folded.latest / 1000)
        self._lags(flight.batch, flight.batch.left, self._age() if flight.batch.left else 0.0)

    def _lags(self, batch: Batch, records: int, seconds: float) -> None:
        _lag.labels(self._view.name, batch.partition.topic, batch.partition.partition).set(records)
        _behind.labels(self._view.name).set(seconds)


class Streamer:
    """Keeps one view up to date for as long as the process lives."""

    def __init__(self, view: View, servers: str, client: Elasticsearch, settings: ExportSettings) -> None:
        self._view = view
        self._servers = servers
        self._client = client
        self._settings = settings
        self.patience: Final = Patience(threading.Event())
        self.session: Session | None = None

    def run(self) -> None:
        """Session after session until `patience.stop` is set. Lets through what nobody expected."""
        pauses = Patience.pauses()
        while not self.patience.stop.is_set():
            try:
                began = time.monotonic()
                self._one_session()
            except Stopped:
                return
            except ViewGone:
                log.warning("the view has other indexes now", view=self._view.name)
            except (KafkaError, ApiError, TransportError) as error:
                cause = f"{type(error).__name__}: {error}"[:500]
                log.warning("begins again at the last commit", view=self._view.name, cause=cause)
            if time.monotonic() - began > 30:
                pauses = Patience.pauses()
            self.patience.stop.wait(next(pauses))

    def _prepare(self) -> None:
        """See to it that the topics are there which nobody else makes."""
        ours = [feed.topic(self._settings) for feed in self._view.feeds if feed.ours]
        make_topics(self._servers, [*ours, self._settings.dead_letter_topic])

    def _one_session(self) -> None:
        indexes = Indexes(self._client, self._view, self._settings.index_prefix)
        generation = self.patience.insist(indexes.ensure)
        self.patience.worked()
        letters = DeadLetters(self._servers, self._settings.dead_letter_topic, self._view.name)
        self._prepare()
        source = KafkaSource(
            self._servers, self._view.topics(self._settings), generation.group, self._settings.batch_records
        )
        session = Session(
            source=source,
            letters=letters,
            client=self._client,
            generation=generation,
            settings=self._settings,
            patience=self.patience,
        )
        self.session = session
        try:
            session.stream(indexes)
        finally:
            self.session = None
            session.close()
            letters.close()
