"""Where an instance stands in the drawing that it was started with, never in a newer one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from operations_app.transfers.wire import CallShown, DiagramShown, ElementShown, instances_of
from operations_app.views import EVERYBODY, PROCESSES, STEPS, Body, Found, Query, Views

_MOST_ELEMENTS: Final = 1000
"""Elements of one drawing."""

_BY_ELEMENT: Final[Mapping[str, Any]] = {
    "elements": {
        "terms": {"field": "elementId", "size": _MOST_ELEMENTS},
        "aggs": {
            "states": {"terms": {"field": "state"}},
            "stuck": {"filter": {"exists": {"field": "incidentKey"}}},
        },
    },
    "position": {"max": {"field": "position"}},
}


async def diagram(views: Views, tenant: str, transfer: Body, instance: str) -> DiagramShown | None:
    """The drawing of one of a payment's instances; nothing when the payment has no such instance."""
    own: list[Query] = [{"term": {"paymentId": transfer["paymentId"]}}, {"term": {"processInstanceKey": instance}}]
    process, counts = await asyncio.gather(
        views.search(
            STEPS,
            tenant,
            filters=[*own, {"term": {"elementType": "PROCESS"}}],
            sort=[{"position": "desc"}],
            size=1,
            count=False,
        ),
        views.aggregate(STEPS, tenant, _BY_ELEMENT, filters=own),
    )
    if not process.hits:
        return None
    root = process.hits[0]
    elements = [
        _element(bucket) for bucket in counts["elements"]["buckets"] if bucket["key"] != root.body["bpmnProcessId"]
    ]
    return DiagramShown(
        process_instance_key=instance,
        process_id=root.body["bpmnProcessId"],
        process_definition_key=root.body["processDefinitionKey"],
        version=root.body.get("processVersion"),
        state=root.body["state"],
        xml=await _drawing(views, root),
        elements=sorted(elements, key=lambda one: one.element_id),
        flows=root.body.get("flows", {}),
        calls=[
            CallShown(process_instance_key=one.process_instance_key, process_id=one.process_id, state=one.state)
            for one in instances_of(transfer)
            if one.parent_key == instance
        ],
        position=str(int(counts["position"]["value"] or 0)),
    )


async def _drawing(views: Views, step: Found) -> str | None:
    """The instance's own version: of the same life of the engine, which the ids of both documents begin with."""
    epoch = step.id.rpartition("-")[0]
    found = await views.get(PROCESSES, f"{epoch}-{step.body['processDefinitionKey']}", EVERYBODY)
    return None if found is None else found.body.get("xml")


def _element(bucket: Mapping[str, Any]) -> ElementShown:
    states = {one["key"]: one["doc_count"] for one in bucket["states"]["buckets"]}
    return ElementShown(
        element_id=bucket["key"],
        active=states.get("ACTIVE", 0) + states.get("ACTIVATING", 0),
        completed=states.get("COMPLETED", 0),
        terminated=states.get("TERMINATED", 0),
        incidents=bucket["stuck"]["doc_count"],
    )
