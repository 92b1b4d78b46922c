"""The engine's log as tests see it: records captured once, the ways in which the engine may send them, a plain store.

`records.jsonl.gz` is what one run of the real engine put into Kafka: 14 payments that settled, were refused, returned,
cancelled, waited for an operator, met an incident and were cancelled by hand; the broker was killed in between and sent
a third of its log again.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from exporters.audit import AuditFold
from exporters.documents import Body, Documents, Reader, Ref
from exporters.elastic import open_client
from exporters.operations import OperationsFold
from exporters.pipeline import Encoded, Fold, Pipeline
from exporters.record import SEEN, TAKEN, Outcome
from exporters.sift import RawMessage, Sifter

FOLDS: Mapping[str, Callable[[Documents], Fold]] = {"audit": AuditFold, "operations": OperationsFold}


@pytest.fixture
def client(elasticsearch_url: str) -> Iterator[Elasticsearch]:
    """The real Elasticsearch, as the exporters open it."""
    opened = open_client(elasticsearch_url)
    yield opened
    opened.close()


@cache
def captured() -> tuple[RawMessage, ...]:
    """What Kafka held, repeats included."""
    lines = gzip.decompress(Path(__file__).with_name("records.jsonl.gz").read_bytes()).splitlines()
    return tuple(message(json.loads(line)) for line in lines)


@cache
def once() -> tuple[RawMessage, ...]:
    """The same without repeats."""
    seen: set[bytes | None] = set()
    return tuple(one for one in captured() if one[0] not in seen and not seen.add(one[0]))


@cache
def story() -> tuple[RawMessage, ...]:
    """Three payments out of it, to be told often: one that waited for an operator, one stuck, one cancelled by hand."""
    told, kept = ("silent", "x"), []
    instances: set[int] = set()
    for one in once():
        record = json.loads(one[1] or b"")
        value, kind = record["value"], record["valueType"]
        if kind == "MESSAGE_START_EVENT_SUBSCRIPTION" and value["variables"].get("concept") in told:
            instances.add(value["processInstanceKey"])
        if value.get("parentProcessInstanceKey") in instances:
            instances.add(value["processInstanceKey"])
    for one in once():
        record = json.loads(one[1] or b"")
        if record["value"].get("processInstanceKey") in instances:
            kept.append(one)
    return tuple(kept)


def message(record: Mapping[str, Any], key: bytes | None = None) -> RawMessage:
    """A record as the exporter sends it."""
    if key is None:
        key = f'{{"partitionId":{record["partitionId"]},"position":{record["position"]}}}'.encode()
    return key, json.dumps(record).encode()


def sent_again(log: Sequence[RawMessage], chance: random.Random, crashes: int) -> list[RawMessage]:
    """What Kafka holds when the broker crashes that often: each time it begins again at its last snapshot."""
    sent: list[RawMessage] = []
    snapshot = reached = 0
    for _ in range(crashes):
        crash = chance.randint(reached, len(log))
        sent += log[snapshot:crash]
        reached = max(reached, crash)
        snapshot = chance.randint(snapshot, crash)
        reached = crash
    return sent + list(log[snapshot:])


class Store:
    """Elasticsearch as far as a view can tell: the newest version of each document wins."""

    def __init__(self) -> None:
        self.kept: dict[Ref, tuple[int, bytes]] = {}

    def accept(self, batch: Sequence[Encoded]) -> list[Outcome]:
        return [self._one(one) for one in batch]

    def _one(self, one: Encoded) -> Outcome:
        if one.ref in self.kept and self.kept[one.ref][0] > one.version:
            return SEEN
        self.kept[one.ref] = (one.version, one.body)
        return TAKEN

    def read(self, refs: Sequence[Ref]) -> Mapping[Ref, Body]:
        return {ref: json.loads(self.kept[ref][1]) for ref in refs if ref in self.kept}

    def bodies(self, family: str) -> dict[str, Body]:
        return {ref.id: json.loads(body) for ref, (_, body) in self.kept.items() if ref.family == family}


def pipeline(
    view: str, reader: Reader, state: Mapping[str, Sequence[int]] | None = None, room: int = 20_000
) -> Pipeline:
    return Pipeline(Sifter(state), FOLDS[view](Documents(reader, room)))


@cache
def straight(view: str, records: Callable[[], tuple[RawMessage, ...]] = once) -> Store:
    """The documents when nothing ever goes wrong."""
    store = Store()
    whole, told = pipeline(view, store), records()
    for begin in range(0, len(told), 200):
        _, letters = whole.accept(told[begin : begin + 200], store)
        assert not letters
    return store


@pytest.fixture(scope="session")
def log() -> SimpleNamespace:
    """All of the above."""
    return SimpleNamespace(
        captured=captured,
        once=once,
        story=story,
        message=message,
        sent_again=sent_again,
        Store=Store,
        pipeline=pipeline,
        straight=straight,
    )
