"""Each FEEL expression of the drawings, evaluated by the real engine.

The engine deploys an expression with a wrong function name without a word and makes it null when a payment arrives. So
each expression in a picture has its cases here, and none is here that is in no picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest

import bpmn

CASES: dict[str, list[tuple[dict[str, Any], Any]]] = {
    "=duplicate": [({"duplicate": True}, True), ({"duplicate": False}, False)],
    "=payment_id": [({"payment_id": "p"}, "p")],
    '=rail = "stp"': [({"rail": "stp"}, True), ({"rail": "on-us"}, False), ({}, False)],
    '=rail = "on-us"': [({"rail": "on-us"}, True), ({"rail": "none"}, False), ({}, False)],
    '=outcome = "SETTLED"': [({"outcome": "SETTLED"}, True), ({"outcome": "UNKNOWN"}, False), ({}, False)],
    '=list contains(["REJECTED", "RETURNED", "CANCELLED"], outcome)': [
        ({"outcome": "REJECTED"}, True),
        ({"outcome": "RETURNED"}, True),
        ({"outcome": "CANCELLED"}, True),
        ({"outcome": "UNKNOWN"}, False),
        ({"outcome": None}, False),
        ({}, False),
    ],
    "=outcome != null": [({"outcome": "SETTLED"}, True), ({"outcome": None}, False), ({}, False)],
    "=outcome = null and inquiries >= 3": [
        ({"outcome": None, "inquiries": 3}, True),
        ({"outcome": None, "inquiries": 2}, False),
        ({"outcome": "SETTLED", "inquiries": 3}, False),
    ],
    '=duration(get or else(inquire_after, "PT30S"))': [
        ({"inquire_after": "PT5M"}, "PT5M"),
        ({"inquire_after": None}, "PT30S"),
        ({}, "PT30S"),
    ],
    '=duration(get or else(inquire_again_after, "PT1H"))': [
        ({"inquire_again_after": "P1D"}, "P1D"),
        ({"inquire_again_after": None}, "PT1H"),
        ({}, "PT1H"),
    ],
    '=duration(get or else(try_again_after, "P1D"))': [
        ({"try_again_after": "PT5M"}, "PT5M"),
        ({"try_again_after": None}, "P1D"),
        ({}, "P1D"),
    ],
    "=approvals_needed = 0": [({"approvals_needed": 0}, True), ({"approvals_needed": 2}, False), ({}, False)],
    '=decision = "APPROVED"': [({"decision": "APPROVED"}, True), ({"decision": "REJECTED"}, False), ({}, False)],
    '=what_follows = "nothing"': [({"what_follows": "nothing"}, True), ({"what_follows": "look"}, False), ({}, False)],
    '=what_follows = "payment"': [({"what_follows": "payment"}, True), ({"what_follows": "look"}, False), ({}, False)],
    '=what_follows = "recall"': [({"what_follows": "recall"}, True), ({"what_follows": "look"}, False), ({}, False)],
    "=confirmed = true": [({"confirmed": True}, True), ({"confirmed": False}, False), ({"confirmed": None}, False)],
    "=confirmed = false": [({"confirmed": False}, True), ({"confirmed": True}, False), ({"confirmed": None}, False)],
    "=recall_open = false": [({"recall_open": False}, True), ({"recall_open": True}, False), ({}, False)],
    "=action_id": [({"action_id": "a"}, "a")],
    '=duration(get or else(expires_after, "PT4H"))': [
        ({"expires_after": "PT5M"}, "PT5M"),
        ({"expires_after": None}, "PT4H"),
        ({}, "PT4H"),
    ],
    '=duration(get or else(look_again_after, "PT2S"))': [
        ({"look_again_after": "PT5M"}, "PT5M"),
        ({"look_again_after": None}, "PT2S"),
        ({}, "PT2S"),
    ],
    '=duration(get or else(look_for_money_after, "PT1H"))': [
        ({"look_for_money_after": "PT5M"}, "PT5M"),
        ({"look_for_money_after": None}, "PT1H"),
        ({}, "PT1H"),
    ],
    "=give_back = false": [({"give_back": False}, True), ({"give_back": True}, False), ({}, False)],
    "=return_reason": [({"return_reason": "account-closed"}, "account-closed")],
    "=return_detail": [({"return_detail": "cause 3"}, "cause 3"), ({"return_detail": None}, None)],
    '="RETURNED"': [({}, "RETURNED")],
    '=get or else(outcome, "UNKNOWN")': [
        ({"outcome": "RETURNED"}, "RETURNED"),
        ({"outcome": None}, "UNKNOWN"),
        ({}, "UNKNOWN"),
    ],
    '=if outcome = null then "no-answer" else reason': [
        ({"outcome": None, "reason": "none"}, "no-answer"),
        ({"outcome": "SETTLED", "reason": "none"}, "none"),
    ],
    "=outcome": [({"outcome": "SETTLED"}, "SETTLED"), ({}, None)],
    "=reason": [({"reason": "none"}, "none")],
    "=reason_detail": [({"reason_detail": "x"}, "x"), ({"reason_detail": None}, None)],
    "=happened_at": [({"happened_at": "2026-03-01T15:30:00Z"}, "2026-03-01T15:30:00Z"), ({}, None)],
    "=returned_at": [({"returned_at": "2026-03-01T15:30:00Z"}, "2026-03-01T15:30:00Z"), ({}, None)],
    "=inquire_again_after": [({"inquire_again_after": "PT1H"}, "PT1H")],
    "=null": [({}, None)],
    '="0 15 0 * * *"': [({}, "0 15 0 * * *")],
    "=reconciliation_date != null": [
        ({"reconciliation_date": "2026-11-18"}, True),
        ({"reconciliation_date": None}, False),
        ({}, False),
    ],
    "=reconciliations >= 3": [({"reconciliations": 3}, True), ({"reconciliations": 2}, False)],
    "=open_breaks = 0": [({"open_breaks": 0}, True), ({"open_breaks": 4}, False), ({}, False)],
    '=duration(get or else(reconcile_again_after, "P1D"))': [
        ({"reconcile_again_after": "PT1H"}, "PT1H"),
        ({"reconcile_again_after": None}, "P1D"),
        ({}, "P1D"),
    ],
    '=next_step = "confirm"': [({"next_step": "confirm"}, True), ({"next_step": "send"}, False), ({}, False)],
    '=next_step = "send"': [({"next_step": "send"}, True), ({"next_step": "nothing"}, False), ({}, False)],
    '=order_state = "ACCEPTED"': [
        ({"order_state": "ACCEPTED"}, True),
        ({"order_state": "UNKNOWN"}, False),
        ({}, False),
    ],
    '=duration(get or else(confirm_within, "P3D"))': [
        ({"confirm_within": "PT5M"}, "PT5M"),
        ({"confirm_within": None}, "P3D"),
        ({}, "P3D"),
    ],
    '=purpose = "disbursement"': [
        ({"purpose": "disbursement"}, True),
        ({"purpose": "payment"}, False),
        ({"purpose": None}, False),
        ({}, False),
    ],
    '="0 */5 * * * *"': [({}, "0 */5 * * * *")],
    "=run_id != null": [({"run_id": "r"}, True), ({"run_id": None}, False), ({}, False)],
    "=after_store != null": [({"after_store": "s"}, True), ({"after_store": None}, False), ({}, False)],
    "=due": [({"due": [{"store_id": "s"}]}, [{"store_id": "s"}]), ({"due": []}, [])],
    "=true": [({}, True)],
    "=false": [({}, False)],
    "=0": [({}, 0)],
    '="REJECTED"': [({}, "REJECTED")],
    '="no-rail"': [({}, "no-rail")],
    '="UNKNOWN"': [({}, "UNKNOWN")],
    '="no-answer"': [({}, "no-answer")],
}

ONE_EXPRESSION = """<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"
    xmlns:zeebe="http://camunda.org/schema/zeebe/1.0" id="one" targetNamespace="test">
  <bpmn:process id="test-one-expression" isExecutable="true">
    <bpmn:startEvent id="start"><bpmn:outgoing>on</bpmn:outgoing></bpmn:startEvent>
    <bpmn:endEvent id="end">
      <bpmn:extensionElements>
        <zeebe:ioMapping><zeebe:output source={source} target="answer" /></zeebe:ioMapping>
      </bpmn:extensionElements>
      <bpmn:incoming>on</bpmn:incoming>
    </bpmn:endEvent>
    <bpmn:sequenceFlow id="on" sourceRef="start" targetRef="end" />
  </bpmn:process>
</bpmn:definitions>"""


def drawn_expressions() -> Iterator[str]:
    for process in bpmn.processes():
        yield from (flow.condition for flow in process.flows.values() if flow.condition)
        yield from (timer.expression for timer in process.timers)
        yield from (catch.correlation for catch in process.messages if catch.correlation)
        for node in process.nodes.values():
            yield from node.inputs.values()
            yield from node.outputs.values()


def test_every_drawn_expression_has_its_cases_here():
    assert set(drawn_expressions()) == set(CASES)


@pytest.mark.parametrize("expression", sorted(CASES))
async def test_the_engine_understands_the_expression(engine, expression):
    source = f"=string({expression[1:]})" if "duration(" in expression else expression
    await engine.deploy({"one.bpmn": ONE_EXPRESSION.format(source=quoteattr(source)).encode()})
    for variables, expected in CASES[expression]:
        ended = await engine.operate.run_instance("test-one-expression", variables)
        assert ended["answer"] == expected, variables
