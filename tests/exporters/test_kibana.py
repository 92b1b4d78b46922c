"""Kibana's saved objects hang together, and their queries find what they promise in the real Elasticsearch.

No Kibana runs here: what it would make of the file is checked as far as its documented form goes.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from exporters.elastic import open_client
from exporters.views import VIEWS
from kibana.generate import AUDIT, CHARTS, FILE, INCIDENTS, SEARCHES, lines

OBJECTS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()[:-1]]
BY_ID = {(one["type"], one["id"]): one for one in OBJECTS}
FAMILIES = {AUDIT: VIEWS["audit"].families["audit"], INCIDENTS: VIEWS["operations"].families["incidents"]}

ATTRIBUTES = {
    "index-pattern": "title name timeFieldName fields fieldAttrs fieldFormatMap runtimeFieldMap sourceFilters typeMeta",
    "search": "title description columns sort grid hideChart isTextBasedQuery timeRestore kibanaSavedObjectMeta",
    "dashboard": "title description version timeRestore timeFrom timeTo refreshInterval optionsJSON"
    " kibanaSavedObjectMeta panelsJSON",
}
"""What Kibana 8.9 allows; more is refused."""
OPTIONAL: Mapping[str, set[str]] = {"index-pattern": {"timeFieldName"}}


def dashboard() -> dict[str, Any]:
    (found,) = (one for one in OBJECTS if one["type"] == "dashboard")
    return found


def panels() -> list[dict[str, Any]]:
    return list(json.loads(dashboard()["attributes"]["panelsJSON"]))


def test_the_file_is_what_the_generator_makes():
    assert FILE.read_text().splitlines() == list(lines()), "run `python -m kibana.generate`"


def test_the_last_line_counts_the_others():
    last = json.loads(FILE.read_text().splitlines()[-1])
    assert (last["exportedCount"], last["missingRefCount"]) == (len(OBJECTS), 0)
    assert len(BY_ID) == len(OBJECTS)


def test_attributes_are_those_that_kibana_knows_and_nested_json_is_json():
    for one in OBJECTS:
        attributes = one["attributes"]
        assert attributes.keys() | OPTIONAL.get(one["type"], set()) == set(ATTRIBUTES[one["type"]].split())
        nested = [attributes[name] for name in attributes if name.endswith("JSON")]
        nested += [attributes.get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}")]
        if one["type"] == "index-pattern":
            nested += [attributes[name] for name in ("fields", "fieldAttrs", "fieldFormatMap", "runtimeFieldMap")]
        for text in nested:
            json.loads(text)


def test_an_open_incident_is_shown_however_old_it_is():
    """A data view with a time field shows what lies in the dashboard's last day and nothing else."""
    assert "timeFieldName" in BY_ID["index-pattern", AUDIT]["attributes"]
    assert "timeFieldName" not in BY_ID["index-pattern", INCIDENTS]["attributes"]


def test_every_reference_resolves_and_is_used():
    for one in OBJECTS:
        used = set()
        source = json.loads(one["attributes"].get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}"))
        used |= {source["indexRefName"]} if "indexRefName" in source else set()
        if one["type"] == "dashboard":
            for panel in panels():
                if "panelRefName" in panel:
                    used.add(f"{panel['panelIndex']}:{panel['panelRefName']}")
                for inner in panel["embeddableConfig"].get("attributes", {}).get("references", []):
                    used.add(f"{panel['panelIndex']}:{inner['name']}")
        assert used == {reference["name"] for reference in one["references"]}
        assert all((reference["type"], reference["id"]) in BY_ID for reference in one["references"])


def test_panels_fill_the_grid_without_overlap():
    taken: Counter[tuple[int, int]] = Counter()
    for panel in panels():
        grid = panel["gridData"]
        assert grid["i"] == panel["panelIndex"]
        assert grid["x"] + grid["w"] <= 48
        taken.update(
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        )
    assert set(taken.values()) == {1}


def test_charts_name_their_columns_in_order():
    for panel in (one for one in panels() if one["type"] == "lens"):
        layers = panel["embeddableConfig"]["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]
        for layer in layers.values():
            assert layer["columnOrder"] == list(layer["columns"])
            fields = {one["sourceField"] for one in layer["columns"].values()} - {"___records___"}
            assert fields <= FAMILIES[AUDIT].keys()


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.id)
def test_columns_and_queried_fields_are_in_the_mapping(search: Any):
    assert set(search.columns) | {field for field, _ in clauses(search.query)} <= FAMILIES[search.view].keys()


# --- The queries, run


def clauses(query: str) -> Iterator[tuple[str, list[str]]]:
    """The KQL that is used here: `field : value` and `field : (one or other)`, joined by `and`."""
    for clause in query.split(" and "):
        found = re.fullmatch(r"(\w+) : (?:\(([\w ]+)\)|(\w+))", clause)
        assert found, f"not understood: {clause}"
        yield found[1], (found[2] or found[3]).split(" or ")


@pytest.fixture(scope="module")
def filled(log: SimpleNamespace, elasticsearch_url: str) -> Iterator[tuple[Elasticsearch, Mapping[str, str]]]:
    """Indexes with the views' own mappings and what the captured records and one act make of them."""
    client, prefix = open_client(elasticsearch_url), f"kibana-{uuid.uuid4().hex[:8]}"
    names = {AUDIT: f"{prefix}-audit", INCIDENTS: f"{prefix}-incidents"}
    act = {
        "@timestamp": "2026-11-18T10:00:00.000Z",
        "position": 1,
        "source": "operator",
        "actor": "olga",
        "action": "action.request",
        "target": "transfer:p",
        "paymentId": "p",
        "reasonCode": "customer",
        "reason": "asked for it",
        "outcome": "done",
        "tenantId": "acme",
    }
    documents = {
        AUDIT: [*log.straight("audit").bodies("audit").values(), act],
        INCIDENTS: list(log.straight("operations").bodies("incidents").values()),
    }
    for view, name in names.items():
        client.indices.create(index=name, mappings={"dynamic": "strict", "properties": dict(FAMILIES[view])})
        operations: list[dict[str, Any]] = []
        for body in documents[view]:
            operations += [{"index": {}}, body]
        answer = client.bulk(index=name, operations=operations, refresh=True)
        assert not answer["errors"]
    yield client, names
    client.indices.delete(index=list(names.values()))
    client.close()


def hits(client: Elasticsearch, index: str, query: str) -> int:
    filters = [{"terms": {field: values}} for field, values in clauses(query)]
    return int(client.count(index=index, query={"bool": {"filter": filters}})["count"])


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.id)
def test_a_saved_search_finds_documents_that_have_its_columns(filled: Any, search: Any):
    client, names = filled
    assert hits(client, names[search.view], search.query) > 0
    capable = client.field_caps(index=names[search.view], fields=list(search.columns))["fields"]
    assert capable.keys() == set(search.columns)
    filters = [{"terms": {field: values}} for field, values in clauses(search.query)]
    for column in search.columns:
        query = {"bool": {"filter": [*filters, {"exists": {"field": column}}]}}
        assert client.count(index=names[search.view], query=query)["count"] > 0, column


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart[0])
def test_a_chart_has_something_to_count(filled: Any, chart: Any):
    client, names = filled
    _, _, field, query = chart
    assert hits(client, names[AUDIT], query) > 0
    assert all(
        one["aggregatable"] for one in client.field_caps(index=names[AUDIT], fields=field)["fields"][field].values()
    )
