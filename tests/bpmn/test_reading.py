"""What the drawings folder says of itself, and what it does with files that are no drawings."""

from __future__ import annotations

import pytest

import bpmn
from bpmn import DrawingError, read_decisions, read_process

HEAD = '<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL">'


def payer_transfer() -> bpmn.Process:
    return next(process for process in bpmn.processes() if process.id == "payer-transfer")


def test_the_folder_holds_one_process_per_file_and_the_table_that_chooses():
    names = [name.removesuffix(".bpmn") for name in bpmn.resources() if name.endswith(".bpmn")]
    assert {"late-return", "payee-transfer", "payer-transfer", "rail-on-us", "rail-stp"} <= set(names)
    assert [process.id for process in bpmn.processes()] == names
    assert [decision.id for decision in bpmn.decisions()] == ["choose-rail"]


def test_a_process_tells_its_jobs_messages_calls_timers_and_ends():
    drawn = payer_transfer()
    assert ("hold-funds", "ams.hold-funds", "960") in {(j.element, j.job_type, j.retries) for j in drawn.jobs}
    assert {(m.message, m.correlation, m.starts) for m in drawn.messages} == {
        ("channel.payment-accepted", None, True),
        ("operator.outcome-decided", "=payment_id", False),
        ("stp.order-status-changed", "=payment_id", False),
    }
    assert {(c.task, c.code) for c in drawn.catches} == {("quote-transfer", None), ("hold-funds", None)}
    assert {(c.element, c.process) for c in drawn.calls} == {("pay-on-us", "rail-on-us"), ("pay-over-stp", "rail-stp")}
    assert [(d.decision, d.result) for d in drawn.decisions] == [("choose-rail", "rail")]
    assert [timer.element for timer in drawn.timers] == ["time-to-ask-again"]
    assert set(drawn.ends) == {"settled", "not-settled", "duplicate"}


def test_a_payment_starts_by_message_only():
    drawn = payer_transfer()
    assert [drawn.nodes[start].event for start in drawn.starts] == ["message"]


def test_the_channel_is_told_before_every_end_but_the_duplicates():
    drawn = payer_transfer()
    tells = {job.element for job in drawn.jobs if job.job_type == "channel.record-outcome"}
    before = {flow.source for end in drawn.ends if end != "duplicate" for flow in drawn.arriving(end)}
    assert before <= tells


def test_an_unknown_outcome_is_the_default_and_never_releases_the_hold():  # H3
    drawn = payer_transfer()
    question = drawn.nodes["what-became-of-the-order"]
    assert drawn.flows[str(question.default)].target == "record-unknown"


@pytest.mark.parametrize(
    "document_type",
    ["<!DOCTYPE a>", '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>', '<!DOCTYPE a [<!ENTITY b "bb">]>'],
)
def test_a_document_type_is_refused_before_an_entity_is_read(document_type):
    text = f"<?xml version='1.0'?>{document_type}{HEAD}</bpmn:definitions>".encode()
    for read in (read_process, read_decisions):
        with pytest.raises(DrawingError, match=r"evil\.bpmn: declares a document type; remove"):
            read("evil.bpmn", text)


def test_a_file_that_is_not_xml_is_refused_with_its_name():
    with pytest.raises(DrawingError, match=r"^half\.bpmn: is not well-formed XML"):
        read_process("half.bpmn", HEAD.encode())


@pytest.mark.parametrize("processes", [0, 2])
def test_a_file_holds_exactly_one_process(processes):
    text = HEAD + '<bpmn:process id="a" />' * processes + "</bpmn:definitions>"
    with pytest.raises(DrawingError, match=f"holds {processes} processes; keep one process per file"):
        read_process("a.bpmn", text.encode())


def test_a_process_without_an_id_is_refused():
    with pytest.raises(DrawingError, match="has no id"):
        read_process("a.bpmn", f"{HEAD}<bpmn:process /></bpmn:definitions>".encode())


def test_a_table_file_without_a_decision_is_refused():
    with pytest.raises(DrawingError, match="holds no decision"):
        read_decisions("a.dmn", b"<definitions />")
