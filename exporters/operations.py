"""The operations view: what operators see, folded from the engine's records into full-state documents.

    transfers      one per payment: parties, money, rail, outcome, where it stands, what is open
    steps          one per element instance, process instances included, each with its own variables and their history
    incidents      one per incident
    disbursements  one per disbursement of a store: whose, why, how much, how it ended
    links          one per pair of payments of which a process of the one names the other
    processes      one per deployed version of a drawing, with its XML

Each document is a function of its own records in their order. It carries the version of the last of them and refuses
whatever is not newer, so reading records again changes nothing. For that a record may look at nothing but the document
it changes and at identities, which never change (`exporters.directory`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, Final, TypeAlias

from pydantic_core import from_json

from exporters.directory import Directory, Identity, instance_key, is_call, is_start, started_by
from exporters.documents import Body, Document, Documents, Ref
from exporters.privacy import mask, mask_identifier, mask_json, mask_name, mask_text, search_digest
from exporters.record import SEEN, TAKEN, Fate, Outcome, Record
from hub.transfer import STATE_OF, IdentifierType, Reason, TransferState
from hub.transfer import Outcome as TransferOutcome

TRANSFERS: Final = "transfers"
STEPS: Final = "steps"
INCIDENTS: Final = "incidents"
PROCESSES: Final = "processes"
DISBURSEMENTS: Final = "disbursements"
LINKS: Final = "links"
BATCHES: Final = "batches"
"""Of a later stage: nothing is folded into it yet."""
DIRECTORY: Final = "operations-directory"

HISTORY: Final = 20
"""Earlier values kept of a variable; a payment that asks for its order every minute would grow without end."""

_DIRECTIONS: Final = {"payer-transfer": "OUTGOING", "payee-transfer": "INCOMING", "disbursement": "OUTGOING"}
_DISBURSEMENT: Final = "disbursement"
_DISBURSES: Final = frozenset({_DISBURSEMENT, "late-return"})
"""Processes that change a disbursement; a late return does when there is one, and never begins it."""
_RECORDS_DISBURSEMENT: Final = "disbursement.record-outcome"
_RECORDS_OUTCOME: Final[Mapping[str, TransferOutcome | None]] = {
    "channel.record-outcome": None,
    _RECORDS_DISBURSEMENT: None,
    "stp.refuse-deposit": None,
    "stp.confirm-deposit": TransferOutcome.SETTLED,
    "stp.return-deposit": TransferOutcome.RETURNED,
}
"""Jobs that say how a payment ended: as the process's own variables have it, or each time in the same way."""
_DEPOSIT: Final = "payee-transfer"
_LINKS: Final = {"linked_payment_id": "GIVES_BACK_BY", "original_payment_id": "GIVES_BACK"}
"""Variables that name another payment, and what that one is to this."""
_COLLECTED: Final = frozenset({"amount", "currency", "next_step", "payee", "concept"})
"""What a disbursement's process learns when it collects what is pending; what it began with names only the store."""
NOTHING_TO_PAY: Final = "nothing-to-pay"
"""The reason that is shown of a disbursement which never became a payment. No process gives it."""
_OUTCOME: Final = frozenset({"outcome", "reason", "reason_detail"})
_SHOWN: Final[Mapping[str, tuple[str, type]]] = {
    "amount": ("amount", int),
    "fee": ("fee", int),
    "tracking_key": ("trackingKey", str),
    "order_state": ("orderState", str),
}
"""Variables of a process that its transfer shows: under which name, and of which type they have to be."""
_CONTAINERS: Final = frozenset({"PROCESS", "CALL_ACTIVITY", "SUB_PROCESS", "MULTI_INSTANCE_BODY"})
_ELEMENT_ENDS: Final = {"ELEMENT_COMPLETED": "COMPLETED", "ELEMENT_TERMINATED": "TERMINATED"}
_ELEMENT_CHANGES: Final = frozenset(
    {"ELEMENT_ACTIVATING", "ELEMENT_ACTIVATED", "ELEMENT_MIGRATED", "SEQUENCE_FLOW_TAKEN", *_ELEMENT_ENDS}
)
_MOVES_TRANSFER: Final = frozenset({"ELEMENT_ACTIVATED", *_ELEMENT_ENDS})
"""What of an element inside of a process changes where its transfer stands."""
_JOB_CHANGES: Final = frozenset(
    {"CREATED", "COMPLETED", "FAILED", "TIMED_OUT", "ERROR_THROWN", "RETRIES_UPDATED", "CANCELED", "MIGRATED"}
)
_TRIED: Final = frozenset({"FAILED", "TIMED_OUT"})

Change: TypeAlias = Callable[[Record, Identity | None], bool]
Begin: TypeAlias = Callable[[Record, Identity | None], Body]
"""What makes a document's first form; most records find it begun."""


class OperationsFold:
    """Folds records into documents. `exporters.record.Stage` for records; `documents.changed()` has what to write."""

    def __init__(self, documents: Documents, search_secret: bytes = b"") -> None:
        self.documents: Final = documents
        self._directory = Directory(documents, DIRECTORY)
        self._secret = search_secret
        self._unreadable: dict[int, str] = {}
        """Versions of the batch's records that do not even tell which documents they change, and what they lack."""
        self._changes: Final[Mapping[str, tuple[frozenset[str], Change]]] = {
            "MESSAGE_START_EVENT_SUBSCRIPTION": (frozenset({"CORRELATED"}), self._started),
            "PROCESS_INSTANCE_CREATION": (frozenset({"CREATED"}), self._started),
            "PROCESS_INSTANCE": (_ELEMENT_CHANGES, self._element),
            "VARIABLE": (frozenset({"CREATED", "UPDATED"}), self._variable),
            "JOB": (_JOB_CHANGES, self._job),
            "INCIDENT": (frozenset({"CREATED", "RESOLVED", "MIGRATED"}), self._incident),
            "PROCESS": (frozenset({"CREATED", "DELETED"}), self._process),
        }

    def accept(self, batch: Sequence[Record]) -> list[Outcome]:
        """`SEEN` is what changes no document, because it was there already or because operators do not need it."""
        concerned = [self._concerns(record) for record in batch]
        relevant = list(compress(batch, concerned))
        self._directory.prepare(relevant)
        self.documents.load(self._needed(relevant))
        return [self._one(record) if concerns else SEEN for record, concerns in zip(batch, concerned, strict=True)]

    @staticmethod
    def shown(document: Document) -> Body:
        """A document as it is written: the terms by which a step is found are made of its variables."""
        variables = document.body.get("variables")
        if document.ref.family != STEPS or not variables:
            return document.body
        return document.body | {"variableTerms": [f"{name}={one['value']}"[:256] for name, one in variables.items()]}

    def _concerns(self, record: Record) -> bool:
        found = self._changes.get(record.value_type)
        return found is not None and record.intent in found[0] and record.record_type == "EVENT"

    def _one(self, record: Record) -> Outcome:
        if record.version in self._unreadable:
            return Outcome(Fate.DEAD, f"cannot be folded: {self._unreadable[record.version]}")
        try:
            identity = self._directory.identity_of(record)
            return TAKEN if self._changes[record.value_type][1](record, identity) else SEEN
        except Exception as error:  # noqa: BLE001 -- one record must never stop the view
            return Outcome(Fate.DEAD, f"cannot be folded: {type(error).__name__}")

    def _needed(self, batch: Sequence[Record]) -> Iterable[Ref]:
        """The documents that a batch continues: those it begins itself need not be read."""
        begun: set[Ref] = set()
        starting: dict[str, Identity] = {}
        self._unreadable.clear()
        for record in batch:
            try:
                needed = self._needed_by(record, starting)
            except (KeyError, TypeError, AttributeError) as error:
                self._unreadable[record.version] = type(error).__name__
                continue
            for ref in needed:
                if _begins(record, ref):
                    begun.add(ref)
                elif ref not in begun:
                    yield ref

    def _needed_by(self, record: Record, starting: dict[str, Identity]) -> list[Ref]:
        key = instance_key(record)
        if is_start(record):
            starting[record.id_of(key)] = started_by(record)
        elif is_call(record) and (
            caller := self._identity(record, starting, instance_key(record, "parentProcessInstanceKey"))
        ):
            starting[record.id_of(key)] = caller
        needed = self._touched(record)
        if (transfer := transfer_ref(self._identity(record, starting, key))) is not None:
            needed.append(transfer)
            if record.value.get("bpmnProcessId") in _DISBURSES:
                needed.append(Ref(DISBURSEMENTS, transfer.id))
        return needed

    def _identity(self, record: Record, starting: Mapping[str, Identity], key: int) -> Identity | None:
        return starting.get(record.id_of(key)) or self._directory.known(record, key)

    @staticmethod
    def _touched(record: Record) -> list[Ref]:
        kind = record.value_type
        if kind == "PROCESS_INSTANCE":
            flow = record.intent == "SEQUENCE_FLOW_TAKEN"
            return [Ref(STEPS, record.id_of(instance_key(record, "flowScopeKey") if flow else record.key))]
        if kind == "VARIABLE":
            touched = [Ref(STEPS, record.id_of(instance_key(record, "scopeKey")))]
            if record.value.get("name") in _LINKS:
                touched.append(Ref(LINKS, record.id_of(record.key)))
            return touched
        if kind == "JOB":
            return [Ref(STEPS, record.id_of(instance_key(record, "elementInstanceKey")))]
        if kind == "INCIDENT":
            step = Ref(STEPS, record.id_of(instance_key(record, "elementInstanceKey")))
            return [Ref(INCIDENTS, record.id_of(record.key)), step]
        return [Ref(PROCESSES, record.id_of(record.key))] if kind == "PROCESS" else []

    # --- One document and one record

    def _change(
        self, ref: Ref, record: Record, identity: Identity | None, begin: Begin, change: Callable[[Body], None]
    ) -> bool:
        """Change a document, or begin it, unless it has this record already."""
        body = self.documents.get(ref)
        if body is None:
            body = {"partitionId": record.partition, **begin(record, identity)}
        elif body["position"] >= record.version:
            return False
        change(body)
        body["position"] = record.version
        body["updatedAt"] = record.at
        self.documents.put(ref, body, record.version)
        return True

    def _change_transfer(self, record: Record, identity: Identity | None, change: Callable[[Body], None]) -> bool:
        ref = transfer_ref(identity)
        if ref is None:
            return False
        return self._change(ref, record, identity, _new_transfer, change)

    # --- Process instances and their elements

    def _started(self, record: Record, identity: Identity | None) -> bool:
        if identity is None:
            return False
        value = record.value
        variables: dict[str, Any] = value.get("variables") or {}

        def begin(transfer: Body) -> None:
            self._add_instance(transfer, record)
            if "processInstanceKey" not in transfer and value["bpmnProcessId"] in _DIRECTIONS:
                transfer["acceptedAt"] = record.at
                self._name_transfer(transfer, record, variables)

        if value["bpmnProcessId"] == _DISBURSEMENT:
            self._change_disbursement(record, identity, lambda body: _name_disbursement(body, record), begins=True)
        return self._change_transfer(record, identity, begin)

    def _change_disbursement(
        self, record: Record, identity: Identity | None, change: Callable[[Body], None], *, begins: bool = False
    ) -> None:
        """Change the disbursement that an instance carries out, if it does; only its own start begins one."""
        transfer = transfer_ref(identity)
        if transfer is None or record.value.get("bpmnProcessId") not in _DISBURSES:
            return
        ref = Ref(DISBURSEMENTS, transfer.id)
        if begins or self.documents.get(ref) is not None:
            self._change(ref, record, identity, _new_disbursement, change)

    def _name_transfer(self, transfer: Body, record: Record, variables: Mapping[str, Any]) -> None:
        process = record.value["bpmnProcessId"]
        transfer["processInstanceKey"] = str(record.value["processInstanceKey"])
        transfer["processId"] = process
        transfer["processDefinitionKey"] = str(record.value["processDefinitionKey"])
        transfer["direction"] = _DIRECTIONS[process]
        transfer["processState"] = "ACTIVE"
        amount, currency = variables.get("amount"), variables.get("currency")
        if type(amount) is int:
            transfer["amount"] = amount
        if isinstance(currency, str):
            transfer["currency"] = currency
        if isinstance(concept := variables.get("concept"), str):
            transfer["concept"] = mask_text(concept)
        if type(number := variables.get("reference_number")) is int:
            transfer["referenceNumber"] = str(number)
        for side in ("payer", "payee"):
            if isinstance(party := variables.get(side), dict):
                transfer[side] = self._party(party)

    def _party(self, party: Mapping[str, Any]) -> Body:
        """A party as a view may show it: masked, found by the digest of its whole identifier."""
        identifier = str(party.get("identifier", ""))
        shown: Body = {"idType": str(party.get("id_type", "")), "identifier": mask_identifier(identifier)}
        if isinstance(name := party.get("name"), str):
            shown["name"] = mask_name(name)
        if shown["idType"] == IdentifierType.CLABE:
            shown["bank"] = identifier[:3]
        if self._secret:
            shown["digest"] = search_digest(self._secret, identifier)
        return shown

    @staticmethod
    def _add_instance(transfer: Body, record: Record) -> None:
        value, key = record.value, str(record.value["processInstanceKey"])
        if key in transfer["instances"]:
            return
        parent = value.get("parentProcessInstanceKey", -1)
        transfer["instanceKeys"].append(key)
        transfer["instances"][key] = {
            "processId": value["bpmnProcessId"],
            "definitionKey": str(value["processDefinitionKey"]),
            "parentKey": str(parent) if parent > 0 else None,
            "state": "ACTIVE",
            "startedAt": record.at,
        }
        if value["bpmnProcessId"].startswith("rail-"):
            transfer["rail"] = value["bpmnProcessId"]

    def _element(self, record: Record, identity: Identity | None) -> bool:
        step = Ref(STEPS, record.id_of(record.key))
        if record.intent == "SEQUENCE_FLOW_TAKEN":
            scope = Ref(STEPS, record.id_of(record.value["flowScopeKey"]))
            return self._change(scope, record, identity, _new_scope, lambda body: _take_flow(body, record))
        changed = self._change(step, record, identity, _new_step, lambda body: _move_step(body, record, identity))
        if record.intent not in _MOVES_TRANSFER and record.value["bpmnElementType"] != "PROCESS":
            return changed
        if record.intent in _ELEMENT_ENDS:
            self._change_disbursement(record, identity, lambda body: _end_on_disbursement(body, record))
        return self._change_transfer(record, identity, lambda body: self._move_transfer(body, record)) or changed

    def _move_transfer(self, transfer: Body, record: Record) -> None:
        value, key = record.value, str(record.key)
        kind, active = value["bpmnElementType"], transfer["fold"]["active"]
        if kind == "PROCESS":
            self._add_instance(transfer, record)
            instance = transfer["instances"][key]
            instance["version"] = value["version"]
            if ended := _ELEMENT_ENDS.get(record.intent):
                instance["state"], instance["endedAt"] = ended, record.at
                told = transfer["fold"]["outcomes"].pop(key, {})
                if instance["processId"] == _DEPOSIT and ended == "COMPLETED":
                    _decided_by_operator(transfer, told, record.at)
            if key == transfer.get("processInstanceKey"):
                transfer["processVersion"] = value["version"]
                transfer["processDefinitionKey"] = str(value["processDefinitionKey"])
                transfer["processState"] = instance["state"]
                if "endedAt" in instance:
                    transfer["endedAt"] = instance["endedAt"]
        elif record.intent == "ELEMENT_ACTIVATED" and kind not in _CONTAINERS:
            active[key] = value["elementId"]
            transfer["currentStep"] = value["elementId"]
        elif record.intent in _ELEMENT_ENDS:
            active.pop(key, None)
            transfer["fold"]["outcomes"].pop(key, None)
        transfer["currentSteps"] = list(dict.fromkeys(active.values()))

    # --- Variables

    def _variable(self, record: Record, identity: Identity | None) -> bool:
        value = record.value
        step = Ref(STEPS, record.id_of(value["scopeKey"]))
        changed = self._change(step, record, identity, _new_scope, lambda body: _set_variable(body, record))
        name = value["name"]
        collected = _is_collected(record)
        if name in _OUTCOME or collected:
            self._change_disbursement(record, identity, lambda body: _set_on_disbursement(body, record))
        if name in _LINKS and identity is not None and isinstance(other := from_json(value["value"]), str):
            link = Ref(LINKS, record.id_of(record.key))
            self._change(link, record, identity, _new_link, lambda body: _point_link(body, other))
        if collected:
            return self._change_transfer(record, identity, lambda body: self._collect(body, record)) or changed
        if name not in _OUTCOME and name not in _SHOWN and name != "duplicate":
            return changed
        return self._change_transfer(record, identity, lambda body: _set_on_transfer(body, record)) or changed

    def _collect(self, transfer: Body, record: Record) -> None:
        name, value = record.value["name"], from_json(record.value["value"])
        if name == "payee" and isinstance(value, dict):
            transfer["payee"] = self._party(value)
        elif name == "concept" and isinstance(value, str):
            transfer["concept"] = mask_text(value)
        else:
            _collect(transfer, record)

    # --- Jobs

    def _job(self, record: Record, identity: Identity | None) -> bool:
        value = record.value
        step = Ref(STEPS, record.id_of(value["elementInstanceKey"]))
        changed = self._change(step, record, identity, _new_step, lambda body: _move_job(body, record))
        if record.intent in _TRIED:
            return self._change_transfer(record, identity, _count_attempt) or changed
        if record.intent == "COMPLETED" and value["type"] in _RECORDS_OUTCOME:
            always = _RECORDS_OUTCOME[value["type"]]
            if value["type"] == _RECORDS_DISBURSEMENT:
                self._change_disbursement(record, identity, lambda body: _record_outcome(body, record))
            return (
                self._change_transfer(record, identity, lambda body: _record_outcome(body, record, always)) or changed
            )
        return changed

    # --- Incidents

    def _incident(self, record: Record, identity: Identity | None) -> bool:
        ref = Ref(INCIDENTS, record.id_of(record.key))
        changed = self._change(ref, record, identity, _new_incident, lambda body: _move_incident(body, record))
        step = Ref(STEPS, record.id_of(record.value["elementInstanceKey"]))
        self._change(step, record, identity, _new_step, lambda body: _note_incident(body, record))
        self._change_transfer(record, identity, lambda body: _count_incident(body, record))
        return changed

    # --- Drawings

    def _process(self, record: Record, identity: Identity | None) -> bool:
        value = record.value

        def change(body: Body) -> None:
            body["deleted"] = record.intent == "DELETED"
            if value.get("resource"):
                body["xml"] = _drawing(value["resource"])

        return self._change(Ref(PROCESSES, record.id_of(record.key)), record, identity, _new_process, change)


def _begins(record: Record, ref: Ref) -> bool:
    """Whether a record is the first of a document. Of a process it is none: variables may come before it."""
    if ref.family in {INCIDENTS, LINKS}:
        return record.intent == "CREATED"
    return (
        ref.family == STEPS
        and record.intent == "ELEMENT_ACTIVATING"
        and record.value.get("bpmnElementType") != "PROCESS"
    )


def transfer_ref(identity: Identity | None) -> Ref | None:
    """The transfer that the records of an instance are folded into, if any."""
    if identity is None or not identity.own or identity.payment_id is None:
        return None
    return Ref(TRANSFERS, identity.payment_id)


def _drawing(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("the drawing cannot be read") from error


def _owner(record: Record, identity: Identity | None) -> Body:
    owner: Body = {
        "processInstanceKey": str(record.value["processInstanceKey"]),
        "bpmnProcessId": record.value.get("bpmnProcessId", ""),
    }
    if identity is not None:
        owner |= {
            "paymentId": identity.payment_id,
            "tenantId": identity.tenant_id,
            "rootInstanceKey": identity.root_key,
        }
    return owner


def _new_transfer(record: Record, identity: Identity | None) -> Body:  # noqa: ARG001
    assert identity is not None  # noqa: S101 -- there is no transfer without one
    return {
        "paymentId": identity.payment_id,
        "tenantId": identity.tenant_id,
        "state": TransferState.PENDING.value,
        "instanceKeys": [],
        "currentSteps": [],
        "attempts": 0,
        "incidents": 0,
        "openIncidents": [],
        "instances": {},
        "outcomes": [],
        "fold": {"active": {}, "outcomes": {}},
    }


def _new_disbursement(record: Record, identity: Identity | None) -> Body:
    assert identity is not None  # noqa: S101 -- there is no disbursement without one
    return {
        "paymentId": identity.payment_id,
        "tenantId": identity.tenant_id,
        "processInstanceKey": str(record.value["processInstanceKey"]),
        "state": TransferState.PENDING.value,
        "processState": "ACTIVE",
        "startedAt": record.at,
        "outcomes": [],
        "fold": {"outcomes": {}},
    }


def _name_disbursement(disbursement: Body, record: Record) -> None:
    variables: Mapping[str, Any] = record.value.get("variables") or {}
    for variable, column in (("store_id", "storeId"), ("trigger", "trigger"), ("run_id", "runId")):
        if isinstance(value := variables.get(variable), str):
            disbursement[column] = value


def _set_on_disbursement(disbursement: Body, record: Record) -> None:
    name, scope = record.value["name"], str(record.value["scopeKey"])
    if name in _OUTCOME:
        disbursement["fold"]["outcomes"].setdefault(scope, {})[name] = _plain(record.value["value"])
        return
    _collect(disbursement, record)
    if step := disbursement["fold"]["collected"].get(disbursement["processInstanceKey"], {}).get("next_step"):
        disbursement["nextStep"] = step


def _is_collected(record: Record) -> bool:
    """Whether a variable is one of those that a disbursement's own process collects."""
    value = record.value
    own = value["scopeKey"] == value["processInstanceKey"]
    return own and value["bpmnProcessId"] == _DISBURSEMENT and value["name"] in _COLLECTED


def _collect(body: Body, record: Record) -> None:
    """Money that an instance collected, on its transfer or its disbursement.

    Of a payment's instances only one ever gets the money; one that gets none found nothing to pay, or another has it.
    With money and nothing left to do, somebody cancelled it while it waited: no order was sent, and no job says so.
    """
    key = str(record.value["processInstanceKey"])
    found = body["fold"].setdefault("collected", {}).setdefault(key, {})
    if (name := record.value["name"]) in {"amount", "currency", "next_step"}:
        found[name] = _plain(record.value["value"])
    amount = found.get("amount")
    if type(amount) is not int:
        return
    if amount > 0:
        _carried_out_by(body, key)
        body["amount"], body["currency"] = amount, found.get("currency")
        if found.get("next_step") == "nothing":
            _come_to(body, TransferOutcome.CANCELLED, Reason.OPERATOR.value, record.at)
    elif key == body.get("processInstanceKey"):
        body |= {"amount": 0, "state": TransferState.ABORTED.value, "reason": NOTHING_TO_PAY}


def _carried_out_by(body: Body, key: str) -> None:
    if body.get("processInstanceKey") == key:
        return
    instance: Body = body.get("instances", {}).get(key, {})
    body["processInstanceKey"], body["processState"] = key, instance.get("state", "ACTIVE")
    body["state"], body["reason"] = TransferState.PENDING.value, None
    body.pop("endedAt", None)


def _end_on_disbursement(disbursement: Body, record: Record) -> None:
    disbursement["fold"]["outcomes"].pop(str(record.key), None)
    if str(record.key) == disbursement["processInstanceKey"]:
        disbursement["processState"], disbursement["endedAt"] = _ELEMENT_ENDS[record.intent], record.at


def _new_link(record: Record, identity: Identity | None) -> Body:
    return {**_owner(record, identity), "relation": _LINKS[record.value["name"]]}


def _point_link(link: Body, other: str) -> None:
    link["linkedPaymentId"] = other[:200]


def _new_incident(record: Record, identity: Identity | None) -> Body:
    return {**_owner(record, identity), "incidentKey": str(record.key), "createdAt": record.at}


def _new_process(record: Record, identity: Identity | None) -> Body:  # noqa: ARG001
    value = record.value
    return {
        "processDefinitionKey": str(record.key),
        "bpmnProcessId": value["bpmnProcessId"],
        "version": value["version"],
        "resourceName": value["resourceName"],
        "checksum": value["checksum"],
        "deployedAt": record.at,
    }


def _new_step(record: Record, identity: Identity | None) -> Body:
    """A step as its first record shows it."""
    value = record.value
    step = _owner(record, identity)
    if record.value_type == "PROCESS_INSTANCE":
        step["elementInstanceKey"] = str(record.key)
        step["elementType"] = value["bpmnElementType"]
        step["flowScopeKey"] = str(value["flowScopeKey"])
    else:
        step["elementInstanceKey"] = str(value["elementInstanceKey"])
    if "elementId" in value:
        step["elementId"] = value["elementId"]
    return step | {"state": "ACTIVATING", "attempts": 0, "variables": {}, "variableTerms": []}


def _new_scope(record: Record, identity: Identity | None) -> Body:
    """A step of which the first record says only that something happened inside of it."""
    scope = "scopeKey" if record.value_type == "VARIABLE" else "flowScopeKey"
    step = _owner(record, identity)
    step["elementInstanceKey"] = str(record.value[scope])
    return step | {"state": "ACTIVATING", "attempts": 0, "variables": {}, "variableTerms": []}


def _take_flow(scope: Body, record: Record) -> None:
    flows: dict[str, int] = scope.setdefault("flows", {})
    flow = record.value["elementId"]
    flows[flow] = flows.get(flow, 0) + 1


def _move_step(step: Body, record: Record, identity: Identity | None) -> None:
    value, intent = record.value, record.intent
    if "processVersion" not in step or intent == "ELEMENT_MIGRATED":  # what else never changes
        step |= _owner(record, identity)
        step["elementId"], step["elementType"] = value["elementId"], value["bpmnElementType"]
        step["flowScopeKey"] = str(value["flowScopeKey"])
        step["processVersion"] = value["version"]
        step["processDefinitionKey"] = str(value["processDefinitionKey"])
        if value["parentProcessInstanceKey"] > 0:
            step["parentProcessInstanceKey"] = str(value["parentProcessInstanceKey"])
    if intent == "ELEMENT_ACTIVATING":
        step["startedAt"] = record.at
    elif intent == "ELEMENT_ACTIVATED":
        step["state"] = "ACTIVE"
    elif intent in _ELEMENT_ENDS:
        step["state"], step["endedAt"] = _ELEMENT_ENDS[intent], record.at


def _set_variable(step: Body, record: Record) -> None:
    name, text = record.value["name"], mask_json(record.value["name"], record.value["value"])
    variable = step["variables"].get(name)
    if variable is None:
        variable = step["variables"][name] = {"changes": 0, "history": []}
    else:
        earlier = {"value": variable["value"], "at": variable["at"], "position": variable["position"]}
        variable["history"] = [*variable["history"], earlier][-HISTORY:]
    variable["changes"] += 1
    variable |= {"key": str(record.key), "value": text, "at": record.at, "position": record.version}


def _plain(text: str) -> Any:
    value = from_json(text)
    return mask(value) if isinstance(value, (str, int)) else None


def _set_on_transfer(transfer: Body, record: Record) -> None:
    name, scope = record.value["name"], str(record.value["scopeKey"])
    value = _plain(record.value["value"])
    if name in _OUTCOME:
        transfer["fold"]["outcomes"].setdefault(scope, {})[name] = value
    elif name == "duplicate":
        if value is True and scope in transfer["instances"]:
            _leave_to_another(transfer, scope)
    else:
        column, kind = _SHOWN[name]
        if type(value) is kind and scope in transfer["instances"]:
            transfer[column] = value


def _leave_to_another(transfer: Body, instance: str) -> None:
    """The fence found that another instance has this payment: that one is the transfer's."""
    transfer["instances"][instance]["duplicate"] = True
    if transfer.get("processInstanceKey") != instance:
        return
    others = (
        key for key, one in transfer["instances"].items() if one["processId"] in _DIRECTIONS and "duplicate" not in one
    )
    if (other := next(others, None)) is not None:
        transfer["processInstanceKey"] = other
        transfer["processState"] = transfer["instances"][other]["state"]


def _move_job(step: Body, record: Record) -> None:
    value, intent = record.value, record.intent
    step["jobKey"], step["jobType"] = str(record.key), value["type"]
    step["jobState"], step["retries"] = intent, value["retries"]
    if value["worker"]:
        step["worker"] = value["worker"]
    if intent in {"FAILED", "TIMED_OUT", "COMPLETED", "ERROR_THROWN"}:
        step["attempts"] += 1
    if intent in {"FAILED", "ERROR_THROWN"}:
        step["errorMessage"] = mask_text(value["errorMessage"])[:4000]
        step["errorCode"] = value["errorCode"]


def _count_attempt(transfer: Body) -> None:
    transfer["attempts"] += 1


def _record_outcome(transfer: Body, record: Record, always: TransferOutcome | None = None) -> None:
    """The channel was told: that, and nothing a process passed through before, is the payment's outcome."""
    value, scopes = record.value, transfer["fold"]["outcomes"]
    told: Body = {}
    for scope in (str(value["processInstanceKey"]), str(value["elementInstanceKey"])):
        told |= scopes.get(scope, {})
    outcome = always or told.get("outcome")
    if outcome not in set(TransferOutcome):
        return
    if always is TransferOutcome.SETTLED:
        told = {"reason": Reason.NONE.value}
    detail = told.get("reason_detail")
    transfer["reasonDetail"] = None if detail is None else mask_text(str(detail))[:4000]
    _come_to(transfer, TransferOutcome(outcome), told.get("reason"), record.at)


def _decided_by_operator(deposit: Body, told: Body, at: str) -> None:
    """A deposit's process that an operator led to its end tells nobody: what it was told is the outcome.

    Its own refusal comes before the money goes back, and counts only when nothing else does.
    """
    outcome = told.get("outcome")
    if outcome not in set(TransferOutcome) or outcome == deposit.get("outcome"):
        return
    if deposit.get("outcome") is None or outcome != TransferOutcome.REJECTED:
        _come_to(deposit, TransferOutcome(outcome), told.get("reason"), at)


def _come_to(body: Body, outcome: TransferOutcome, reason: str | None, at: str) -> None:
    body |= {"outcome": outcome.value, "reason": reason, "state": STATE_OF[outcome].value, "outcomeAt": at}
    body["outcomes"] = [*body["outcomes"], {"outcome": outcome.value, "reason": reason, "at": at}][-HISTORY:]


def _move_incident(incident: Body, record: Record) -> None:
    value = record.value
    incident["state"] = "RESOLVED" if record.intent == "RESOLVED" else "OPEN"
    incident["errorType"] = value["errorType"]
    incident["errorMessage"] = mask_text(value["errorMessage"])[:4000]
    incident["elementId"] = value["elementId"]
    incident["elementInstanceKey"] = str(value["elementInstanceKey"])
    if value["jobKey"] > 0:
        incident["jobKey"] = str(value["jobKey"])
    if record.intent == "RESOLVED":
        incident["resolvedAt"] = record.at


def _note_incident(step: Body, record: Record) -> None:
    if record.intent == "CREATED":
        step["incidentKey"] = str(record.key)
    elif record.intent == "RESOLVED" and step.get("incidentKey") == str(record.key):
        del step["incidentKey"]


def _count_incident(transfer: Body, record: Record) -> None:
    key, still_open = str(record.key), transfer["openIncidents"]
    if record.intent == "CREATED":
        transfer["incidents"] += 1
        transfer["openIncidents"] = [*still_open, key]
    elif record.intent == "RESOLVED":
        transfer["openIncidents"] = [one for one in still_open if one != key]
