"""What a newer version does with indexes that an older one made, and who wins when two replace them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from elasticsearch import Elasticsearch, NotFoundError

from exporters.elastic import Generation, Indexes
from exporters.views import VIEWS

AUDIT = VIEWS["audit"]
OPERATIONS = VIEWS["operations"]


@pytest.fixture
def prefix(client: Elasticsearch) -> Iterator[str]:
    name = f"older-{uuid.uuid4().hex[:8]}"
    yield name
    client.indices.delete(index=list(client.indices.get(index=f"{name}-*").body))
    client.indices.delete_index_template(name=f"{name}-*")


def test_fields_that_were_added_are_taken_by_the_index_in_use(client: Elasticsearch, prefix: str):
    columns = {name: kind for name, kind in AUDIT.families["audit"].items() if name not in {"hash", "roles"}}
    older = replace(AUDIT, families={**AUDIT.families, "audit": columns})
    made = Indexes(client, older, prefix).ensure()
    now = Indexes(client, AUDIT, prefix).ensure()
    assert now.unique == made.unique
    (mapped,) = client.indices.get_mapping(index=f"{prefix}-audit").body.values()
    assert {"hash", "roles"} <= mapped["mappings"]["properties"].keys()
    client.index(index=f"{prefix}-audit", document={"hash": "ab", "roles": ["operator"]})


def test_a_field_of_another_type_leaves_the_index_as_it_is_until_a_rebuild(client: Elasticsearch, prefix: str):
    older = replace(AUDIT, families={**AUDIT.families, "audit": AUDIT.families["audit"] | {"hash": {"type": "long"}}})
    made = Indexes(client, older, prefix).ensure()
    indexes = Indexes(client, AUDIT, prefix)
    assert indexes.ensure().unique == made.unique
    indexes.use(indexes.create(indexes.newest() + 1), instead_of=made)  # as a rebuild does
    (mapped,) = client.indices.get_mapping(index=f"{prefix}-audit").body.values()
    assert mapped["mappings"]["properties"]["hash"]["type"] == "keyword"


def test_of_four_who_replace_the_same_generation_at_once_one_wins(client: Elasticsearch, prefix: str):
    indexes = Indexes(client, OPERATIONS, prefix)
    old = indexes.ensure()
    news = [indexes.create(old.number + number) for number in range(1, 5)]

    def replaces(new: Generation) -> bool:
        try:
            indexes.use(new, instead_of=old)
        except NotFoundError:
            return False
        return True

    with ThreadPoolExecutor(len(news)) as at_once:
        (winner,) = [new for new, won in zip(news, at_once.map(replaces, news), strict=True) if won]
    assert indexes.current() == winner
    for family in OPERATIONS.families:
        assert list(client.indices.get_alias(name=f"{prefix}-{family}").body) == [winner.index(family)]
