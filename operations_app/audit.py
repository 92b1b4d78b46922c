"""The engine's records and operators' acts, searched side by side: the columns of the audit index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from hub.api import Caller
from operations_app.access import allowed
from operations_app.cursors import MAX_LIMIT, Paging
from operations_app.transfers.filters import Asking, Instant, Word, Words, any_of, within
from operations_app.views import AUDIT, Body, Views
from operations_app.views import Query as Clause
from operations_app.wire import Shown

router = APIRouter(tags=["audit"])
"""Included under `/api/v1`."""

Auditor = Annotated[Caller, Depends(allowed("audit:read"))]

NEWEST_FIRST: Final[Sequence[Mapping[str, Any]]] = (
    {"@timestamp": {"order": "desc"}},
    {"position": {"order": "desc", "missing": "_last"}},
    {"partitionId": {"order": "desc", "missing": "_last"}},
    {"source": {"order": "desc"}},  # acts and callbacks are numbered each for themselves
)


class AuditFilter(Asking):
    """Which records. Different parameters narrow; a parameter that stands twice widens."""

    source: list[Word] = Field([], examples=[["engine"]])
    element_id: Words
    element_type: Words
    record_type: Words
    value_type: Words
    intent: Words
    key: Word | None = None
    payment_id: Word | None = None
    process_instance_key: Word | None = None
    process: Words
    job_type: Words
    worker: Word | None = None
    message_name: Words
    correlation_key: Word | None = None
    error_type: Words
    actor: Word | None = None
    action: Words
    reason_code: Words
    outcome: Words
    request_id: Word | None = None
    at_from: Instant | None = None
    at_to: Instant | None = None
    q: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="Words of an error message, a rejection or a reason."
    )

    def clauses(self) -> list[Clause]:
        found: list[Clause] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            column = _COLUMNS.get(name)
            if column is None or not value:
                continue
            found.append({"terms": {column: value}} if isinstance(value, list) else {"term": {column: value}})
        if self.at_from or self.at_to:
            found.append(within("@timestamp", self.at_from, self.at_to))
        if self.q is not None:
            texts = ("errorMessage", "rejectionReason", "reason")
            found.append(any_of([{"match": {text: {"query": self.q, "operator": "and"}}} for text in texts]))
        return found


_COLUMNS: Final[Mapping[str, str]] = {
    "source": "source",
    "element_id": "elementId",
    "element_type": "elementType",
    "record_type": "recordType",
    "value_type": "valueType",
    "intent": "intent",
    "key": "key",
    "payment_id": "paymentId",
    "process_instance_key": "processInstanceKey",
    "process": "bpmnProcessId",
    "job_type": "jobType",
    "worker": "worker",
    "message_name": "messageName",
    "correlation_key": "correlationKey",
    "error_type": "errorType",
    "actor": "actor",
    "action": "action",
    "reason_code": "reasonCode",
    "outcome": "outcome",
    "request_id": "requestId",
}


class AuditSearch(AuditFilter):
    """Which records, and how many at once."""

    limit: int = Field(50, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(None, max_length=1024, description="`nextCursor` of the page before.")


class AuditRow(Shown):
    """A record of the engine, or an operator's act."""

    at: str
    source: str
    record_type: str | None
    value_type: str | None
    intent: str | None
    key: str | None
    element_id: str | None
    element_type: str | None
    process_id: str | None
    process_instance_key: str | None
    payment_id: str | None
    job_type: str | None
    worker: str | None
    message_name: str | None
    error_type: str | None
    error_message: str | None
    rejection_reason: str | None
    actor: str | None
    action: str | None
    reason_code: str | None
    reason: str | None
    outcome: str | None
    request_id: str | None
    position: str | None
    value: Mapping[str, Any] | None
    """The record's own content, masked."""

    @classmethod
    def of(cls, body: Body) -> Self:
        named = {field: body.get(column) for field, column in _SHOWN.items()}
        position = body.get("position")
        return cls(
            at=body["@timestamp"],
            source=body["source"],
            position=None if position is None else str(position),
            value=_keys_in_text(body.get("value")),
            **named,
        )


_SHOWN: Final[Mapping[str, str]] = {
    **{field: column for field, column in _COLUMNS.items() if field in AuditRow.model_fields and field != "source"},
    "process_id": "bpmnProcessId",
    "error_message": "errorMessage",
    "rejection_reason": "rejectionReason",
    "reason": "reason",
}


def _keys_in_text(value: Any, name: str = "") -> Any:
    """A record's content with the engine's keys as text: as numbers they lose digits in many a reader."""
    if isinstance(value, Mapping):
        return {inner: _keys_in_text(one, str(inner)) for inner, one in value.items()}
    if isinstance(value, list):
        return [_keys_in_text(one, name) for one in value]
    if type(value) is int and (name.endswith(("Key", "Keys")) or abs(value) >= 2**53):
        return str(value)
    return value


class AuditPage(Shown):
    """A page of records, newest first."""

    items: Sequence[AuditRow]
    total: int
    total_exact: bool
    next_cursor: str | None


@router.get("/audit")
async def search_audit(
    request: Request, who: Auditor, cursors: Paging, asked: Annotated[AuditSearch, Query()]
) -> AuditPage:
    """Records of the engine and operators' acts that fit every parameter, newest first."""
    views: Views = request.app.state.views
    page = await views.search(
        AUDIT,
        who.tenant,
        filters=asked.clauses(),
        sort=NEWEST_FIRST,
        size=asked.limit,
        after=cursors.read(request, who, asked.cursor),
    )
    more = len(page.hits) == asked.limit
    return AuditPage(
        items=[AuditRow.of(hit.body) for hit in page.hits],
        total=page.total,
        total_exact=page.exact,
        next_cursor=cursors.write(request, who, page.hits[-1].sort) if more else None,
    )
