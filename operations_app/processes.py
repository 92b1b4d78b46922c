"""The drawings that are deployed. They belong to nobody: every tenant's payments run by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Self

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from hub.api import Caller, Problem
from operations_app.access import allowed
from operations_app.cursors import Cursor, Limit, Paging
from operations_app.views import EVERYBODY, PROCESSES, Body, Views
from operations_app.wire import Shown

router = APIRouter(tags=["processes"])
"""Included under `/api/v1`."""

Reader = Annotated[Caller, Depends(allowed("transfers:read"))]

_BY_NAME: Final = (
    {"bpmnProcessId": {"order": "asc"}},
    {"version": {"order": "desc"}},
    {"processDefinitionKey": {"order": "desc"}},
)
_LISTED: Final = ("processDefinitionKey", "bpmnProcessId", "version", "resourceName", "deployedAt", "deleted")


class ProcessShown(Shown):
    """A deployed version of a drawing."""

    process_definition_key: str
    process_id: str
    version: int
    resource_name: str
    deployed_at: str
    deleted: bool

    @classmethod
    def of(cls, body: Body) -> Self:
        return cls(
            process_definition_key=body["processDefinitionKey"],
            process_id=body["bpmnProcessId"],
            version=body["version"],
            resource_name=body["resourceName"],
            deployed_at=body["deployedAt"],
            deleted=body["deleted"],
        )


class ProcessPage(Shown):
    """Drawings by name, the newest version of each first."""

    items: Sequence[ProcessShown]
    next_cursor: str | None


async def _views(request: Request) -> Views:
    views: Views = request.app.state.views
    return views


Reading = Annotated[Views, Depends(_views)]


@router.get("/processes")
async def list_processes(
    request: Request,
    who: Reader,
    views: Reading,
    cursors: Paging,
    *,
    process: Annotated[str | None, Query(max_length=256, examples=["payer-transfer"])] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ProcessPage:
    """Every version of every drawing, or of one."""
    page = await views.search(
        PROCESSES,
        EVERYBODY,
        filters=[{"term": {"bpmnProcessId": process}}] if process else [],
        sort=_BY_NAME,
        size=limit,
        after=cursors.read(request, who, cursor),
        fields=_LISTED,
        count=False,
    )
    return ProcessPage(
        items=[ProcessShown.of(hit.body) for hit in page.hits],
        next_cursor=cursors.write(request, who, page.hits[-1].sort) if len(page.hits) == limit else None,
    )


@router.get(
    "/processes/{process_definition_key}/xml",
    response_class=Response,
    responses={200: {"content": {"application/xml": {}}, "description": "BPMN 2.0 with its diagram."}},
)
async def process_xml(
    _: Reader, views: Reading, process_definition_key: Annotated[str, Path(max_length=32, pattern="^[0-9]+$")]
) -> Response:
    """A drawing as it was deployed."""
    page = await views.search(
        PROCESSES,
        EVERYBODY,
        filters=[{"term": {"processDefinitionKey": process_definition_key}}],
        sort=[{"deployedAt": {"order": "desc"}}],
        size=1,
        count=False,
    )
    xml = page.hits[0].body.get("xml") if page.hits else None
    if xml is None:
        raise Problem(404, "not-found", "There is no such drawing.")
    return Response(xml, media_type="application/xml")
