"""What is stuck, and the same grouped by why: one row per place and error, however many payments met it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from hub.api import Caller
from operations_app.access import allowed
from operations_app.cursors import MAX_LIMIT, Paging
from operations_app.transfers.filters import Asking, Instant, Word, within
from operations_app.views import INCIDENTS, Body, Views
from operations_app.views import Query as Clause
from operations_app.wire import Shown

router = APIRouter(tags=["incidents"])
"""Included under `/api/v1`."""

Reader = Annotated[Caller, Depends(allowed("transfers:read"))]

_PAGE: Final = 1000
_MOST_PAGES: Final = 10
"""Different messages that are looked through: ten times a thousand."""

NEWEST_FIRST: Final = ({"createdAt": {"order": "desc"}}, {"incidentKey": {"order": "desc"}})
_UUID: Final = re.compile(r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_NUMBERED: Final = re.compile(
    r"\*+[0-9A-Za-z]{4}\b|\b(?=[0-9A-Za-z]*[0-9]{3})[0-9A-Za-z]{8,}\b|\b[0-9]+(?:\.[0-9]+)?\b"
)
_CLASS: Final = re.compile(r"([A-Z][A-Za-z0-9]{2,60}): ")


class IncidentFilter(Asking):
    """Which incidents."""

    state: list[Literal["OPEN", "RESOLVED"]] = Field(["OPEN"], max_length=2)
    process: list[Word] = Field([], examples=[["payer-transfer"]])
    element: list[Word] = Field([], examples=[["hold-funds"]])
    error_type: list[Word] = Field([], examples=[["JOB_NO_RETRIES"]])
    payment_id: Word | None = None
    created_from: Instant | None = None
    created_to: Instant | None = None
    q: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(None, description="Words of the message.")

    def clauses(self) -> list[Clause]:
        found: list[Clause] = []
        for field, values in (
            ("bpmnProcessId", self.process),
            ("elementId", self.element),
            ("errorType", self.error_type),
            ("state", self.state),
        ):
            if values:
                found.append({"terms": {field: values}})
        if self.payment_id is not None:
            found.append({"term": {"paymentId": self.payment_id}})
        if self.created_from or self.created_to:
            found.append(within("createdAt", self.created_from, self.created_to))
        if self.q is not None:
            found.append({"match": {"errorMessage": {"query": self.q, "operator": "and"}}})
        return found


class IncidentSearch(IncidentFilter):
    """Which incidents, and how many at once."""

    limit: int = Field(50, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(None, max_length=1024, description="`nextCursor` of the page before.")


class IncidentShown(Shown):
    """One incident."""

    incident_key: str
    state: str
    group: str
    """The id of its group."""
    error_class: str
    error_type: str
    error_message: str
    process_id: str
    element_id: str
    payment_id: str | None
    process_instance_key: str
    element_instance_key: str
    job_key: str | None
    created_at: str
    resolved_at: str | None

    @classmethod
    def of(cls, body: Body) -> Self:
        cause = Cause.of(body["bpmnProcessId"], body["elementId"], body["errorType"], body.get("errorMessage", ""))
        return cls(
            incident_key=body["incidentKey"],
            state=body["state"],
            group=cause.group,
            error_class=cause.error_class,
            error_type=body["errorType"],
            error_message=body.get("errorMessage", ""),
            process_id=body["bpmnProcessId"],
            element_id=body["elementId"],
            payment_id=body.get("paymentId"),
            process_instance_key=body["processInstanceKey"],
            element_instance_key=body["elementInstanceKey"],
            job_key=body.get("jobKey"),
            created_at=body["createdAt"],
            resolved_at=body.get("resolvedAt"),
        )


class IncidentPage(Shown):
    """A page of incidents, newest first."""

    items: Sequence[IncidentShown]
    total: int
    total_exact: bool
    next_cursor: str | None


class Cause(Shown):
    """What groups incidents: where, and what was said there once ids and numbers are left out."""

    process_id: str
    element_id: str
    error_class: str
    """The error's own name when the message begins with one, else the engine's type."""
    message: str

    @classmethod
    def of(cls, process_id: str, element_id: str, error_type: str, message: str) -> Self:
        named = _CLASS.match(message)
        plain = _NUMBERED.sub("#", _UUID.sub("#", message))
        return cls(
            process_id=process_id,
            element_id=element_id,
            error_class=named[1] if named else error_type,
            message=" ".join(plain.split())[:300],
        )

    @property
    def group(self) -> str:
        words = "\n".join((self.process_id, self.element_id, self.error_class, self.message))
        return hashlib.sha256(words.encode()).hexdigest()[:16]


class IncidentGroup(Cause):
    """Incidents with one cause."""

    id: str
    error_type: str
    count: int
    first_seen: str
    last_seen: str
    sample_incident_key: str
    sample_payment_id: str | None
    sample_message: str


class IncidentGroups(Shown):
    """Incidents by cause, the most frequent first."""

    items: Sequence[IncidentGroup]
    complete: bool
    """False when there were more different messages than are looked through."""


async def _views(request: Request) -> Views:
    views: Views = request.app.state.views
    return views


Reading = Annotated[Views, Depends(_views)]


@router.get("/incidents")
async def search_incidents(
    request: Request, who: Reader, views: Reading, cursors: Paging, asked: Annotated[IncidentSearch, Query()]
) -> IncidentPage:
    """Incidents that fit every parameter, newest first; open ones unless `state` says otherwise."""
    return await incident_page(
        views,
        who,
        asked.clauses(),
        asked.limit,
        after=cursors.read(request, who, asked.cursor),
        following=lambda position: cursors.write(request, who, position),
    )


async def incident_page(
    views: Views,
    who: Caller,
    filters: Sequence[Clause],
    limit: int,
    *,
    after: Sequence[Any] | None,
    following: Callable[[Sequence[Any]], str],
) -> IncidentPage:
    """A page of incidents; `following` writes the cursor of the next one."""
    page = await views.search(INCIDENTS, who.tenant, filters=filters, sort=NEWEST_FIRST, size=limit, after=after)
    return IncidentPage(
        items=[IncidentShown.of(hit.body) for hit in page.hits],
        total=page.total,
        total_exact=page.exact,
        next_cursor=following(page.hits[-1].sort) if len(page.hits) == limit else None,
    )


@router.get("/incidents/groups")
async def incident_groups(who: Reader, views: Reading, asked: Annotated[IncidentFilter, Query()]) -> IncidentGroups:
    """Incidents grouped by process, element, error and message; ids and numbers in messages do not count."""
    groups: dict[str, IncidentGroup] = {}
    after: Mapping[str, Any] | None = None
    for _ in range(_MOST_PAGES):
        answer = await views.aggregate(INCIDENTS, who.tenant, _by_message(after), filters=asked.clauses())
        buckets = answer["messages"]["buckets"]
        for bucket in buckets:
            _add(groups, bucket)
        after = answer["messages"].get("after_key")
        if len(buckets) < _PAGE or after is None:
            after = None
            break
    items = sorted(groups.values(), key=lambda one: (-one.count, one.id))
    return IncidentGroups(items=items, complete=after is None)


def _by_message(after: Mapping[str, Any] | None) -> Mapping[str, Any]:
    fields = ("bpmnProcessId", "elementId", "errorType", "errorMessage.whole")
    composite: dict[str, Any] = {
        "size": _PAGE,
        "sources": [{f"f{at}": {"terms": {"field": field, "missing_bucket": True}}} for at, field in enumerate(fields)],
    }
    if after is not None:
        composite["after"] = after
    newest = {"sort": [{"createdAt": "desc"}], "size": 1, "_source": ["incidentKey", "paymentId", "errorMessage"]}
    inner = {
        "first": {"min": {"field": "createdAt"}},
        "last": {"max": {"field": "createdAt"}},
        "sample": {"top_hits": newest},
    }
    return {"messages": {"composite": composite, "aggs": inner}}


def _add(groups: dict[str, IncidentGroup], bucket: Mapping[str, Any]) -> None:
    process, element, error_type = (bucket["key"][f"f{at}"] or "" for at in range(3))
    sample = bucket["sample"]["hits"]["hits"][0]["_source"]
    cause = Cause.of(process, element, error_type, sample.get("errorMessage", ""))
    first, last = bucket["first"]["value_as_string"], bucket["last"]["value_as_string"]
    known = groups.get(cause.group)
    newer = known is None or last >= known.last_seen
    groups[cause.group] = IncidentGroup(
        **cause.model_dump(),
        id=cause.group,
        error_type=error_type,
        count=bucket["doc_count"] + (known.count if known else 0),
        first_seen=min(first, known.first_seen) if known else first,
        last_seen=max(last, known.last_seen) if known else last,
        sample_incident_key=sample["incidentKey"] if known is None or newer else known.sample_incident_key,
        sample_payment_id=sample.get("paymentId") if known is None or newer else known.sample_payment_id,
        sample_message=sample.get("errorMessage", "") if known is None or newer else known.sample_message,
    )
