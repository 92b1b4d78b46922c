"""Operators' acts and callbacks in the audit view: each once, however often and in whatever order they are told."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.documents import Documents
from exporters.pipeline import Pipeline, RawMessage
from exporters.record import Fate
from exporters.settings import ExportSettings
from exporters.views import VIEWS

AUDIT = VIEWS["audit"]


def act(seq: int, **more: Any) -> RawMessage:
    content = {
        "seq": seq,
        "at": "2026-11-18T10:00:00.123456+00:00",
        "tenantId": "acme",
        "actor": "olga",
        "roles": ["operator"],
        "action": "action.request",
        "target": "transfer:p-1",
        "paymentId": "p-1",
        "reasonCode": "customer",
        "reason": "called from +52 5511110001",
        "before": {"payee": {"name": "Luis Vega"}},
        "after": None,
        "requestId": "r-1",
        "outcome": "done",
        "prevHash": "0" * 64,
        "hash": f"{seq:064x}",
        **more,
    }
    return None, json.dumps(content).encode()


def call(seq: int, number: int, outcome: str, party: str = "STP") -> RawMessage:
    content = {
        "seq": seq,
        "id": f"{party.lower()}-{number}",
        "at": "2026-11-18T10:00:00+00:00",
        "party": party,
        "kind": "order-status",
        "paymentId": "p-1",
        "tenantId": "acme",
        "outcome": outcome,
        "times": seq,
        "value": {"lastAnswer": "204"},
    }
    return None, json.dumps(content).encode()


def pipeline(store: Any, topic: str, state: Any = None, room: int = 100) -> Pipeline:
    return AUDIT.pipeline(topic, state or {}, Documents(store, room), ExportSettings())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_callbacks_told_again_and_after_a_death_end_as_they_stood_last(log: SimpleNamespace, seed: int):  # H4 H15
    """A relay that dies tells what it told last again; a streamer that dies reads again from its commit."""
    chance, store = random.Random(seed), log.Store()
    told: list[RawMessage] = []
    latest: dict[str, str] = {}
    for seq in range(1, 40):
        number, outcome = chance.randint(1, 6), chance.choice(["received", "moved", "unchanged"])
        latest[f"callback-stp-{number}"] = outcome
        told.append(call(seq, number, outcome))
        if chance.random() < 0.2:
            told += told[-chance.randint(1, 5) :]
    at, state = 0, None
    while at < len(told):
        batch = told[at : at + chance.randint(1, 9)]
        one = pipeline(store, "payhub-callbacks", state, room=chance.choice([100, 1000]))
        _, letters = one.accept(batch, store)
        assert not letters
        if chance.random() < 0.7:  # else it dies between write and commit
            at, state = at + len(batch), one.sifter.state
    assert {name: body["outcome"] for name, body in store.bodies("audit").items()} == latest
    assert state == {"stp": [0, 39, 1763460000000 + 365 * 86_400_000]}


def test_an_act_is_one_document_with_the_columns_that_operators_search(log: SimpleNamespace):
    store = log.Store()
    pipeline(store, "payhub-operator-acts").accept([act(1), act(2), act(1)], store)
    documents = store.bodies("audit")
    assert len(documents) == 2
    first = documents[f"operator-1-{1:064x}"[: len("operator-1-") + 16]]
    assert (first["source"], first["actor"], first["action"]) == ("operator", "olga", "action.request")
    assert (first["paymentId"], first["tenantId"], first["key"]) == ("p-1", "acme", "1")
    assert first["@timestamp"] == "2026-11-18T10:00:00.123Z"
    assert "Luis Vega" not in json.dumps(documents)
    assert "5511110001" not in json.dumps(documents)
    for body in documents.values():
        assert body.keys() <= AUDIT.families["audit"].keys()


def test_a_log_that_began_anew_overwrites_no_act(log: SimpleNamespace):
    store = log.Store()
    pipeline(store, "payhub-operator-acts").accept([act(1), act(1, hash="f" * 64, actor="mallory")], store)
    assert {body["actor"] for body in store.bodies("audit").values()} == {"olga", "mallory"}


def test_numbers_of_stp_and_of_channels_are_not_compared(log: SimpleNamespace):
    store = log.Store()
    one = pipeline(store, "payhub-callbacks")
    one.accept([call(900, 1, "DELIVERED", "CHANNEL"), call(3, 1, "moved")], store)
    assert {name: state[1] for name, state in one.sifter.state.items()} == {"channel": 900, "stp": 3}
    assert len(store.bodies("audit")) == 2


def test_what_is_no_entry_becomes_a_dead_letter(log: SimpleNamespace):
    store = log.Store()
    broken = [
        (None, None),
        (b"", b"{}"),
        (None, b'{"seq":"1","at":"2026-11-18T10:00:00Z"}'),
        (None, b'{"seq":1,"at":"x"}'),
    ]
    broken.append((None, b'{"seq":1,"at":"2026-11-18T10:00:00Z"}'))
    outcomes, letters = pipeline(store, "payhub-operator-acts").accept([*broken, act(1)], store)
    assert [outcome.fate for outcome in outcomes] == [Fate.DEAD] * 5 + [Fate.TAKEN]
    assert len(letters) == 5
    assert len(store.bodies("audit")) == 1
