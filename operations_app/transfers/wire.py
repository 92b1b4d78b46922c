"""Payments in JSON: built of the views' documents, which hold masked forms only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import ConfigDict
from pydantic.config import JsonDict

from hub.money import Money
from operations_app.views import Body, Found
from operations_app.wire import Amount, Moment, Shown

_ROW: JsonDict = {
    "paymentId": "01a1fd0d-d38f-761d-b195-3c7bf55b647f",
    "state": "COMMITTED",
    "outcome": "SETTLED",
    "reason": "none",
    "direction": "OUTGOING",
    "amount": {"amount": "850.00", "currency": "MXN"},
    "fee": {"amount": "3.50", "currency": "MXN"},
    "payer": {"idType": "MSISDN", "identifier": "********0001"},
    "payee": {"idType": "CLABE", "identifier": "**************7198", "name": "L*** V***", "bank": "012"},
    "rail": "rail-stp",
    "processState": "COMPLETED",
    "currentSteps": [],
    "attempts": 0,
    "openIncidents": [],
    "acceptedAt": "2026-11-21T07:41:44.155Z",
    "endedAt": "2026-11-21T07:42:08.264Z",
}


class PartyShown(Shown):
    """One side of a payment, masked."""

    id_type: str
    identifier: str
    name: str | None = None
    bank: str | None = None
    """The first three digits of a CLABE."""

    @classmethod
    def of(cls, body: Body | None) -> Self | None:
        if body is None:
            return None
        return cls(
            id_type=body.get("idType", ""),
            identifier=body.get("identifier", ""),
            name=body.get("name"),
            bank=body.get("bank"),
        )


class TransferRow(Shown):
    """A payment in a list."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ROW]})

    payment_id: str
    state: str
    outcome: str | None
    reason: str | None
    direction: str | None
    amount: Amount | None
    fee: Amount | None
    payer: PartyShown | None
    payee: PartyShown | None
    rail: str | None
    concept: str | None
    reference_number: str | None
    tracking_key: str | None
    order_state: str | None
    process_id: str | None
    process_instance_key: str | None
    process_state: str | None
    current_step: str | None
    current_steps: list[str]
    attempts: int
    open_incidents: list[str]
    accepted_at: str | None
    outcome_at: str | None
    ended_at: str | None
    updated_at: str | None

    @classmethod
    def of(cls, body: Body, **more: Any) -> Self:
        """From the view's document."""
        return cls(
            payment_id=body["paymentId"],
            state=body["state"],
            amount=money(body.get("amount"), body.get("currency")),
            fee=money(body.get("fee"), body.get("currency")),
            payer=PartyShown.of(body.get("payer")),
            payee=PartyShown.of(body.get("payee")),
            current_steps=body.get("currentSteps", []),
            attempts=body.get("attempts", 0),
            open_incidents=body.get("openIncidents", []),
            **{name: body.get(field) for name, field in _PLAIN.items()},
            **more,
        )


_PLAIN: Mapping[str, str] = {
    "outcome": "outcome",
    "reason": "reason",
    "direction": "direction",
    "rail": "rail",
    "concept": "concept",
    "reference_number": "referenceNumber",
    "tracking_key": "trackingKey",
    "order_state": "orderState",
    "process_id": "processId",
    "process_instance_key": "processInstanceKey",
    "process_state": "processState",
    "current_step": "currentStep",
    "accepted_at": "acceptedAt",
    "outcome_at": "outcomeAt",
    "ended_at": "endedAt",
    "updated_at": "updatedAt",
}


def money(minor: Any, currency: Any) -> Amount | None:
    """Minor units of a document as money; nothing when either is missing."""
    return None if minor is None or currency is None else Amount.of(Money(minor, currency))


class Total(Shown):
    """How many there are."""

    count: int
    exact: bool
    """Otherwise there are more than `count`."""


class TransferPage(Shown):
    """A page of payments."""

    items: list[TransferRow]  # lists are checked twice as fast as sequences, and this is the busiest answer
    total: Total
    next_cursor: str | None


class InstanceShown(Shown):
    """A process instance that runs, or ran, for a payment."""

    process_instance_key: str
    process_id: str
    process_definition_key: str
    version: int | None
    parent_key: str | None
    state: str
    started_at: str
    ended_at: str | None
    duplicate: bool


class OutcomeShown(Shown):
    """An outcome that the channel was told."""

    outcome: str
    reason: str | None
    at: str


class TransferShown(TransferRow):
    """A payment."""

    correlation_id: str | None
    """The channel's `X-CorrelationID`; nothing for a payment that came from a scheme."""
    client_ref_id: str | None
    reason_detail: str | None
    outcomes: Sequence[OutcomeShown]
    incidents: int
    """How many there were, resolved ones included."""
    instances: Sequence[InstanceShown]
    position: str
    """What this answer is true for; the ETag."""


def instances_of(body: Body) -> list[InstanceShown]:
    """The instances of a payment's document, in the order in which they began."""
    shown = [
        InstanceShown(
            process_instance_key=key,
            process_id=one["processId"],
            process_definition_key=one["definitionKey"],
            version=one.get("version"),
            parent_key=one.get("parentKey"),
            state=one["state"],
            started_at=one["startedAt"],
            ended_at=one.get("endedAt"),
            duplicate=bool(one.get("duplicate")),
        )
        for key, one in body.get("instances", {}).items()
    ]
    return sorted(shown, key=lambda one: (one.started_at, one.process_instance_key))


class StepShown(Shown):
    """One element of a process, each time it was come by."""

    element_instance_key: str
    element_id: str | None
    element_type: str | None
    process_instance_key: str
    process_id: str
    scope_key: str | None
    state: str
    started_at: str | None
    ended_at: str | None
    duration_ms: int | None
    """From beginning to end; nothing while it lasts."""
    attempts: int
    retries: int | None
    job_type: str | None
    job_state: str | None
    worker: str | None
    error_code: str | None
    error_message: str | None
    incident_key: str | None

    @classmethod
    def of(cls, hit: Found) -> Self:
        body = hit.body
        began, ended = body.get("startedAt"), body.get("endedAt")
        return cls(
            element_instance_key=body["elementInstanceKey"],
            element_id=body.get("elementId"),
            element_type=body.get("elementType"),
            process_instance_key=body["processInstanceKey"],
            process_id=body["bpmnProcessId"],
            scope_key=body.get("flowScopeKey"),
            state=body["state"],
            started_at=began,
            ended_at=ended,
            duration_ms=_milliseconds(began, ended),
            attempts=body["attempts"],
            retries=body.get("retries"),
            job_type=body.get("jobType"),
            job_state=body.get("jobState"),
            worker=body.get("worker"),
            error_code=body.get("errorCode") or None,
            error_message=body.get("errorMessage"),
            incident_key=body.get("incidentKey"),
        )


def _milliseconds(began: str | None, ended: str | None) -> int | None:
    if began is None or ended is None:
        return None
    return round((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds() * 1000)


class StepPage(Shown):
    """A payment's steps, in the order in which they began."""

    items: Sequence[StepShown]
    next_cursor: str | None


class Earlier(Shown):
    """A value that a variable had before."""

    value: Any
    at: str


class VariableShown(Shown):
    """A variable of a process, masked, with up to twenty earlier values."""

    name: str
    value: Any
    at: str
    changes: int
    history: Sequence[Earlier]
    scope_key: str
    element_id: str | None
    process_instance_key: str
    process_id: str


class VariablePage(Shown):
    """A payment's variables by the scopes they belong to."""

    items: Sequence[VariableShown]
    next_cursor: str | None


def variables_of(hit: Found) -> list[VariableShown]:
    """The variables of one step's own scope."""
    body = hit.body
    return [
        VariableShown(
            name=name,
            value=_read(one["value"]),
            at=one["at"],
            changes=one["changes"],
            history=[Earlier(value=_read(each["value"]), at=each["at"]) for each in one["history"]],
            scope_key=body["elementInstanceKey"],
            element_id=body.get("elementId"),
            process_instance_key=body["processInstanceKey"],
            process_id=body["bpmnProcessId"],
        )
        for name, one in sorted(body.get("variables", {}).items())
    ]


def _read(text: str) -> Any:
    """The engine keeps JSON in text; masking may have left words that are none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


class OrderShown(Shown):
    """An order at STP: the payment's own, or the one that gives a deposit back."""

    kind: str
    tracking_key: str
    amount: Amount
    payee_account: str
    """Its last four digits."""
    sending: str
    sends: int
    state: str
    stp_id: str | None
    cause: int | None
    error_id: int | None
    error_detail: str | None
    claimed_at: Moment
    answered_at: Moment | None
    settled_at: Moment | None


class ObservationShown(Shown):
    """What STP said of an order: in an answer, a callback or when it was asked."""

    source: str
    word: str
    state: str | None
    cause: int | None
    detail: str | None
    happened_at: Moment | None
    observed_at: Moment
    callback_id: str | None


class SchemeCallbackShown(Shown):
    """A callback of STP that concerns a payment; its body is in the callback log."""

    callback_id: str
    kind: str
    times: int
    result: str | None
    received_at: Moment
    last_received_at: Moment
    handled_at: Moment | None


class ChannelCallbackShown(Shown):
    """An outcome that the channel is told by a signed callback."""

    sequence: int
    outcome: str
    reason: str
    url: str
    """Without what follows a question mark."""
    state: str
    attempts: int
    last_answer: str | None
    created_at: Moment
    next_attempt_at: Moment | None
    ended_at: Moment | None


class EngineMessageShown(Shown):
    """A message that a process of the payment received."""

    message_name: str
    message_id: str | None
    element_id: str | None
    process_instance_key: str | None
    at: str


class MessagesShown(Shown):
    """Everything that others said about a payment and that we told others."""

    orders: Sequence[OrderShown]
    observations: Sequence[ObservationShown]
    scheme_callbacks: Sequence[SchemeCallbackShown]
    channel_callbacks: Sequence[ChannelCallbackShown]
    received: Sequence[EngineMessageShown]


class PostingShown(Shown):
    """One row of the book; customers' account numbers are masked."""

    debit: str
    credit: str
    amount: Amount


class EntryShown(Shown):
    """A transaction of the book that belongs to a payment."""

    transaction: str
    operation: str
    kind: str
    booked_at: Moment
    effective_at: Moment
    postings: Sequence[PostingShown]


class EntriesShown(Shown):
    """Everything that was booked for a payment, in order."""

    items: Sequence[EntryShown]
    next_cursor: str | None


class LinkShown(Shown):
    """Something that has to do with a payment: another payment, a process, or an order at the scheme."""

    relation: str
    """What it does: `gives-back` or `given-back-by` (seen from the payment asked for), `late-return`."""
    payment_id: str | None = None
    action_id: str | None = None
    """The operator's action that links them."""
    kind: str | None = None
    state: str | None = None
    money: Amount | None = None
    process_instance_key: str | None = None
    tracking_key: str | None = None


class LinksShown(Shown):
    """What is linked with a payment, both ways."""

    items: Sequence[LinkShown]


class ElementShown(Shown):
    """How often an element of a drawing was come by."""

    element_id: str
    active: int
    completed: int
    terminated: int
    incidents: int


class CallShown(Shown):
    """A process that this one called."""

    process_instance_key: str
    process_id: str
    state: str


class DiagramShown(Shown):
    """Where a process instance stands in the drawing that it was started with."""

    process_instance_key: str
    process_id: str
    process_definition_key: str
    version: int | None
    state: str
    xml: str | None
    """BPMN 2.0 with its diagram; nothing when the drawing was never exported."""
    elements: Sequence[ElementShown]
    flows: Mapping[str, int]
    """Sequence flows by how often they were taken."""
    calls: Sequence[CallShown]
    position: str
