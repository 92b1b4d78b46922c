"""B7: how fast records become views, against writing the same documents with nothing in front of it.

    python -m benchmarks.b7_streamer [--data-dir FOLDER] [--records 120000] [--rounds 3] [--json]

*stream* is what an exporter does: records out of Kafka, sifted, folded, written in bulk, offsets committed. *raw bulk*
sends the same records, one document each, encoded beforehand, in the same batches with the same kind of versions: what
it costs to have them in Elasticsearch with nothing in front. Both alternate in one run, each time into new indexes. The
operations view writes far fewer documents than there are records, which is the point of folding. *fold* is the part in
between alone, without Kafka and Elasticsearch.
A session needs a second or two to begin, which is none of the streaming: hence as many records.

Processor time is what a machine that others use as well can still tell. Of the exporter's, per record of the operations
view and measured part by part, about a third goes to the Kafka client, which takes messages apart in Python (neither
larger fetches nor doing without its metrics changes that), a quarter to reading JSON and sifting, a third to folding
and encoding, the rest to the Elasticsearch client and its thread. The audit view folds less and writes seven times the
documents. The parts run in one interpreter: while Elasticsearch writes a batch the next is folded, but what the
exporter needs itself adds up, so that a raw bulk that takes less than that cannot be reached.

Records are those of settled payments that the real engine once exported, multiplied. The stack of the folder is used,
else one is started for this run. Target: stream >= 0.85 of the raw bulk, and >= 20 000 records/s.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from rich.console import Console
from rich.table import Table

from exporters.documents import Documents, Nothing
from exporters.elastic import ElasticSink, Indexes, Patience, open_client
from exporters.kafka_source import DeadLetters, KafkaSource
from exporters.pipeline import Encoded
from exporters.record import TAKEN
from exporters.settings import ExportSettings
from exporters.sift import RawMessage
from exporters.streamer import Session, look_for_less_garbage
from exporters.views import VIEWS, View
from hub.elastic import Elasticsearch
from hub.stack.state import load_state

CAPTURED: Final = Path(__file__).parents[1] / "tests" / "exporters" / "records.jsonl.gz"
PAYMENTS: Final = 7
"""The captured payments that are multiplied: the first ones, which nothing disturbed."""

BATCH: Final = ExportSettings.model_fields["batch_records"].default


@dataclass
class Result:
    """One view's figures, in records per second."""

    view: str
    records: int
    documents: int
    megabytes: float
    stream: list[int]
    raw_bulk: list[int]
    fold: list[int]
    stream_cpu_us: list[float]
    """Processor time of the exporter per record, Kafka and Elasticsearch clients included."""
    load_before: float

    @property
    def ratio(self) -> float:
        """Median of the rounds."""
        return statistics.median(ours / bare for ours, bare in zip(self.stream, self.raw_bulk, strict=True))


def records(number: int) -> list[RawMessage]:
    """That many records of the engine, of as many payments as it takes."""
    story = _story()
    messages: list[RawMessage] = []
    copy, position = 0, 0
    while len(messages) < number:
        copy += 1
        for text in story:
            position += 1
            messages.append(_copied(text, copy, position))
    return messages[:number]


def _copied(text: str, copy: int, position: int) -> RawMessage:
    """A record with other keys, payment and position."""
    text = re.sub(r"22517998[0-9]{8}", lambda key: str(int(key[0]) + copy * 10**6), text)
    text = re.sub(r"01a1fd0d(?=-[0-9a-f]{4}-)", f"{copy:08x}", text)
    text = re.sub(r'"position":[0-9]+', f'"position":{position}', text)
    return f'{{"partitionId":1,"position":{position}}}'.encode(), text.encode()


def _story() -> list[str]:
    told: list[str] = []
    ours: set[int] = set()
    starts = 0
    for line in gzip.decompress(CAPTURED.read_bytes()).decode().splitlines():
        record = json.loads(line)
        value = record["value"]
        if record["valueType"] == "MESSAGE_START_EVENT_SUBSCRIPTION" and record["intent"] == "CORRELATED":
            starts += 1
            if starts > PAYMENTS:
                break
            ours.add(value["processInstanceKey"])
        if value.get("parentProcessInstanceKey") in ours:
            ours.add(value["processInstanceKey"])
        if value.get("processInstanceKey") in ours:
            told.append(line)
    return told


class Bench:
    """One view on one stack."""

    def __init__(self, view: View, client: Elasticsearch, servers: str) -> None:
        self._view = view
        self._client = client
        self._servers = servers
        self._run = f"bench-{uuid.uuid4().hex[:8]}"
        self._settings = ExportSettings(
            topic=self._run, dead_letter_topic=f"{self._run}-dead", index_prefix=self._run, batch_records=BATCH
        )
        self._indexes = Indexes(client, view, self._run)
        self._bare = Indexes(client, VIEWS["audit"], f"{self._run}-bare")
        self._patience = Patience(threading.Event())

    def measure(self, messages: Sequence[RawMessage], rounds: int) -> Result:
        load, size = os.getloadavg()[0], 0
        self._fill(messages)
        self._indexes.put_templates()
        self._bare.put_templates()
        batches, _ = self._fold(messages, self._view)
        bare, _ = self._fold(messages, VIEWS["audit"])
        documents = sum(len(batch) for batch in batches)
        size = sum(len(one.body) for batch in batches for one in batch)
        result = Result(self._view.name, len(messages), documents, size / 1e6, [], [], [], [], load)
        try:
            for _ in range(rounds):
                result.raw_bulk.append(round(len(messages) / self._raw(bare)))
                used = time.process_time()
                result.stream.append(round(len(messages) / self._stream()))
                used = time.process_time() - used
                result.stream_cpu_us.append(round(used / len(messages) * 1e6, 1))
                result.fold.append(round(len(messages) / self._fold(messages, self._view)[1]))
        finally:
            self._clear()
        return result

    def _fill(self, messages: Sequence[RawMessage]) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self._servers.split(","))
        admin.create_topics({self._run: {"num_partitions": 1, "replication_factor": 1}})
        admin.close()
        producer = KafkaProducer(bootstrap_servers=self._servers.split(","), batch_size=262_144, linger_ms=20)
        for key, value in messages:
            producer.send(self._run, key=key, value=value)
        producer.flush()
        producer.close()

    def _fold(self, messages: Sequence[RawMessage], view: View) -> tuple[list[list[Encoded]], float]:
        documents = Documents(Nothing(), self._settings.documents_in_memory)
        pipeline = view.pipeline(self._settings.topic, {}, documents, self._settings)
        batches: list[list[Encoded]] = []
        began = time.perf_counter()
        for begin in range(0, len(messages), BATCH):
            folded = pipeline.fold(messages[begin : begin + BATCH])
            if pipeline.settle(folded, [TAKEN] * len(folded.documents)):
                raise RuntimeError("a record was not understood")
            batches.append(folded.documents)
        return batches, time.perf_counter() - began

    def _raw(self, batches: Sequence[Sequence[Encoded]]) -> float:
        generation = self._bare.create(self._bare.newest() + 1)
        sink = ElasticSink(self._client, generation, self._patience, self._settings.batch_bytes)
        began = time.perf_counter()
        for batch in batches:
            sink.accept(batch)
        seconds = time.perf_counter() - began
        self._bare.drop(generation.number)
        return seconds

    def _stream(self) -> float:
        generation = self._indexes.create(self._indexes.newest() + 1)
        letters = DeadLetters(self._servers, self._settings.dead_letter_topic, self._view.name)
        source = KafkaSource(self._servers, [self._settings.topic], generation.group, BATCH)
        session = Session(
            source=source,
            letters=letters,
            client=self._client,
            generation=generation,
            settings=self._settings,
            patience=self._patience,
        )
        began = time.perf_counter()
        try:
            session.replay()
            return time.perf_counter() - began
        finally:
            session.close()
            self._indexes.drop(generation.number)

    def _clear(self) -> None:
        self._client.indices.delete_index_template(name=f"{self._run}-*")
        admin = KafkaAdminClient(bootstrap_servers=self._servers.split(","))
        admin.delete_topics([self._run])
        admin.close()


@contextmanager
def stack(given: Path | None) -> Iterator[Path]:
    """The data folder of a stack with Kafka and Elasticsearch."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="payhub-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # the servers run as another user when we are root
        command = [sys.executable, "-m", "hub.stack"]
        choices = ["--detach", "--free-ports", "--profile", "minimal", "--bound-to", str(os.getpid())]
        subprocess.run([*command, "up", *choices, "--data-dir", name], check=True, stdout=sys.stderr)
        try:
            yield Path(name)
        finally:
            subprocess.run([*command, "down", "--data-dir", name], check=True, stdout=sys.stderr)


def main() -> None:
    """Measure both views and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--records", type=int, default=120_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--view", choices=list(VIEWS), action="append")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    messages = records(chosen.records)
    look_for_less_garbage()
    with stack(chosen.data_dir) as folder:
        state = load_state(folder)
        if state is None:
            raise SystemExit(f"there is no stack in {folder}")
        client = open_client(state.address("elasticsearch"))
        results = [
            Bench(VIEWS[name], client, state.address("kafka")).measure(messages, chosen.rounds)
            for name in chosen.view or VIEWS
        ]
        client.close()
    if chosen.json:
        print(json.dumps([asdict(one) | {"ratio": one.ratio} for one in results]))
        return
    table = Table(title=f"{chosen.records} records, {os.cpu_count()} cores")
    for column in (
        "view",
        "stream/s",
        "raw bulk/s",
        "ratio",
        "fold alone/s",
        "CPU µs/record",
        "documents",
        "MB",
        "load before",
    ):
        table.add_column(column)
    for one in results:
        figures: list[Any] = [one.view, _span(one.stream), _span(one.raw_bulk), f"{one.ratio:.2f}", _span(one.fold)]
        figures += [
            f"{statistics.median(one.stream_cpu_us):.0f}",
            str(one.documents),
            f"{one.megabytes:.1f}",
            f"{one.load_before:.1f}",
        ]
        table.add_row(*figures)
    Console().print(table)


def _span(figures: Sequence[int]) -> str:
    return f"{statistics.median(figures):.0f} ({min(figures)} to {max(figures)})"


if __name__ == "__main__":
    main()
