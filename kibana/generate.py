"""Makes `payhub.ndjson`: one saved object a line, in the form of Kibana 8.9, which newer ones import and migrate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("payhub.ndjson")

AUDIT, INCIDENTS = "payhub-audit", "payhub-incidents"
"""Ids of the data views."""
_INDEX_REFERENCE: Final = "kibanaSavedObjectMeta.searchSourceJSON.index"

Object = dict[str, Any]


@dataclass(frozen=True)
class Search:
    """A saved search: KQL and columns."""

    id: str
    title: str
    description: str
    query: str
    columns: Sequence[str]
    view: str = AUDIT


_TIMES: Final = {AUDIT: "@timestamp", INCIDENTS: "createdAt"}
_FILTERED_BY_TIME: Final = frozenset({AUDIT})
"""An incident of last month that is still open must not vanish from a dashboard that shows a day."""

SEARCHES: Final = (
    Search(
        "payhub-steps",
        "Steps of payments",
        "Each step that a process began or ended",
        "valueType : PROCESS_INSTANCE and intent : (ELEMENT_ACTIVATED or ELEMENT_COMPLETED or ELEMENT_TERMINATED)",
        ("paymentId", "elementId", "elementType", "recordType", "intent", "bpmnProcessId", "key", "tenantId"),
    ),
    Search(
        "payhub-open-incidents",
        "Open incidents",
        "Where payments stand still until somebody does something",
        "state : OPEN",
        ("paymentId", "elementId", "errorType", "errorMessage", "bpmnProcessId", "incidentKey", "tenantId"),
        INCIDENTS,
    ),
    Search(
        "payhub-operator-acts",
        "Acts of operators",
        "Who did what to which payment, and why",
        "source : operator",
        ("actor", "action", "target", "paymentId", "reasonCode", "reason", "outcome", "tenantId"),
    ),
)


def _nested(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _object(
    kind: str, version: str, id_: str, attributes: Object, references: Sequence[tuple[str, str, str]] = ()
) -> Object:
    return {
        "type": kind,
        "id": id_,
        "managed": False,
        "coreMigrationVersion": "8.8.0",
        "typeMigrationVersion": version,
        "attributes": attributes,
        "references": [{"name": name, "type": of, "id": to} for name, of, to in references],
    }


def data_view(id_: str, alias: str, name: str) -> Object:
    """A view by its alias: a rebuilt one is another index. Keys are keywords, and so are shown as they are."""
    attributes = {
        "title": alias,
        "name": name,
        "fields": "[]",
        "fieldAttrs": "{}",
        "fieldFormatMap": "{}",
        "runtimeFieldMap": "{}",
        "sourceFilters": "[]",
        "typeMeta": "{}",
    }
    if id_ in _FILTERED_BY_TIME:
        attributes["timeFieldName"] = _TIMES[id_]
    return _object("index-pattern", "8.0.0", id_, attributes)


def saved_search(search: Search) -> Object:
    source = {
        "query": {"query": search.query, "language": "kuery"},
        "filter": [],
        "indexRefName": _INDEX_REFERENCE,
    }
    attributes = {
        "title": search.title,
        "description": search.description,
        "columns": list(search.columns),
        "sort": [[_TIMES[search.view], "desc"]],
        "grid": {},
        "hideChart": False,
        "isTextBasedQuery": False,
        "timeRestore": False,
        "kibanaSavedObjectMeta": {"searchSourceJSON": _nested(source)},
    }
    return _object("search", "8.0.0", search.id, attributes, [(_INDEX_REFERENCE, "index-pattern", search.view)])


def _count_by(title: str, field: str, query: str) -> Object:
    """A panel that counts records over time, by the most frequent values of a field."""
    layer = {
        "columnOrder": ["x", "split", "y"],
        "columns": {
            "x": {
                "label": "@timestamp",
                "dataType": "date",
                "operationType": "date_histogram",
                "sourceField": "@timestamp",
                "isBucketed": True,
                "scale": "interval",
                "params": {"interval": "auto", "includeEmptyRows": True, "dropPartials": False},
            },
            "split": {
                "label": field,
                "dataType": "string",
                "operationType": "terms",
                "sourceField": field,
                "isBucketed": True,
                "scale": "ordinal",
                "params": {
                    "size": 8,
                    "orderBy": {"type": "column", "columnId": "y"},
                    "orderDirection": "desc",
                    "otherBucket": True,
                    "missingBucket": False,
                },
            },
            "y": {
                "label": "Records",
                "dataType": "number",
                "operationType": "count",
                "sourceField": "___records___",
                "isBucketed": False,
                "scale": "ratio",
                "params": {},
            },
        },
        "incompleteColumns": {},
    }
    visualization = {
        "legend": {"isVisible": True, "position": "right"},
        "valueLabels": "hide",
        "preferredSeriesType": "bar_stacked",
        "layers": [
            {
                "layerId": "l1",
                "layerType": "data",
                "seriesType": "bar_stacked",
                "xAccessor": "x",
                "splitAccessor": "split",
                "accessors": ["y"],
            }
        ],
    }
    return {
        "title": title,
        "visualizationType": "lnsXY",
        "type": "lens",
        "references": [{"type": "index-pattern", "id": AUDIT, "name": "indexpattern-datasource-layer-l1"}],
        "state": {
            "datasourceStates": {"formBased": {"layers": {"l1": layer}}},
            "visualization": visualization,
            "query": {"query": query, "language": "kuery"},
            "filters": [],
            "internalReferences": [],
            "adHocDataViews": {},
        },
    }


CHARTS: Final = (
    ("p1", "Steps by outcome", "intent", SEARCHES[0].query),
    ("p2", "Incidents by error", "errorType", "valueType : INCIDENT and intent : CREATED"),
)


def dashboard() -> Object:
    panels: list[Object] = []
    references: list[tuple[str, str, str]] = []
    for number, (panel, title, field, query) in enumerate(CHARTS):
        panels.append(
            {
                "type": "lens",
                "panelIndex": panel,
                "gridData": {"x": 24 * number, "y": 0, "w": 24, "h": 12, "i": panel},
                "embeddableConfig": {"enhancements": {}, "attributes": _count_by(title, field, query)},
            }
        )
        references.append((f"{panel}:indexpattern-datasource-layer-l1", "index-pattern", AUDIT))
    places = {"payhub-steps": (0, 12, 48), "payhub-open-incidents": (0, 28, 24), "payhub-operator-acts": (24, 28, 24)}
    for number, search in enumerate(SEARCHES, start=len(CHARTS) + 1):
        panel, (x, y, width) = f"p{number}", places[search.id]
        panels.append(
            {
                "type": "search",
                "panelIndex": panel,
                "gridData": {"x": x, "y": y, "w": width, "h": 16, "i": panel},
                "panelRefName": f"panel_{panel}",
                "embeddableConfig": {"enhancements": {}},
            }
        )
        references.append((f"{panel}:panel_{panel}", "search", search.id))
    attributes = {
        "title": "Payment hub: audit",
        "description": "What the engine did, where it stopped, and what operators did about it",
        "version": 1,
        "timeRestore": True,
        "timeFrom": "now-24h",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 10_000},
        "optionsJSON": _nested({"useMargins": True, "syncColors": False, "hidePanelTitles": False}),
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": _nested({"query": {"query": "", "language": "kuery"}, "filter": []})
        },
        "panelsJSON": _nested(panels),
    }
    return _object("dashboard", "8.9.0", "payhub-audit-dashboard", attributes, references)


def objects(prefix: str = "payhub") -> list[Object]:
    """Everything that the file holds but its last line."""
    views = [
        data_view(AUDIT, f"{prefix}-audit", "Payment hub: audit"),
        data_view(INCIDENTS, f"{prefix}-incidents", "Payment hub: incidents"),
    ]
    return [*views, *(saved_search(search) for search in SEARCHES), dashboard()]


def lines(prefix: str = "payhub") -> Iterator[str]:
    """The file, line by line."""
    made = objects(prefix)
    for one in made:
        yield _nested(one)
    yield _nested(
        {
            "exportedCount": len(made),
            "missingRefCount": 0,
            "missingReferences": [],
            "excludedObjects": [],
            "excludedObjectsCount": 0,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prefix", default="payhub", help="PAYHUB_EXPORT_INDEX_PREFIX, where it is another")
    parser.add_argument("--check", action="store_true", help="fail when the file is another")
    chosen = parser.parse_args()
    text = "".join(f"{line}\n" for line in lines(chosen.prefix))
    if chosen.check:
        sys.exit(None if FILE.read_text() == text else f"{FILE} is not what the generator makes")
    FILE.write_text(text)


if __name__ == "__main__":
    main()
