"""The views in Elasticsearch as the operations API reads them. They show; they decide nothing.

    async with open_views() as views:
        found = await views.get(TRANSFERS, payment_id, tenant)
        page = await views.search(TRANSFERS, tenant, filters=[{"term": {"state": "PENDING"}}], sort=NEWEST, size=50)

Every reading names the tenant it is for, so that nobody can forget to: another tenant's document is not found. When
Elasticsearch is away or a view was not made yet, every method raises `Unavailable`; nothing else of the hub notices.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from elastic_transport import HttpxAsyncHttpNode, TransportError

from exporters.settings import ElasticsearchSettings, ExportSettings
from hub.elastic import ApiError, AsyncElasticsearch, BadRequestError, NotFoundError
from hub.errors import Unavailable
from hub.settings import read

AUDIT: Final = "audit"
TRANSFERS: Final = "transfers"
STEPS: Final = "steps"
INCIDENTS: Final = "incidents"
PROCESSES: Final = "processes"
LINKS: Final = "links"

EVERYBODY: Final = None
"""Instead of a tenant: for drawings, which belong to nobody."""

COUNTED: Final = 10_000
"""Hits are counted exactly up to here; counting on would cost as much as the search itself."""

_TOO_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})

Body: TypeAlias = Mapping[str, Any]
Query: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A document with its id and, when it was searched for, where it stands in the order asked for."""

    id: str
    body: Body
    sort: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A part of what a search found."""

    hits: Sequence[Found]
    total: int
    """How many there are; when not `exact`, at least so many."""
    exact: bool


class Views:
    """Reads the views of one index prefix. Make one with `open_views`."""

    def __init__(self, client: AsyncElasticsearch, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    async def get(self, family: str, id_: str, tenant: str | None) -> Found | None:
        """A document by its id, as it was written a moment ago. Raises `Unavailable`."""
        if id_ in {"", ".", ".."} or len(id_.encode()) > 512:  # no address, or longer than any id can be
            return None
        try:
            answer = await self._client.get(index=self._alias(family), id=id_)
        except NotFoundError as error:
            if isinstance(error.body, Mapping) and error.body.get("found") is False:
                return None
            raise Unavailable(f"the view {family} is not there") from error
        except (ApiError, TransportError) as error:
            raise _away(error) from error
        body: Body = answer.body["_source"]
        if tenant is not EVERYBODY and body.get("tenantId") != tenant:
            return None
        return Found(answer.body["_id"], body)

    async def search(
        self,
        family: str,
        tenant: str | None,
        *,
        filters: Sequence[Query] = (),
        excluded: Sequence[Query] = (),
        sort: Sequence[Mapping[str, Any]],
        size: int,
        after: Sequence[Any] | None = None,
        skip: int = 0,
        fields: Sequence[str] | None = None,
        count: bool = True,
    ) -> Page:
        """One page in the order of `sort`, which has to end in a field that is unique; `after`: the `sort` of the last
        hit of the page before; `skip` so many instead, which Elasticsearch does up to 10,000. Nothing is scored.
        `fields`: those of the documents to bring, all if not given.

        Raises `Unavailable`.
        """
        asked: dict[str, Any] = {
            "query": _matching(tenant, filters, excluded),
            "sort": list(sort),
            "size": size,
            "track_total_hits": COUNTED if count else False,
        }
        if after is not None:
            asked["search_after"] = list(after)
        if skip:
            asked["from_"] = skip
        if fields is not None:
            asked["source_includes"] = list(fields)
        answer = await self._ask(family, **asked)
        total = answer["hits"].get("total", {"value": 0, "relation": "gte"})
        hits = [Found(hit["_id"], hit["_source"], tuple(hit.get("sort", ()))) for hit in answer["hits"]["hits"]]
        return Page(hits, total["value"], total["relation"] == "eq")

    async def aggregate(
        self,
        family: str,
        tenant: str | None,
        aggregations: Mapping[str, Any],
        *,
        filters: Sequence[Query] = (),
        excluded: Sequence[Query] = (),
    ) -> Mapping[str, Any]:
        """What Elasticsearch's aggregations answer, without documents. Raises `Unavailable`."""
        query = _matching(tenant, filters, excluded)
        answer = await self._ask(family, query=query, aggregations=aggregations, size=0, track_total_hits=False)
        found: Mapping[str, Any] = answer["aggregations"]
        return found

    async def ping(self) -> None:
        """A probe: raises `Unavailable` when Elasticsearch does not answer or has no views."""
        try:
            there = await self._client.indices.exists_alias(name=self._alias(TRANSFERS))
        except (ApiError, TransportError) as error:
            raise _away(error) from error
        if not there:
            raise Unavailable("the views are not there")

    async def _ask(self, family: str, **asked: Any) -> Mapping[str, Any]:
        try:
            answer = await self._client.search(index=self._alias(family), **asked)
        except NotFoundError as error:
            raise Unavailable(f"the view {family} is not there") from error
        except (ApiError, TransportError) as error:
            raise _away(error) from error
        body: Mapping[str, Any] = answer.body
        if body.get("timed_out") or body["_shards"]["failed"]:
            raise Unavailable("elasticsearch: not every shard answered")
        return body

    def _alias(self, family: str) -> str:
        return f"{self._prefix}-{family}"


def _matching(tenant: str | None, filters: Sequence[Query], excluded: Sequence[Query]) -> Query:
    own: list[Query] = [] if tenant is EVERYBODY else [{"term": {"tenantId": tenant}}]
    query: dict[str, Any] = {"filter": [*own, *filters]}
    if excluded:
        query["must_not"] = list(excluded)
    return {"bool": query}


def _away(error: ApiError | TransportError) -> Exception:
    """What an error means: away or busy, or a defect of ours, which is raised as it is."""
    if isinstance(error, ApiError):
        if isinstance(error, BadRequestError) or error.status_code not in _TOO_BUSY:
            return error
        return Unavailable(f"elasticsearch: {error.status_code}")
    return Unavailable(f"elasticsearch: {type(error).__name__}")


@asynccontextmanager
async def open_views(url: str | None = None, prefix: str | None = None) -> AsyncIterator[Views]:
    """The views where the exporters keep them: their settings say where, unless `url` and `prefix` do."""
    logging.getLogger("elastic_transport.node_pool").setLevel(logging.ERROR)
    client = AsyncElasticsearch(
        url or read(ElasticsearchSettings).url,
        node_class=HttpxAsyncHttpNode,  # httpx is here anyway; aiohttp would be a second one of its kind
        request_timeout=10,
        max_retries=0,
        retry_on_timeout=False,
    )
    try:
        yield Views(client, prefix or read(ExportSettings).index_prefix)
    finally:
        await client.close()
