"""B9: the operations search over many payments, against the same query straight to Elasticsearch.

    python -m benchmarks.b9_search [--data-dir FOLDER] [--documents 1000000] [--rounds 200] [--json]

*ours* is what `GET /transfers` does behind its token: parameters read and checked, the query built, asked, its hits
shown as JSON. *raw* sends the query that came out of it and reads the answer. Both alternate in one run on one index
with the view's own mapping. Target: p99 <= 150 ms, and <= 1.3 of the raw query.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic_core import to_json

from benchmarks.b7_streamer import stack
from exporters.documents import Ref
from exporters.elastic import ElasticSink, Generation, Indexes, Patience, open_client
from exporters.pipeline import Encoded
from exporters.views import VIEWS
from hub.stack.state import load_state
from operations_app.transfers.api import LISTED
from operations_app.transfers.filters import SORTS, TransferSearch
from operations_app.transfers.wire import Total, TransferPage, TransferRow
from operations_app.views import COUNTED, TRANSFERS, Views, open_views

TENANTS: Final = ("acme", "globex", "initech")
STATES: Final = (("COMMITTED", "SETTLED"), ("ABORTED", "REJECTED"), ("RETURNED", "RETURNED"), ("PENDING", None))
BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)
BATCH: Final = 5000


@dataclass
class Timed:
    """One search, in milliseconds."""

    search: str
    ours_p50: float
    ours_p99: float
    raw_p50: float
    raw_p99: float

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.ours_p50 / self.raw_p50


SEARCHES: Final[Mapping[str, dict[str, Any]]] = {
    "newest": {},
    "state": {"state": ["ABORTED"]},
    "state and day": {
        "state": ["COMMITTED"],
        "acceptedFrom": "2026-03-01T00:00:00Z",
        "acceptedTo": "2026-03-02T00:00:00Z",
    },
    "amounts": {"currency": "MXN", "amountFrom": "100.00", "amountTo": "101.00"},
    "direction and bank": {"direction": "OUTGOING", "payeeBank": "012"},
    "words": {"q": "rent march"},
    "stuck step": {"step": ["wait-for-operator"], "processState": ["ACTIVE"]},
}


def documents(number: int) -> Iterator[Encoded]:
    """Transfers as the fold makes them, of a year."""
    chance = random.Random(9)
    for at in range(number):
        state, outcome = chance.choices(STATES, (90, 6, 1, 3))[0]
        accepted = BEGAN + timedelta(seconds=at * 31_000_000 / number)
        moment = accepted.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        pending = outcome is None
        id_ = str(uuid.UUID(int=chance.getrandbits(128)))
        body = {
            "partitionId": 1,
            "paymentId": id_,
            "tenantId": TENANTS[at % len(TENANTS)],
            "state": state,
            "instanceKeys": [str(2251799813685249 + at)],
            "currentSteps": ["wait-for-operator"] if pending else [],
            "attempts": 0,
            "incidents": 0,
            "openIncidents": [],
            "instances": {},
            "outcomes": [],
            "processInstanceKey": str(2251799813685249 + at),
            "processId": "payer-transfer",
            "processState": "ACTIVE" if pending else "COMPLETED",
            "direction": chance.choice(("OUTGOING", "OUTGOING", "INCOMING")),
            "amount": chance.randint(100, 5_000_000),
            "currency": "MXN",
            "concept": f"{chance.choice(('rent', 'salary', 'invoice', 'loan'))} {accepted:%B}".lower(),
            "referenceNumber": str(chance.randint(1, 9_999_999)),
            "payer": {"idType": "MSISDN", "identifier": "********0001", "name": "A*** T***"},
            "payee": {
                "idType": "CLABE",
                "identifier": "**************7198",
                "bank": chance.choice(("012", "646", "002")),
            },
            "rail": "rail-stp",
            "acceptedAt": moment,
            "position": at + 1,
            "updatedAt": moment,
        }
        if outcome is not None:
            body |= {"outcome": outcome, "outcomeAt": moment, "reason": "none", "endedAt": moment}
        yield Encoded(Ref(TRANSFERS, id_), at + 1, to_json(body))


def fill(url: str, prefix: str, number: int) -> Generation:
    """An index with the view's mapping and that many transfers, behind the view's alias."""
    client = open_client(url)
    indexes = Indexes(client, VIEWS["operations"], prefix)
    generation = indexes.ensure()
    sink = ElasticSink(client, generation, Patience(threading.Event()), 8_000_000)
    batch: list[Encoded] = []
    for document in documents(number):
        batch.append(document)
        if len(batch) == BATCH:
            sink.accept(batch)
            batch = []
    if batch:
        sink.accept(batch)
    client.indices.refresh(index=generation.index(TRANSFERS))
    client.close()
    return generation


def clear(url: str, prefix: str) -> None:
    client = open_client(url)
    client.indices.delete(index=list(client.indices.get(index=f"{prefix}-*").body))
    client.indices.delete_index_template(name=f"{prefix}-*")
    client.close()


async def ours(views: Views, tenant: str, parameters: Mapping[str, Any]) -> bytes:
    """What the route does between the token and the socket."""
    asked = TransferSearch.model_validate(parameters)
    page = await views.search(
        TRANSFERS, tenant, filters=asked.clauses(None), sort=SORTS[asked.sort], size=asked.limit, fields=LISTED
    )
    rows = [TransferRow.of(hit.body) for hit in page.hits]
    total = Total(count=page.total, exact=page.exact)
    return TransferPage(items=rows, total=total, next_cursor=None).model_dump_json(by_alias=True).encode()


def query_of(tenant: str, parameters: Mapping[str, Any]) -> bytes:
    """The request that ours comes down to."""
    asked = TransferSearch.model_validate(parameters)
    body = {
        "query": {"bool": {"filter": [{"term": {"tenantId": tenant}}, *asked.clauses(None)]}},
        "sort": list(SORTS[asked.sort]),
        "size": asked.limit,
        "track_total_hits": COUNTED,
        "_source": {"includes": list(LISTED)},
    }
    return to_json(body)


async def measure(url: str, prefix: str, rounds: int) -> list[Timed]:
    results = []
    address, headers = f"{url}/{prefix}-{TRANSFERS}/_search", {"Content-Type": "application/json"}
    async with open_views(url, prefix) as views, httpx.AsyncClient(timeout=30) as http:
        for name, parameters in SEARCHES.items():
            mine: list[float] = []
            bare: list[float] = []
            raw = {tenant: query_of(tenant, parameters) for tenant in TENANTS}
            for turn in range(rounds + 10):
                tenant = TENANTS[turn % len(TENANTS)]
                began = time.perf_counter()
                answer = await http.post(address, content=raw[tenant], headers=headers)
                answer.json()
                middle = time.perf_counter()
                answer.raise_for_status()
                await ours(views, tenant, parameters)
                if turn >= 10:  # the first ones warm up
                    bare.append((middle - began) * 1000)
                    mine.append((time.perf_counter() - middle) * 1000)
            results.append(Timed(name, *_percentiles(mine), *_percentiles(bare)))
    return results


def _percentiles(values: list[float]) -> tuple[float, float]:
    return round(statistics.median(values), 2), round(sorted(values)[int(len(values) * 0.99)], 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    load, prefix = os.getloadavg()[0], f"bench-{uuid.uuid4().hex[:8]}"
    with stack(chosen.data_dir) as folder:
        state = load_state(folder)
        if state is None:
            raise SystemExit(f"there is no stack in {folder}")
        url = state.address("elasticsearch")
        try:
            fill(url, prefix, chosen.documents)
            results = asyncio.run(measure(url, prefix, chosen.rounds))
        finally:
            clear(url, prefix)
    if chosen.json:
        searches = [asdict(one) | {"ratio": round(one.ratio, 2)} for one in results]
        print(json.dumps({"documents": chosen.documents, "load_before": round(load, 2), "searches": searches}))
        return
    print(f"B9 {chosen.documents} payments, load before {load:.1f}; milliseconds, ours / raw")
    for one in results:
        print(
            f"  {one.search:20} p50 {one.ours_p50:6.1f} / {one.raw_p50:6.1f} = {one.ratio:.2f} (≤ 1.3)   "
            f"p99 {one.ours_p99:6.1f} / {one.raw_p99:6.1f} (≤ 150)"
        )


if __name__ == "__main__":
    main()
