"""Whether two generations of a view tell the same, document by document; in memory are two pages at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from exporters.elastic import Generation
from hub.elastic import Elasticsearch

_PAGE: Final = 1000
_KEEP: Final = "2m"
_VERSION: Final = ("partitionId", "journal", "position")

Body = Mapping[str, Any]
Reached = Mapping[str, int]
"""Version by source: a partition of the engine, or a journal."""


@dataclass
class Family:
    """How the new documents of a family compare with the old ones."""

    documents: int = 0
    """In the new index."""
    equal: int = 0
    different: int = 0
    missing: int = 0
    """In the old index only."""
    added: int = 0
    """In the new index only."""
    moving: int = 0
    """One side was not fed with their latest records yet; payments go on meanwhile."""


class Side(NamedTuple):
    """A generation and how far it was fed before it is read."""

    generation: Generation
    fed: Reached

    def not_yet(self, other: Body) -> bool:
        """Whether this side was not fed yet with what a document of the other side tells."""
        source = str(other["partitionId"]) if "partitionId" in other else other["journal"]
        return bool(other["position"] > self.fed.get(source, 0))


def compare(client: Elasticsearch, family: str, old: Side | None, new: Side) -> Family:
    """Compare a family of two generations; nothing is compared when there was none before.

    The old one may be written to meanwhile, the new one must not.
    """
    index = new.generation.index(family)
    client.indices.refresh(index=index)
    if old is None:
        return Family(documents=client.count(index=index)["count"])
    found = Family()
    before = old.generation.index(family)
    client.indices.refresh(index=before)
    for page in _pages(client, index):
        there = _by_id(client, before, list(page))
        for id_, body in page.items():
            _meet(found, body, there.get(id_), old, new)
    for page in _pages(client, before, _VERSION):
        here = _by_id(client, index, list(page), bodies=False)
        for body in (body for id_, body in page.items() if id_ not in here):
            if new.not_yet(body):
                found.moving += 1
            else:
                found.missing += 1
    return found


def _meet(found: Family, here: Body, there: Body | None, old: Side, new: Side) -> None:
    """Documents may differ because payments go on: what only one side was fed with yet is no difference."""
    found.documents += 1
    if here == there:
        found.equal += 1
    elif old.not_yet(here) or (there is not None and new.not_yet(there)):
        found.moving += 1
    elif there is None:
        found.added += 1
    else:
        found.different += 1


def _pages(client: Elasticsearch, index: str, fields: Sequence[str] | None = None) -> Iterator[dict[str, Body]]:
    """Every document of an index by its id, as they are at one moment; of `fields` only those."""
    moment = client.open_point_in_time(index=index, keep_alive=_KEEP)["id"]
    after: list[Any] | None = None
    try:
        while True:
            hits = client.search(
                pit={"id": moment, "keep_alive": _KEEP},
                size=_PAGE,
                sort=["_shard_doc"],
                search_after=after,
                track_total_hits=False,
                source_includes=fields,
            )["hits"]["hits"]
            yield {hit["_id"]: hit["_source"] for hit in hits}
            if len(hits) < _PAGE:
                return
            after = hits[-1]["sort"]
    finally:
        client.close_point_in_time(id=moment)


def _by_id(client: Elasticsearch, index: str, ids: Sequence[str], *, bodies: bool = True) -> dict[str, Body]:
    """Those of these documents that the index has, as of its last refresh."""
    if not ids:
        return {}
    answer = client.mget(index=index, ids=ids, realtime=False, source=bodies)
    return {one["_id"]: one.get("_source", {}) for one in answer["docs"] if one.get("found")}
