"""B2 and B4: the full hub against the same drawings with workers that do nothing, alternating on one engine.

B2, throughput: payments per second, half of them over the pretend STP with its callback, half between own accounts. The
hub's side begins with an HTTP request per payment and ends when the last outcome is written; every round ends with the
conservation check (accepted = ended, the book verifies, no hold is left).
B4, latency: payments started at half of B2's rate whatever happens; accepted to outcome, hub minus engine alone.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import statistics
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from sqlalchemy.engine import make_url

from benchmarks.engine_only import EngineOnly
from hub.trial import BBVA, TrialHub, transfer
from ledger.verify import verify


@dataclass(frozen=True, slots=True)
class Measured:
    """Rates in payments per second, latencies in milliseconds, CPU in milliseconds per payment of our processes."""

    rounds: int
    payments_per_round: int
    hub: list[float]
    engine_only: list[float]
    ratio: float
    spread: tuple[float, float]
    hub_cpu_ms_per_payment: float
    added_p50_ms: float
    added_p99_ms: float
    hub_p50_ms: float
    hub_p99_ms: float
    latency_rate: float
    cores: int
    load_before: float


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


class Clients:
    """Patient clients of the channel that cost next to nothing: they share the two cores with what is measured."""

    def __init__(self, channel_url: str, headers: Mapping[str, str], count: int = 16) -> None:
        self._address = urlsplit(channel_url).netloc
        self._headers = {**headers, "Content-Type": "application/json"}
        self._threads = ThreadPoolExecutor(count)
        self._own = threading.local()

    async def pay(self, body: Mapping[str, Any], key: str) -> None:
        """Send a transfer, and the same again until it is answered 202."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._pay, json.dumps(body), key)

    def _pay(self, body: str, key: str) -> None:
        while self._answered(body, key) != HTTPStatus.ACCEPTED:
            time.sleep(0.2)

    def _answered(self, body: str, key: str) -> int:
        line: http.client.HTTPConnection | None = getattr(self._own, "line", None)
        if line is None:
            line = self._own.line = http.client.HTTPConnection(self._address, timeout=20)
        try:
            line.request("POST", "/channel/transfer", body, {**self._headers, "X-CorrelationID": key})
            answer = line.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            line.close()
            return 0
        return answer.status


class HubRounds:
    """One side of the comparison: the hub as its clients see it."""

    def __init__(self, hub: TrialHub, database_url: str) -> None:
        self._clients = Clients(hub.urls["channel"], hub.headers())
        self._database_url = database_url

    async def _pay(self, count: int, rate: float | None, prefix: str) -> None:
        """Send `count` payments: as fast as the clients can, or at `rate` per second."""

        async def one(number: int) -> None:
            body = transfer("2.00", payee=BBVA, payee_type="CLABE") if number % 2 else transfer("2.00")
            await self._clients.pay(body, f"{prefix}-{number}")

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(number))
                if rate is not None:
                    await asyncio.sleep(1 / rate)

    async def _ended(self, connection: psycopg.AsyncConnection, prefix: str, count: int) -> None:
        end = time.monotonic() + 180
        while time.monotonic() < end:
            found = await connection.execute(
                "SELECT count(*) FROM channel.payment WHERE idempotency_key LIKE %s AND completed_at IS NOT NULL",
                (f"{prefix}-%",),
            )
            row = await found.fetchone()
            if row is not None and row[0] == count:
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"not all of {count} payments ended")

    async def throughput(self, count: int) -> float:
        """Payments per second from the first request to the last outcome."""
        prefix = uuid.uuid4().hex[:8]
        async with await psycopg.AsyncConnection.connect(_plain(self._database_url), autocommit=True) as connection:
            began = time.monotonic()
            await asyncio.gather(self._pay(count, None, prefix), self._ended(connection, prefix, count))
            rate = count / (time.monotonic() - began)
            await self._conserved(connection, prefix, count)
        return rate

    async def latencies(self, count: int, rate: float) -> list[float]:
        """Seconds from accepted to outcome, by the database's clock."""
        prefix = uuid.uuid4().hex[:8]
        async with await psycopg.AsyncConnection.connect(_plain(self._database_url), autocommit=True) as connection:
            await self._pay(count, rate, prefix)
            await self._ended(connection, prefix, count)
            rows = await connection.execute(
                "SELECT extract(epoch FROM completed_at - accepted_at) FROM channel.payment"
                " WHERE idempotency_key LIKE %s",
                (f"{prefix}-%",),
            )
            return [float(row[0]) for row in await rows.fetchall()]

    async def _conserved(self, connection: psycopg.AsyncConnection, prefix: str, count: int) -> None:
        rows = await connection.execute(
            "SELECT count(*) FROM channel.payment WHERE idempotency_key LIKE %s AND outcome = 'SETTLED'",
            (f"{prefix}-%",),
        )
        settled = await rows.fetchone()
        held = await (await connection.execute("SELECT coalesce(sum(hold_out), 0) FROM ledger.balance")).fetchone()
        report = await verify(self._database_url)
        if settled is None or settled[0] != count or held is None or held[0] != 0 or not report.sound:
            raise RuntimeError(f"not conserved: {settled} of {count} settled, {held} held, {report}")


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


async def measure(
    folder: Path, zeebe_address: str, database_url: str, rounds: int = 3, payments: int = 400
) -> Measured:
    """Alternate the two sides `rounds` times after warming up: the engine compiles for its first few thousand payments,
    and whichever side came second would win.
    """
    load = os.getloadavg()[0]
    hub_rates: list[float] = []
    engine_rates: list[float] = []
    cpu: list[float] = []
    hub_latencies: list[float] = []
    engine_latencies: list[float] = []
    async with TrialHub.open(folder, zeebe_address, database_url) as hub:
        ours = HubRounds(hub, database_url)
        async with EngineOnly.open(zeebe_address) as engine_only:
            await engine_only.throughput(4 * payments)
        for turn in range(rounds + 1):
            await hub.start_all()
            before = hub.cpu_seconds()
            rate = await ours.throughput(payments)
            used = (hub.cpu_seconds() - before) / payments * 1000
            if turn == rounds:
                at = statistics.median(hub_rates) / 2
                hub_latencies = await ours.latencies(payments, at)
            await hub.stop_all()
            async with EngineOnly.open(zeebe_address) as engine_only:
                ceiling = await engine_only.throughput(payments)
                if turn == rounds:
                    engine_latencies = await engine_only.latencies(payments, at)
            if turn:
                hub_rates.append(rate)
                engine_rates.append(ceiling)
                cpu.append(used)
            else:
                hub_rates[:] = []
    ratios = [one / other for one, other in zip(hub_rates, engine_rates, strict=True)]
    return Measured(
        rounds=rounds,
        payments_per_round=payments,
        hub=[round(rate, 1) for rate in hub_rates],
        engine_only=[round(rate, 1) for rate in engine_rates],
        ratio=round(statistics.median(ratios), 3),
        spread=(round(min(ratios), 3), round(max(ratios), 3)),
        hub_cpu_ms_per_payment=round(statistics.median(cpu), 2),
        added_p50_ms=round(_percentile(hub_latencies, 0.5) - _percentile(engine_latencies, 0.5), 1),
        added_p99_ms=round(_percentile(hub_latencies, 0.99) - _percentile(engine_latencies, 0.99), 1),
        hub_p50_ms=round(_percentile(hub_latencies, 0.5), 1),
        hub_p99_ms=round(_percentile(hub_latencies, 0.99), 1),
        latency_rate=round(statistics.median(hub_rates) / 2, 1),
        cores=os.cpu_count() or 0,
        load_before=round(load, 2),
    )


def as_json(measured: Measured) -> str:
    return json.dumps(asdict(measured))
