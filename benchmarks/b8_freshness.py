"""B8: how long after the engine wrote a record a search finds its document.

    python -m benchmarks.b8_freshness [--data-dir FOLDER] [--rate 15] [--seconds 20] [--json]

Payments are handed to the real engine at a steady rate; nobody does their jobs. The operations exporter runs as
`payhub export operations`. From the moment in the engine's own record until a search of the alias has the document:
Zeebe's exporter, Kafka, the fold, Elasticsearch and its refresh are all in it, and the 20 ms of asking. The stack of
the folder is used, else one is started. Target: p50 <= 0.8 s, p99 <= 2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from elastic_transport import TransportError

import bpmn
from benchmarks.b7_streamer import stack
from connectors.channel.model import PaymentAccepted
from exporters.elastic import open_client
from hub.elastic import ApiError, Elasticsearch
from hub.settings import EngineSettings
from hub.stack.state import load_state
from hub.transfer import IdentifierType, Party, PaymentId, TenantId
from hub.zeebe.client import ZeebeEngine, open_engine

ASK_EVERY = 0.02
GIVE_UP_AFTER = 60.0


@dataclass
class Result:
    """Seconds."""

    payments: int
    rate: float
    p50: float
    p99: float
    slowest: float
    load_before: float


@contextmanager
def exporter(environment: dict[str, str]) -> Iterator[None]:
    """`payhub export operations` for as long as this is open."""
    command = [sys.executable, "-m", "hub.cli", "export", "operations"]
    running = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        running.terminate()
        running.wait(30)


def payment(payment_id: str) -> PaymentAccepted:
    ana, luis = (Party(id_type=IdentifierType.MSISDN, identifier=f"52551111000{n}", name="Ana") for n in (1, 2))
    return PaymentAccepted(
        payment_id=PaymentId(payment_id),
        tenant_id=TenantId("bench"),
        amount=100,
        currency="MXN",
        payer=ana,
        payee=luis,
        concept="bench",
        reference_number=1,
    )


class Watch:
    """Asks Elasticsearch again and again which of the payments it finds, and notes when it first did."""

    def __init__(self, client: Elasticsearch, index: str) -> None:
        self._client = client
        self._index = index
        self.waiting: set[str] = set()
        self.delays: list[float] = []

    async def look(self) -> None:
        if not self.waiting:
            return
        asked = sorted(self.waiting)[:500]
        try:
            found = await asyncio.to_thread(self._search, asked)
        except (ApiError, TransportError):
            return
        seen = time.time()
        for payment_id, accepted_at in found:
            self.waiting.discard(payment_id)
            self.delays.append(seen - datetime.fromisoformat(accepted_at).timestamp())

    def _search(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        answer = self._client.search(
            index=self._index,
            query={"bool": {"filter": [{"terms": {"paymentId": ids}}, {"exists": {"field": "acceptedAt"}}]}},
            size=len(ids),
            source_includes=["paymentId", "acceptedAt"],
        )
        return [(hit["_source"]["paymentId"], hit["_source"]["acceptedAt"]) for hit in answer["hits"]["hits"]]

    async def until(self, number: int) -> None:
        end = time.monotonic() + GIVE_UP_AFTER
        while len(self.delays) < number:
            if time.monotonic() > end:
                raise RuntimeError(f"{number - len(self.delays)} payments are not in the view")
            await self.look()
            await asyncio.sleep(ASK_EVERY)


async def send(engine: ZeebeEngine, watch: Watch, number: int, rate: float) -> None:
    for _ in range(number):
        payment_id = str(uuid.uuid4())
        watch.waiting.add(payment_id)
        await engine.publish(payment(payment_id))
        await asyncio.sleep(1 / rate)


async def measure(folder: Path, rate: float, seconds: float) -> Result:
    state = load_state(folder)
    if state is None:
        raise SystemExit(f"there is no stack in {folder}")
    client, load = open_client(state.address("elasticsearch")), os.getloadavg()[0]
    # The fold's own group reads the whole topic once; the alias of this run is its own.
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    watch = Watch(client, f"{prefix}-transfers")
    variables = {**state.variables(), "PAYHUB_EXPORT_INDEX_PREFIX": prefix}
    async with open_engine(EngineSettings(address=state.address("zeebe"))) as engine:
        await engine.deploy(bpmn.resources())
        with exporter(variables):
            await asyncio.gather(send(engine, watch, 20, rate), watch.until(20))  # until it has caught up
            watch.delays.clear()
            number = int(rate * seconds)
            await asyncio.gather(send(engine, watch, number, rate), watch.until(number))
    client.indices.delete(index=list(client.indices.get(index=f"{prefix}-*").body))
    client.indices.delete_index_template(name=f"{prefix}-*")
    client.close()
    delays = sorted(watch.delays)
    return Result(
        payments=number,
        rate=rate,
        p50=round(delays[len(delays) // 2], 3),
        p99=round(delays[min(len(delays) - 1, int(len(delays) * 0.99))], 3),
        slowest=round(delays[-1], 3),
        load_before=round(load, 2),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rate", type=float, default=15)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with stack(chosen.data_dir) as folder:
        result = asyncio.run(measure(folder, chosen.rate, chosen.seconds))
    if chosen.json:
        print(json.dumps(asdict(result)))
    else:
        print(
            f"B8 {result.payments} payments at {result.rate:.0f}/s: p50 {result.p50:.2f} s (≤ 0.8), "
            f"p99 {result.p99:.2f} s (≤ 2), slowest {result.slowest:.2f} s; load before {result.load_before}"
        )


if __name__ == "__main__":
    main()
