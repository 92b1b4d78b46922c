"""The audit view: every record of the engine as one document, with the columns operators search and nothing personal.

A record of a job or a variable does not say which payment it is about. The record that starts a process instance does;
it is kept in the directory, which is a family of this view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from exporters.directory import Directory, Identity
from exporters.documents import Body, Document, Documents, Ref
from exporters.privacy import mask, mask_json, mask_text
from exporters.record import TAKEN, Fate, Outcome, Record

AUDIT: Final = "audit"
DIRECTORY: Final = "directory"

_PLAIN: Final = frozenset({"PROCESS_INSTANCE", "TIMER", "PROCESS_MESSAGE_SUBSCRIPTION_DELETED"})
"""Value types that hold words of drawings and numbers only."""

_TEXTS: Final = ("errorMessage", "rejectionReason", "failureMessage", "evaluationFailureMessage")
_VARIABLES: Final = ("variables", "customHeaders")
_BULKY: Final = ("resource", "resources", "evaluatedDecisions")


class AuditFold:
    """Makes one document of each record. `exporters.record.Stage` for records."""

    def __init__(self, documents: Documents) -> None:
        self.documents: Final = documents
        self._directory = Directory(documents, DIRECTORY)

    def accept(self, batch: Sequence[Record]) -> list[Outcome]:
        self._directory.prepare(batch)
        return [self._one(record) for record in batch]

    @staticmethod
    def shown(document: Document) -> Body:
        """A document as it is written."""
        return document.body

    def _one(self, record: Record) -> Outcome:
        try:
            identity = self._directory.identity_of(record)
            body = audit_document(record, identity)
        except Exception as error:  # noqa: BLE001 -- one record must never stop the view
            return Outcome(Fate.DEAD, f"cannot be folded: {type(error).__name__}")
        ref = Ref(AUDIT, f"{record.epoch}-{record.partition}-{record.position}")
        self.documents.append(ref, body, record.version)
        return TAKEN


def audit_document(record: Record, identity: Identity | None) -> Body:
    """The document of one record. `source` tells it from operators' acts and callbacks, which have the same columns."""
    value = record.value
    body: Body = {
        "@timestamp": record.at,
        "source": "engine",
        "partitionId": record.partition,
        "position": record.version,
        "sourcePosition": record.source_position,
        "recordType": record.record_type,
        "valueType": record.value_type,
        "intent": record.intent,
        "key": str(record.key),
        "value": masked_value(record),
    }
    if record.rejection_reason:
        body["rejectionType"] = record.rejection_type
        body["rejectionReason"] = mask_text(record.rejection_reason)
    for field, column in _COLUMNS.items():
        found = value.get(field)
        if found is not None and found not in ("", -1):
            body[column] = found if type(found) is str else str(found)
    if identity is not None:
        body["paymentId"] = identity.payment_id
        body["tenantId"] = identity.tenant_id
        body["rootInstanceKey"] = identity.root_key
    else:
        _unowned(record, body)
    if value.get("errorMessage"):
        body["errorMessage"] = mask_text(str(value["errorMessage"]))
    return body


_COLUMNS: Final = {
    "elementId": "elementId",
    "bpmnElementType": "elementType",
    "processInstanceKey": "processInstanceKey",
    "elementInstanceKey": "elementInstanceKey",
    "bpmnProcessId": "bpmnProcessId",
    "type": "jobType",
    "worker": "worker",
    "errorType": "errorType",
    "errorCode": "errorCode",
    "messageName": "messageName",
    "messageId": "messageId",
    "correlationKey": "correlationKey",
}
"""The columns of a record's value: what the engine calls them, and what we do."""


def _unowned(record: Record, body: Body) -> None:
    """Messages belong to no process instance; those of ours carry the payment's id and tenant."""
    variables = record.value.get("variables")
    if isinstance(variables, dict):
        for column, variable in (("paymentId", "payment_id"), ("tenantId", "tenant_id")):
            if isinstance(variables.get(variable), str):
                body[column] = variables[variable]
    if record.value_type == "MESSAGE":
        body["messageName"] = str(record.value.get("name", ""))


def masked_value(record: Record) -> Mapping[str, Any]:
    """The record's own value with personal data masked, and without drawings, which have a family of their own."""
    value = record.value
    if record.value_type in _PLAIN:
        return value
    if record.value_type == "VARIABLE":
        return value | {"value": mask_json(str(value["name"]), str(value["value"]))}
    masked = dict(value)
    for name in _VARIABLES:
        if masked.get(name):
            masked[name] = mask(masked[name])
    for name in _TEXTS:
        if masked.get(name):
            masked[name] = mask_text(str(masked[name]))
    for name in _BULKY:
        if masked.get(name):
            masked[name] = f"left out, {len(masked[name])} long"
    return masked
