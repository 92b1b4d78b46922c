"""B1: what accepting a payment costs, against a handler that does nothing, alternating in one run.

    python -m benchmarks.b1_accept --database-url postgresql+psycopg://... [--pairs 5] [--seconds 4] [--json]

Both run in a process of their own, on the same server, event loop and core; the load comes from this process over
keep-alive connections. *Accept* is the channel's own route with everything on: token, validation, the commit, the relay
(to an engine that takes everything at once), metrics and a log line. *Replay* sends one key again and again. CPU is the
serving process's, from /proc; it stays true when the machine is busy, which the rates do not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

TENANT = "bench-accept"
BODY = {
    "clientRefId": "order-7",
    "payer": {"partyIdInfo": {"partyIdType": "MSISDN", "partyIdentifier": "525511110001"}, "name": "Ana Torres"},
    "payee": {"partyIdInfo": {"partyIdType": "CLABE", "partyIdentifier": "012180001183597198"}, "name": "Luis Vega"},
    "amount": {"amount": "850.00", "currency": "MXN"},
    "amountType": "SEND",
    "transactionType": {"scenario": "TRANSFER", "initiator": "PAYER", "initiatorType": "CONSUMER"},
    "note": "Rent November",
    "customData": [{"key": "referenceNumber", "value": 77}],
}
KINDS = ("nothing", "accept", "replay")


@dataclass(frozen=True)
class Run:
    """One burst against one handler."""

    kind: str
    requests: int
    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


# --- The two servers ---


async def _serve_nothing(port: int) -> None:
    from fastapi import FastAPI

    from hub.api import serve

    app = FastAPI()

    @app.post("/channel/transfer", status_code=202)
    async def nothing(_: dict[str, Any]) -> dict[str, str]:
        return {"transactionId": "0198f0c0-0000-7000-8000-000000000000"}

    await serve(app, "127.0.0.1", port)


async def _serve_accept(port: int, database_url: str, keys: str) -> None:
    from connectors.channel.api import build_channel_app
    from connectors.channel.relay import Relay
    from connectors.channel.settings import ChannelSettings
    from connectors.channel.store import ChannelStore
    from hub.api import serve
    from hub.messages import Message, Published
    from hub.settings import TokenSettings
    from hub.statements import open_statements
    from hub.telemetry import configure_logging
    from hub.tokens import TokenVerifier

    class Taking:
        """Takes everything at once."""

        async def publish(self, message: Message) -> Published:
            message.variables()
            return Published.NEW

    configure_logging("bench")
    async with open_statements(database_url) as database:
        store = ChannelStore(database)
        # Nobody claims here, so what was published must leave the window at once.
        relay = Relay(store, Taking(), ChannelSettings(window=500, window_age=0.001))
        app = build_channel_app(store, relay, TokenVerifier(TokenSettings(jwks_file=Path(keys))))
        running = asyncio.ensure_future(relay.run())
        try:
            await serve(app, "127.0.0.1", port)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


# --- The load ---


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the last was answered."""

    def __init__(self, request: Iterator[bytes], until: float, times: list[float]) -> None:
        self._request, self._until, self._times = request, until, times
        self._buffer = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        if time.perf_counter() >= self._until:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(next(self._request))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        if not head.startswith(b"HTTP/1.1 202 "):
            raise SystemExit(f"unexpected answer: {self._buffer[:400]!r}")
        self._buffer = b""
        self._times.append(time.perf_counter() - self._sent)
        self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def _requests(kind: str, token: str) -> Iterator[bytes]:
    body = json.dumps(BODY).encode()
    run, number = os.urandom(6).hex(), 0
    while True:
        number += 1
        key = "the-same" if kind == "replay" else f"{run}-{number}"
        head = (
            f"POST /channel/transfer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nPlatform-TenantId: {TENANT}\r\nX-CorrelationID: {key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


async def _burst(kind: str, server: tuple[int, int], token: str, seconds: float, connections: int) -> Run:
    port, pid = server
    loop, times = asyncio.get_running_loop(), list[float]()
    requests, began, cpu = _requests(kind, token), time.perf_counter(), _cpu(pid)
    opened = [
        (await loop.create_connection(lambda: _Connection(requests, began + seconds, times), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.ended for connection in opened))
    took, cpu = time.perf_counter() - began, _cpu(pid) - cpu
    times.sort()
    return Run(
        kind=kind,
        requests=len(times),
        per_second=len(times) / took,
        cpu_us=cpu / len(times) * 1e6,
        p50_ms=times[len(times) // 2] * 1000,
        p99_ms=times[len(times) * 99 // 100] * 1000,
    )


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process has used, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _server(kind: str, *arguments: str) -> Iterator[tuple[int, int]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.b1_accept", "--serve", kind, str(port), *arguments]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
            yield port, process.pid
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


async def measure(database_url: str, pairs: int = 5, seconds: float = 4, connections: int = 16) -> dict[str, Any]:
    """Alternate the handlers `pairs` times and return medians and ratios."""
    from connectors.channel.seed import Seed, seed
    from hub.migrations import migrate
    from hub.tokens import JWKS_FILE, LocalIssuer

    await asyncio.to_thread(migrate, "connectors.channel.migrations", database_url)
    await seed(database_url, Seed.model_validate({"tenants": [{"id": TENANT, "name": "Benchmark"}]}))
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        token = LocalIssuer.open(Path(folder)).mint("channel", TENANT)
        keys = str(Path(folder) / JWKS_FILE)
        with _server("nothing") as nothing, _server("accept", database_url, keys) as accept:
            for warm in (True, *[False] * pairs):
                for kind in KINDS:
                    server = nothing if kind == "nothing" else accept
                    run = await _burst(kind, server, token, 1 if warm else seconds, connections)
                    runs += [] if warm else [run]
    middle = {kind: _median([run for run in runs if run.kind == kind]) for kind in KINDS}
    ratios = {
        f"{kind}_to_nothing": statistics.median(
            ours.per_second / theirs.per_second
            for ours, theirs in zip(_of(runs, kind), _of(runs, "nothing"), strict=True)
        )
        for kind in ("accept", "replay")
    }
    return {
        "benchmark": "b1-accept",
        "connections": connections,
        "pairs": pairs,
        "medians": {kind: asdict(run) for kind, run in middle.items()},
        "ratios": ratios,
        "cpu_ratio": middle["accept"].cpu_us / middle["nothing"].cpu_us,
        "runs": [asdict(run) for run in runs],
    }


def _of(runs: list[Run], kind: str) -> list[Run]:
    return [run for run in runs if run.kind == kind]


def _median(runs: list[Run]) -> Run:
    def middle(name: str) -> float:
        return float(statistics.median(getattr(run, name) for run in runs))

    return Run(
        runs[0].kind,
        int(middle("requests")),
        middle("per_second"),
        middle("cpu_us"),
        middle("p50_ms"),
        middle("p99_ms"),
    )


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    table = Table(title=f"Accepting a payment ({result['pairs']} pairs, {result['connections']} connections, medians)")
    for column in ("handler", "requests/s", "CPU us/request", "p50 ms", "p99 ms", "of nothing"):
        table.add_column(column, justify="left" if column == "handler" else "right")
    for kind, run in result["medians"].items():
        ratio = result["ratios"].get(f"{kind}_to_nothing", 1.0)
        table.add_row(
            kind,
            f"{run['per_second']:.0f}",
            f"{run['cpu_us']:.0f}",
            f"{run['p50_ms']:.1f}",
            f"{run['p99_ms']:.1f}",
            f"{ratio:.2f}",
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default=os.environ.get("PAYHUB_DATABASE_URL"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        kind, port, *rest = given.serve
        uvloop.run(_serve_nothing(int(port)) if kind == "nothing" else _serve_accept(int(port), *rest))
        return
    if not given.database_url:
        parser.error("--database-url or PAYHUB_DATABASE_URL must name a PostgreSQL")
    result = uvloop.run(measure(given.database_url, given.pairs, given.seconds, given.connections))
    print(json.dumps(result)) if given.json else show(result)


if __name__ == "__main__":
    main()
