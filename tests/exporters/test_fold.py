"""Any repetition, restart or sharing of the work ends in the same documents, and the documents tell what happened."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.pipeline import Folded
from exporters.record import Fate
from exporters.views import VIEWS

quick = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
views = pytest.mark.parametrize("view", ["audit", "operations"])


def of(log: SimpleNamespace, **wanted: object) -> dict[str, Any]:
    """The one transfer that has these values."""
    found = [body for body in log.straight("operations").bodies("transfers").values() if wanted.items() <= body.items()]
    assert len(found) == 1, f"{len(found)} transfers with {wanted}"
    return dict(found[0])


# --- The same documents, whatever happens


@views
@quick
@given(seed=st.integers(0, 2**32), crashes=st.integers(1, 4))
def test_records_sent_again_change_nothing(log: SimpleNamespace, view: str, seed: int, crashes: int):  # H15
    chance, store = random.Random(seed), log.Store()
    sent = log.sent_again(log.story(), chance, crashes)
    one = log.pipeline(view, store)
    while sent:
        size = chance.randint(1, 700)
        one.accept(sent[:size], store)
        sent = sent[size:]
    assert store.kept == log.straight(view, log.story).kept


@views
@quick
@given(seed=st.integers(0, 2**32))
def test_dying_anywhere_and_reading_again_from_the_commit_changes_nothing(
    log: SimpleNamespace, view: str, seed: int
):  # H15
    """Dies before the write, in the middle of it or between it and the commit; memory holds next to nothing."""
    chance, store = random.Random(seed), log.Store()
    sent = log.sent_again(log.story(), chance, 2)
    committed, state, deaths = 0, None, 0
    one, at = log.pipeline(view, store, state, room=chance.choice([5, 20_000])), 0
    while committed < len(sent):
        batch = sent[at : at + chance.randint(1, 500)]
        folded = one.fold(batch)
        dies = chance.choice(["", "", "before", "within", "after"]) if deaths < 12 else ""
        kept = [] if dies == "before" else folded.documents
        if dies == "within":
            kept = [document for document in kept if chance.random() < 0.5]
        written = store.accept(kept)
        if dies:
            deaths += 1
            one, at = log.pipeline(view, store, state, room=chance.choice([5, 20_000])), committed
            continue
        one.settle(folded, written)
        at += len(batch)
        committed, state = at, folded.sifted
    assert store.kept == log.straight(view, log.story).kept


@views
@quick
@given(seed=st.integers(0, 2**32))
def test_a_streamer_that_lost_its_partition_and_still_writes_changes_nothing(
    log: SimpleNamespace, view: str, seed: int
):
    """Two instances: the first is thought dead, is not, and writes its batches while the second does all the work."""
    chance, store = random.Random(seed), log.Store()
    sent = list(log.story())
    cut, overrun = sorted(chance.sample(range(len(sent)), 2))
    first = log.pipeline(view, store)
    first.accept(sent[:cut], store)
    state = first.sifter.state
    late: list[Folded] = [first.fold(sent[cut:overrun])]
    second, at = log.pipeline(view, store, state), cut
    while at < len(sent):
        batch = sent[at : at + chance.randint(1, 400)]
        second.accept(batch, store)
        at += len(batch)
        if late and chance.random() < 0.3:
            store.accept(late.pop().documents)
    for folded in late:
        store.accept(folded.documents)
    assert store.kept == log.straight(view, log.story).kept


@views
def test_what_the_real_engine_sent_again_after_a_kill_changes_nothing(log: SimpleNamespace, view: str):
    assert len(log.captured()) > len(log.once()) + 1000
    store = log.Store()
    outcomes, letters = log.pipeline(view, store).accept(log.captured(), store)
    assert store.kept == log.straight(view).kept
    assert not letters
    assert len(outcomes) == len(log.captured())


@views
def test_reading_everything_again_over_finished_documents_changes_nothing(log: SimpleNamespace, view: str):
    store = log.Store()
    store.kept = dict(log.straight(view).kept)
    log.pipeline(view, store).accept(log.once(), store)
    assert store.kept == log.straight(view).kept


def test_every_record_is_in_the_audit_view_once(log: SimpleNamespace):  # H15
    assert len(log.straight("audit").bodies("audit")) == len(log.once())


def test_an_engine_that_lost_its_data_begins_a_new_epoch(log: SimpleNamespace):
    """Its positions and keys begin again, and nothing of the earlier life is overwritten."""
    later = []
    for _, value in log.once():
        record = json.loads(value)
        record["timestamp"] += 10**9
        text = json.dumps(record)
        for payment in log.straight("operations").bodies("transfers"):
            text = text.replace(payment, "f" + payment[1:])
        later.append(log.message(json.loads(text)))
    store = log.Store()
    one = log.pipeline("operations", store)
    for batch in (log.once(), later, later[500:]):
        one.accept(batch, store)
    assert len(store.bodies("transfers")) == 2 * len(log.straight("operations").bodies("transfers"))
    assert {ref.split("-")[0] for ref in store.bodies("steps")} == {"1", "2"}


def test_memory_is_bounded_and_what_left_it_is_read_back(log: SimpleNamespace):
    store, told = log.Store(), log.story()
    one = log.pipeline("operations", store, room=10)
    for begin in range(0, len(told), 50):
        one.accept(told[begin : begin + 50], store)
        assert len(one._fold.documents) <= 10
    assert store.kept == log.straight("operations", log.story).kept


# --- What can never be indexed


@views
@pytest.mark.parametrize(
    "bytes_", [b"", b"not JSON", b"[]", b'{"partitionId":1}', None, b'{"partitionId":"1","position":5}']
)
def test_what_is_no_record_becomes_a_dead_letter_and_the_rest_goes_on(
    log: SimpleNamespace, view: str, bytes_: bytes | None
):
    store = log.Store()
    messages = [*log.story()[:100], (b"what", bytes_), *log.story()[100:]]
    outcomes, letters = log.pipeline(view, store).accept(messages, store)
    assert store.kept == log.straight(view, log.story).kept
    assert [outcome.fate for outcome in outcomes].count(Fate.DEAD) == 1
    assert [(letter.key, letter.content) for letter in letters] == [(b"what", bytes_ or b"")]
    assert letters[0].reason


def test_a_record_of_an_unexpected_shape_becomes_a_dead_letter(log: SimpleNamespace):
    store, messages = log.Store(), list(log.story())
    record = json.loads(messages[120][1])
    record |= {"valueType": "JOB", "intent": "FAILED", "value": {"processInstanceKey": "x", "elementInstanceKey": []}}
    messages[120] = log.message(record)
    _, letters = log.pipeline("operations", store).accept(messages, store)
    assert [letter.reason for letter in letters] == ["cannot be folded: KeyError"]


ODD: tuple[Any, ...] = (None, True, 0, -1, 2**63, 10**30, 1.5, "", "x", "\0", [], [[]], {}, {"a": []}, 10**18)


def broken(record: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The record with one of its fields away or another, at any depth."""
    inside = record
    while True:
        name = chance.choice(sorted(inside))
        if isinstance(inside[name], dict) and inside[name] and chance.random() < 0.8:
            inside = inside[name]
            continue
        if chance.random() < 0.2:
            del inside[name]
        else:
            inside[name] = deepcopy(chance.choice(ODD))
        return record


@views
def test_no_shape_of_a_record_stops_the_view(log: SimpleNamespace, view: str):
    """It is taken, or it is a dead letter; what comes behind it is taken."""
    chance, outcomes = random.Random(11), []
    for _ in range(500):
        whole = chance.choice(log.once())
        odd = log.message(broken({"key": -1, "partitionId": 1, "position": 1} | json.loads(whole[1]), chance), key=b"?")
        one = log.pipeline(view, log.Store())
        told, _ = one.accept([odd, whole], log.Store())
        assert told[1].fate is not Fate.DEAD
        outcomes.append(told[0].fate)
    assert {Fate.DEAD, Fate.TAKEN} <= set(outcomes)


@pytest.mark.parametrize("key", [b'{"partitionId":1,"position":' + b"9" * 5000 + b"}", b"\xff", b"", None])
def test_a_key_that_is_none_of_the_engine_is_not_believed(log: SimpleNamespace, key: bytes | None):
    one, (_, value) = log.pipeline("audit", log.Store()), log.once()[0]
    outcomes, _ = one.accept([(key, value), (key, value)], log.Store())
    assert [outcome.fate for outcome in outcomes] == [Fate.TAKEN, Fate.SEEN]


# --- What the documents tell


def test_a_transfer_tells_parties_money_rail_and_outcome(log: SimpleNamespace):
    transfer = of(log, concept="refuse")
    assert transfer["payer"] == {"idType": "MSISDN", "identifier": "********0001"}
    assert transfer["payee"] == {
        "idType": "CLABE",
        "identifier": "**************7198",
        "name": "L*** V***",
        "bank": "012",
    }
    assert (transfer["amount"], transfer["fee"], transfer["currency"]) == (1200, 350, "MXN")
    assert (transfer["rail"], transfer["direction"], transfer["tenantId"]) == ("rail-stp", "OUTGOING", "acme")
    assert (transfer["state"], transfer["outcome"], transfer["reason"]) == ("ABORTED", "REJECTED", "scheme-rejected")
    assert (transfer["processState"], transfer["currentSteps"]) == ("COMPLETED", [])


def test_an_outcome_is_what_the_channel_was_told_and_its_history_is_kept(log: SimpleNamespace):  # H3
    transfer = of(log, concept="silent")
    assert [one["outcome"] for one in transfer["outcomes"]] == ["UNKNOWN", "UNKNOWN", "CANCELLED"]
    assert (transfer["state"], transfer["reason"]) == ("ABORTED", "operator")


def test_a_stuck_transfer_shows_where_it_stands_and_what_is_open(log: SimpleNamespace):
    transfer = of(log, processState="ACTIVE")
    assert (transfer["state"], transfer["currentSteps"]) == ("PENDING", ["claim-payment"])
    assert (transfer["attempts"], transfer["incidents"]) == (2, 2)
    assert transfer["amount"] == 900  # what an operator set; it had come as text
    (still_open,) = transfer["openIncidents"]
    incidents = log.straight("operations").bodies("incidents").values()
    (incident,) = (one for one in incidents if one["state"] == "OPEN")
    assert incident["incidentKey"] == still_open
    assert (incident["paymentId"], incident["elementId"]) == (transfer["paymentId"], "claim-payment")
    assert sorted(one["state"] for one in incidents) == ["OPEN", "RESOLVED", "RESOLVED"]


def test_a_called_process_belongs_to_the_same_transfer(log: SimpleNamespace):
    transfer = of(log, concept="cancel")
    steps = [one for one in log.straight("operations").bodies("steps").values() if one["bpmnProcessId"] == "rail-stp"]
    (sent,) = (one for one in steps if one["elementId"] == "send-order" and one["paymentId"] == transfer["paymentId"])
    assert sent["processInstanceKey"] in transfer["instanceKeys"]
    assert sent["rootInstanceKey"] == transfer["processInstanceKey"]
    assert (sent["jobType"], sent["state"], sent["attempts"]) == ("stp.send-order", "COMPLETED", 1)


def test_a_variable_keeps_its_history(log: SimpleNamespace):
    transfer = of(log, processState="ACTIVE")
    root = log.straight("operations").bodies("steps")[f"1-{transfer['processInstanceKey']}"]
    amount = root["variables"]["amount"]
    assert (amount["value"], amount["changes"]) == ("900", 2)
    assert [one["value"] for one in amount["history"]] == ['"ten"']
    assert "amount=900" in root["variableTerms"]


def test_a_drawing_is_kept_per_version_with_its_xml(log: SimpleNamespace):
    drawings = log.straight("operations").bodies("processes").values()
    assert {one["bpmnProcessId"] for one in drawings} >= {"payer-transfer", "rail-stp", "rail-on-us"}
    assert all("<bpmn:process" in one["xml"] for one in drawings)


def test_an_audit_document_has_the_columns_that_operators_search(log: SimpleNamespace):  # H15
    transfer = of(log, concept="cancel")
    found = [one for one in log.straight("audit").bodies("audit").values() if one.get("elementId") == "send-order"]
    (done,) = (
        one
        for one in found
        if (one["valueType"], one["intent"]) == ("JOB", "COMPLETED") and one["paymentId"] == transfer["paymentId"]
    )
    assert (done["recordType"], done["tenantId"], done["jobType"]) == ("EVENT", "acme", "stp.send-order")
    assert isinstance(done["key"], str)
    element = next(one for one in found if one["valueType"] == "PROCESS_INSTANCE")
    assert element["elementType"] == "SERVICE_TASK"
    assert element["@timestamp"].endswith("Z")


@views
def test_every_field_of_a_document_is_in_the_strict_mapping(log: SimpleNamespace, view: str):
    for family, properties in VIEWS[view].families.items():
        for body in log.straight(view).bodies(family).values():
            assert body.keys() <= properties.keys(), family
            for side in {"payer", "payee"} & body.keys():
                assert body[side].keys() <= properties[side]["properties"].keys()


@views
def test_no_document_holds_what_tells_who_somebody_is(log: SimpleNamespace, view: str):
    everything = b"\n".join(body for _, body in log.straight(view).kept.values()).decode()
    sent = b"".join(value for _, value in log.once()).decode()
    for personal in ("525511110001", "525511110002", "012180001183597198", "Luis Vega", "Bruno", "Ana T", "TOAA800101"):
        assert personal.encode("ascii", "backslashreplace").decode() in sent
        assert personal not in everything
