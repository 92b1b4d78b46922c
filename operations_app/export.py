"""Lists to take away: the rows of a search as CSV or as JSON lines, streamed, however many there are.

Each export is written to the operator log before its first row leaves, with what was asked for, and again at its end,
with how many rows went out. No cell begins a formula. Pages are read one after the other in the order of the list, so
memory is bounded; a row that changes meanwhile is taken as it is when its page is read.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from structlog.contextvars import get_contextvars

from exporters.privacy import mask_identifier, mask_text
from hub.api import Caller
from ledger.export import harmless
from operations_app.access import allowed
from operations_app.audit import NEWEST_FIRST as NEWEST_RECORDS
from operations_app.audit import AuditFilter, AuditRow
from operations_app.incidents import NEWEST_FIRST as NEWEST_INCIDENTS
from operations_app.incidents import IncidentFilter, IncidentShown
from operations_app.journal import Act, Journal
from operations_app.transfers.api import LISTED, AnyIds, clauses
from operations_app.transfers.filters import SORTS, Asking, Sort, TransferFilter
from operations_app.transfers.wire import TransferRow
from operations_app.views import AUDIT, INCIDENTS, TRANSFERS, Body, Page, Views
from operations_app.views import Query as Clause
from operations_app.wire import Shown

router = APIRouter(tags=["export"])
"""Included under `/api/v1`."""

PAGE: Final = 1000
"""Rows read at once."""

Form: TypeAlias = Literal["csv", "ndjson"]
_TYPES: Final[Mapping[Form, str]] = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
_PERSONAL: Final = frozenset({"payer", "payee", "party"})
_FREE: Final = frozenset({"q", "id"})
"""What somebody may put anything into."""

Reader = Annotated[Caller, Depends(allowed("transfers:read"))]
Auditor = Annotated[Caller, Depends(allowed("audit:read"))]


class TransferExport(TransferFilter):
    """Which payments, and in which order."""

    sort: Sort = "-acceptedAt"


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that can be taken away: where its rows are, how they look, and what columns they have as CSV."""

    name: str
    family: str
    shown: Callable[[Body], Shown]
    columns: Sequence[str]
    fields: Sequence[str] | None = None


_PARTY: Final = ("idType", "identifier", "name", "bank")
TRANSFERS_LIST: Final = Listing(
    "transfers",
    TRANSFERS,
    TransferRow.of,
    (
        *("paymentId", "state", "outcome", "reason", "direction", "amount.amount", "amount.currency", "fee.amount"),
        *(f"payer.{name}" for name in _PARTY),
        *(f"payee.{name}" for name in _PARTY),
        *("rail", "concept", "referenceNumber", "trackingKey", "orderState", "processId", "processInstanceKey"),
        *("processState", "currentSteps", "attempts", "openIncidents", "acceptedAt", "outcomeAt", "endedAt"),
    ),
    LISTED,
)
INCIDENTS_LIST: Final = Listing(
    "incidents",
    INCIDENTS,
    IncidentShown.of,
    (
        *("incidentKey", "state", "group", "errorClass", "errorType", "errorMessage", "processId", "elementId"),
        *("paymentId", "processInstanceKey", "elementInstanceKey", "jobKey", "createdAt", "resolvedAt"),
    ),
)
AUDIT_LIST: Final = Listing(
    "audit",
    AUDIT,
    AuditRow.of,
    (
        *("at", "source", "recordType", "valueType", "intent", "key", "elementId", "elementType", "processId"),
        *("processInstanceKey", "paymentId", "jobType", "worker", "messageName", "errorType", "errorMessage"),
        *("rejectionReason", "actor", "action", "reasonCode", "reason", "outcome", "requestId", "position"),
    ),
)


def _described(form: Form) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {_TYPES[form]: {}}, "description": "One row per line."}}


@router.get("/transfers.csv", response_class=StreamingResponse, responses=_described("csv"))
async def export_transfers_csv(
    request: Request, who: Reader, ids: AnyIds, asked: Annotated[TransferExport, Query()]
) -> StreamingResponse:
    """The payments of a search as CSV."""
    found = await clauses(request, who, asked, ids)
    return await _Export(request, who, TRANSFERS_LIST, asked).stream("csv", found, SORTS[asked.sort])


@router.get("/transfers.ndjson", response_class=StreamingResponse, responses=_described("ndjson"))
async def export_transfers_ndjson(
    request: Request, who: Reader, ids: AnyIds, asked: Annotated[TransferExport, Query()]
) -> StreamingResponse:
    """The payments of a search as JSON lines."""
    found = await clauses(request, who, asked, ids)
    return await _Export(request, who, TRANSFERS_LIST, asked).stream("ndjson", found, SORTS[asked.sort])


@router.get("/incidents.csv", response_class=StreamingResponse, responses=_described("csv"))
async def export_incidents_csv(
    request: Request, who: Reader, asked: Annotated[IncidentFilter, Query()]
) -> StreamingResponse:
    """The incidents of a search as CSV."""
    return await _Export(request, who, INCIDENTS_LIST, asked).stream("csv", asked.clauses(), NEWEST_INCIDENTS)


@router.get("/audit.csv", response_class=StreamingResponse, responses=_described("csv"))
async def export_audit_csv(request: Request, who: Auditor, asked: Annotated[AuditFilter, Query()]) -> StreamingResponse:
    """The records of a search as CSV, without their contents."""
    return await _Export(request, who, AUDIT_LIST, asked).stream("csv", asked.clauses(), NEWEST_RECORDS)


@router.get("/audit.ndjson", response_class=StreamingResponse, responses=_described("ndjson"))
async def export_audit_ndjson(
    request: Request, who: Auditor, asked: Annotated[AuditFilter, Query()]
) -> StreamingResponse:
    """The records of a search as JSON lines, with their contents."""
    return await _Export(request, who, AUDIT_LIST, asked).stream("ndjson", asked.clauses(), NEWEST_RECORDS)


class _Export:
    """One export, from its first page to its entry in the operator log."""

    def __init__(self, request: Request, who: Caller, listing: Listing, asked: Asking) -> None:
        self._views: Views = request.app.state.views
        self._journal: Journal = request.app.state.journal
        self._who, self._listing = who, listing
        self._asked = {
            name: _masked(name, value)
            for name, value in asked.model_dump(mode="json", by_alias=True, exclude_defaults=True).items()
        }
        self._request_id = get_contextvars().get("request_id")
        self._rows = 0

    async def stream(
        self, form: Form, filters: Sequence[Clause], sort: Sequence[Mapping[str, Any]]
    ) -> StreamingResponse:
        """The answer. Raises `Unavailable` when even its first page cannot be had, or not be written down."""

        async def page(after: Sequence[Any] | None) -> Page:
            return await self._views.search(
                self._listing.family,
                self._who.tenant,
                filters=filters,
                sort=sort,
                size=PAGE,
                after=after,
                fields=self._listing.fields,
                count=False,
            )

        first = await page(None)
        await self._write_down(form, "begun")
        headers = {"Content-Disposition": f'attachment; filename="{self._listing.name}.{form}"'}
        return StreamingResponse(self._lines(form, first, page), media_type=_TYPES[form], headers=headers)

    async def _lines(self, form: Form, page: Page, following: Callable[[Sequence[Any]], Any]) -> AsyncIterator[bytes]:
        outcome = "broken-off"
        try:
            if form == "csv":
                yield _csv([self._listing.columns])
            while True:
                rows = [self._listing.shown(hit.body) for hit in page.hits]
                yield self._piece(form, rows)
                self._rows += len(rows)
                if len(page.hits) < PAGE:
                    break
                page = await following(page.hits[-1].sort)
            outcome = "done"
        finally:
            # The reader may have gone, which cancels us; what went out is written down all the same.
            await asyncio.shield(asyncio.ensure_future(self._write_down(form, outcome)))

    def _piece(self, form: Form, rows: Sequence[Shown]) -> bytes:
        if form == "ndjson":
            return b"".join(row.model_dump_json(by_alias=True).encode() + b"\n" for row in rows)
        return _csv([cells(row.model_dump(mode="json", by_alias=True), self._listing.columns) for row in rows])

    async def _write_down(self, form: Form, outcome: str) -> None:
        await self._journal.append(
            Act(
                tenant_id=self._who.tenant,
                actor=self._who.subject,
                roles=self._who.roles,
                action="list.export",
                target=f"{self._listing.name}.{form}",
                after={"filter": self._asked, "rows": self._rows},
                request_id=self._request_id,
                outcome=outcome,
            )
        )


def _masked(name: str, value: Any) -> Any:
    """What was asked for, as the operator log may hold it."""
    if name in _PERSONAL:
        return mask_identifier(value)
    return mask_text(value) if name in _FREE else value


def cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """A row's cells, none of which a spreadsheet takes for a formula; `payer.name` is a member of a member."""
    found: list[str] = []
    for column in columns:
        value: Any = row
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, list):
            value = " ".join(str(one) for one in value)
        found.append("" if value is None else harmless(value if isinstance(value, str) else json.dumps(value)))
    return found


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()
