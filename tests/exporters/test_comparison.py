"""Which documents of two generations count as equal, different, missing, added, or only not there yet."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from elasticsearch import Elasticsearch

from exporters import comparison
from exporters.comparison import Family, Side, compare
from exporters.elastic import Generation, Indexes
from exporters.views import VIEWS

FAMILY = "incidents"


@pytest.fixture
def generations(client: Elasticsearch) -> Iterator[tuple[Generation, Generation]]:
    prefix = f"compared-{uuid.uuid4().hex[:8]}"
    indexes = Indexes(client, VIEWS["operations"], prefix)
    indexes.put_templates()
    yield indexes.create(1), indexes.create(2)
    client.indices.delete(index=list(client.indices.get(index=f"{prefix}-*").body))
    client.indices.delete_index_template(name=f"{prefix}-*")


def test_a_document_that_only_one_side_was_fed_with_is_no_difference(
    client: Elasticsearch, generations: tuple[Generation, Generation], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(comparison, "_PAGE", 2)
    old, new = generations

    def write(generation: Generation, id_: str, position: int, state: str = "OPEN", partition: int = 1) -> None:
        body = {"partitionId": partition, "position": position, "state": state}
        client.index(index=generation.index(FAMILY), id=id_, document=body)

    for number in range(5):
        write(old, f"equal-{number}", number)
        write(new, f"equal-{number}", number)
    write(old, "different", 7, "OPEN")
    write(new, "different", 7, "RESOLVED")
    write(old, "missing", 8)
    write(new, "added", 9)
    write(new, "added-elsewhere", 95, partition=2)
    write(old, "came-after-new-was-fed", 101)
    write(old, "moved-after-new-was-fed", 102, "RESOLVED")
    write(new, "moved-after-new-was-fed", 10)
    write(new, "old-is-behind", 91)
    write(old, "old-is-behind-with-this", 11)
    write(new, "old-is-behind-with-this", 92, "RESOLVED")
    sides = Side(old, {"1": 90, "2": 99}), Side(new, {"1": 100, "2": 99})
    assert compare(client, FAMILY, *sides) == Family(documents=11, equal=5, different=1, missing=1, added=2, moving=4)
    assert compare(client, FAMILY, None, sides[1]) == Family(documents=11)
    assert compare(client, "links", *sides) == Family()
