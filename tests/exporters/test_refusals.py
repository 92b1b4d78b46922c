"""An Elasticsearch that is too busy, closed or locked: the exporter waits longer and longer, says so and loses nothing.

A small server in front of the real one refuses what the test wants refused and passes everything else on.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY

from exporters.documents import Documents, Ref
from exporters.elastic import ElasticReader, ElasticSink, Generation, Indexes, Patience, Stopped, open_client
from exporters.pipeline import Encoded
from exporters.record import Fate
from exporters.settings import ExportSettings
from exporters.views import VIEWS
from hub.elastic import Elasticsearch

VIEW = VIEWS["operations"]


@dataclass
class Door:
    """What the server in front does with the bulk requests to come."""

    behind: str
    whole: list[int] = field(default_factory=list)
    """Statuses for whole requests, one after the other; then they pass."""
    items: list[tuple[int, str]] = field(default_factory=list)
    """Status and error for the second half of each request's documents, which then do not arrive."""
    bulks: int = 0

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        if "/_bulk" not in path:
            return self._pass(method, path, body, headers)
        self.bulks += 1
        if self.whole:
            status = self.whole.pop(0)
            return status, json.dumps({"error": {"type": "refused", "reason": "busy"}, "status": status}).encode()
        if not self.items:
            return self._pass(method, path, body, headers)
        status, error = self.items[0]
        if "items" in path:  # the second request of a refused batch: then the refusal is over
            self.items.pop(0)
        lines = body.splitlines(keepends=True)
        kept = len(lines) // 4 * 2
        _, passed = self._pass(method, "/_bulk", b"".join(lines[:kept]), headers) if kept else (200, b'{"items":[]}')
        refused = {"index": {"status": status, "error": {"type": error, "reason": "refused"}}}
        answers = [*json.loads(passed)["items"], *[refused] * ((len(lines) - kept) // 2)]
        return 200, json.dumps({"errors": True, "items": answers}).encode()

    def _pass(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        there = HTTPConnection(urlsplit(self.behind).netloc)
        try:
            there.request(method, path, body, headers)
            answer = there.getresponse()
            return answer.status, answer.read()
        finally:
            there.close()


@pytest.fixture
def door(elasticsearch_url: str) -> Iterator[tuple[Door, str]]:
    """The server in front, and its address."""
    made = Door(elasticsearch_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = {name: value for name, value in self.headers.items() if name in {"content-type", "accept"}}
            status, answer = made.answer(self.command, self.path, body, told)
            self.send_response(status)
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do  # noqa: N815 (names of the base class)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Watched(threading.Event):
    """A stop that notes how long each pause would be, and what was shown meanwhile, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self.patience: Patience | None = None
        self.shown: list[tuple[bool, float | None]] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert self.patience is not None
        self.pauses.append(timeout or 0.0)
        self.shown.append((self.patience.waiting, REGISTRY.get_sample_value("payhub_export_waiting")))
        return self.is_set()


@dataclass
class World:
    """A view fed with the captured records through the door."""

    door: Door
    stop: Watched
    patience: Patience
    client: Elasticsearch
    generation: Generation

    def feed(self, log: SimpleNamespace, refuse: Any) -> None:
        """The captured story in batches; `refuse` is called before each is written."""
        reader = ElasticReader(self.client, self.generation, self.patience)
        sink = ElasticSink(self.client, self.generation, self.patience, 4_000_000)
        settings = ExportSettings()
        one = VIEW.pipeline(settings.topic, {}, Documents(reader, 20), settings)
        told = log.story()
        for begin in range(0, len(told), 150):
            folded = one.fold(told[begin : begin + 150])
            refuse(begin // 150)
            written = sink.accept(folded.documents)
            assert {outcome.fate for outcome in written} <= {Fate.TAKEN, Fate.SEEN}
            assert not one.settle(folded, written)
            assert not self.patience.waiting

    def documents(self) -> dict[tuple[str, str], tuple[int, dict[str, Any]]]:
        self.client.indices.refresh(index=self.generation.indexes)
        found = self.client.search(index=self.generation.indexes, size=10_000, version=True)["hits"]["hits"]
        prefix = f"{self.generation.prefix}-"
        return {
            (hit["_index"].removeprefix(prefix).rpartition("-")[0], hit["_id"]): (hit["_version"], hit["_source"])
            for hit in found
        }


@pytest.fixture
def world(door: tuple[Door, str]) -> Iterator[World]:
    made, url = door
    stop = Watched()
    patience = stop.patience = Patience(stop)
    client = open_client(url)
    indexes = Indexes(client, VIEW, f"busy-{uuid.uuid4().hex[:8]}")
    generation = indexes.ensure()
    yield World(made, stop, patience, client, generation)
    made.whole, made.items = [], []
    indexes.drop(generation.number)
    client.indices.delete_index_template(name=f"{generation.prefix}-*")
    client.close()


def test_what_is_refused_for_now_is_sent_again_later_and_later_and_nothing_is_lost(
    world: World, log: SimpleNamespace
):  # H15
    """Whole requests and single documents, with 429, 503, a password that expired, a blocked and a closed index."""
    refusals: dict[int, Any] = {
        1: ([429, 503, 429, 502, 429, 429, 429, 429], []),
        2: ([], [(429, "es_rejected_execution_exception")] * 6),
        3: ([503], [(503, "unavailable_shards_exception"), (403, "cluster_block_exception")]),
        4: ([401, 403], [(400, "index_closed_exception")]),
    }
    ended: list[int] = []

    def refuse(batch: int) -> None:
        ended.append(len(world.stop.pauses))
        world.door.whole, world.door.items = refusals.get(batch, ([], []))

    world.feed(log, refuse)
    assert not world.door.whole
    assert not world.door.items
    expected = {tuple(ref): (version, json.loads(body)) for ref, (version, body) in straight(log).items()}
    assert world.documents() == expected
    for begin, end in ((ended[1], ended[2]), (ended[2], ended[3])):
        pauses = world.stop.pauses[begin:end]
        assert len(pauses) >= 6
        longest = [min(5.0, 0.1 * 2**number) for number in range(len(pauses))]
        assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True)), pauses
    assert set(world.stop.shown) == {(True, 1.0)}
    assert REGISTRY.get_sample_value("payhub_export_waiting") == 0
    assert (REGISTRY.get_sample_value("payhub_export_back_off_total", {"cause": "429"}) or 0) >= 6


def straight(log: SimpleNamespace) -> dict[Any, tuple[int, bytes]]:
    """The documents, and their versions, of a view that nobody disturbed."""
    return dict(log.straight("operations", log.story).kept)


def test_an_exporter_that_has_to_leave_does_not_wait_for_elasticsearch(door: tuple[Door, str]):
    made, url = door
    made.whole = [429] * 3
    leaving = threading.Event()
    leaving.set()
    sink = ElasticSink(open_client(url), Generation(VIEW, "any", 1, "-"), Patience(leaving), 4_000_000)
    with pytest.raises(Stopped):
        sink.accept([Encoded(Ref("incidents", "any"), 1, b'{"partitionId":1,"position":1}')])
    assert made.bulks == 1
