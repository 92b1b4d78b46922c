"""B5: what the book's verbs cost, against one plain INSERT, alternating in one run.

    python -m benchmarks.b5_ledger --database-url postgresql+psycopg://... [--rounds 5] [--operations 400] [--json]

*plain* inserts one row with a unique key into a log, over the same client and connections, one commit each: the least
that any recorded payment costs. Every verb commits once too. *cold* spreads over many accounts, *hot* hits the same two
accounts of the book (settlement and fee income) each time. The URL's database is not touched: a new one is made on its
server, and afterwards the auditor must find the book sound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg
import uvloop
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from hub.migrations import migrate
from hub.money import Money
from hub.statements import Statements, open_statements
from ledger.book import Ledger
from ledger.model import FEE_INCOME, STP_SETTLEMENT, AccountRef, Leg
from ledger.seed import Seed, seed
from ledger.verify import verify

BOOK: Final = "bench"
ACCOUNTS: Final = 500
AMOUNT, FEE = Money(1000, "MXN"), Money(10, "MXN")
PLAIN: Final = "plain INSERT"

_LOG: Final = (
    "CREATE TABLE plain_log (id bigserial PRIMARY KEY, key text UNIQUE, account text, amount bigint, at timestamptz)"
)
_INSERT: Final = (
    "INSERT INTO plain_log (key, account, amount, at) VALUES (%(key)s, %(account)s, 1000, clock_timestamp())"
)


@dataclass(frozen=True)
class Run:
    """One burst of one verb."""

    verb: str
    connections: int
    per_second: float
    cpu_us: float
    """Processor time of this process, the client, per operation."""

    p50_ms: float
    p99_ms: float


async def _burst(verb: str, connections: int, names: list[str], operation: Callable[[str], Awaitable[object]]) -> Run:
    """Run the operation once for each name, `connections` at a time."""
    waiting: Iterator[str] = iter(names)
    times: list[float] = []

    async def client() -> None:
        for name in waiting:
            began = time.perf_counter()
            await operation(name)
            times.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(connections)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    times.sort()
    count = len(times)
    return Run(
        verb,
        connections,
        count / took,
        cpu / count * 1e6,
        times[count // 2] * 1000,
        times[min(count - 1, count * 99 // 100)] * 1000,
    )


async def _round(statements: Statements, ledger: Ledger, connections: int, operations: int) -> list[Run]:
    """Each verb once, in a random order but for captures, which need holds."""
    chance = random.Random(uuid.uuid4().int)
    batch = uuid.uuid4().hex[:12]
    names = [f"{batch}-{number}" for number in range(operations)]

    def account(name: str, step: int = 0) -> AccountRef:
        return AccountRef.customer(f"c{(hash(name) + step) % ACCOUNTS}")

    async def plain(name: str) -> None:
        await statements.rows(_INSERT, {"key": name, "account": str(account(name))})

    async def hold_with_fee(name: str) -> None:
        await ledger.hold(BOOK, f"{name}:hold", account(name), AMOUNT, FEE, reference=name)

    async def capture_hot(name: str) -> None:
        await ledger.capture(BOOK, f"{name}:hold", f"{name}:capture", STP_SETTLEMENT)

    async def hold_without_fee(name: str) -> None:
        await ledger.hold(BOOK, f"{name}:hold-2", account(name), AMOUNT, reference=name)

    async def capture_cold(name: str) -> None:
        await ledger.capture(BOOK, f"{name}:hold-2", f"{name}:capture-2", account(name, 1))

    async def release(name: str) -> None:
        await ledger.release(BOOK, f"{name}:hold-3", f"{name}:release-3")

    async def hold_to_release(name: str) -> None:
        await ledger.hold(BOOK, f"{name}:hold-3", account(name), AMOUNT, reference=name)

    async def post_cold(name: str) -> None:
        await ledger.post(BOOK, f"{name}:post", [Leg(account(name), account(name, 1), AMOUNT)], reference=name)

    async def post_hot(name: str) -> None:
        await ledger.post(BOOK, f"{name}:post-2", [Leg(STP_SETTLEMENT, FEE_INCOME, AMOUNT)], reference=name)

    groups: list[list[tuple[str, Callable[[str], Awaitable[None]]]]] = [
        [(PLAIN, plain)],
        [("hold", hold_with_fee), ("capture, hot, with fee", capture_hot)],
        [("", hold_without_fee), ("capture, cold", capture_cold)],
        [("", hold_to_release), ("release", release)],
        [("post, cold", post_cold)],
        [("post, hot", post_hot)],
    ]
    chance.shuffle(groups)
    runs = [await _burst(verb, connections, names, operation) for group in groups for verb, operation in group]
    return [run for run in runs if run.verb]


async def measure(server_url: str, rounds: int, operations: int) -> dict[str, Any]:
    """Alternate the verbs and return medians and their ratios to the plain INSERT of the same round."""
    load = os.getloadavg()[0]
    url = _new_database(server_url)
    await asyncio.to_thread(migrate, "ledger.migrations", url)
    accounts = [{"id": f"c{n}", "currency": "MXN", "opening_balance": "1000000.00"} for n in range(ACCOUNTS)]
    await seed(url, Seed.model_validate({"tenants": [{"id": BOOK, "accounts": accounts}]}))
    found: list[dict[str, Any]] = []
    for connections in (1, 16):
        async with open_statements(url, connections) as statements:
            ledger, kept = Ledger(statements), list[list[Run]]()
            for number in range(rounds + 1):
                runs = await _round(statements, ledger, connections, operations)
                if number:  # the first one warms up
                    kept.append(runs)
        found += _summary(connections, kept)
    report = await verify(url)
    if not report.sound:
        raise SystemExit(str(report))
    _drop_database(server_url, url)
    return {
        "benchmark": "b5-ledger",
        "rounds": rounds,
        "operations": operations,
        "cores": os.cpu_count(),
        "load_before": load,
        "verbs": found,
    }


def _summary(connections: int, rounds: list[list[Run]]) -> list[dict[str, Any]]:
    by_round = [{run.verb: run for run in runs} for runs in rounds]
    rows = []
    for verb in sorted(by_round[0], key=lambda name: (name != PLAIN, name)):
        runs = [one[verb] for one in by_round]
        ratios = [one[verb].per_second / one[PLAIN].per_second for one in by_round]
        middle = Run(verb, connections, *(float(statistics.median(column)) for column in _columns(runs)))
        rows.append({**asdict(middle), "ratio": statistics.median(ratios), "ratios": [min(ratios), max(ratios)]})
    return rows


def _columns(runs: list[Run]) -> list[list[float]]:
    return [[getattr(run, name) for run in runs] for name in ("per_second", "cpu_us", "p50_ms", "p99_ms")]


def _new_database(server_url: str) -> str:
    name = f"b5_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(_plain(server_url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    url = make_url(server_url).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(_plain(url), autocommit=True) as connection:
        connection.execute(_LOG)
    return url


def _drop_database(server_url: str, url: str) -> None:
    with psycopg.connect(_plain(server_url), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)".encode())


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    title = (
        f"The book ({result['rounds']} rounds of {result['operations']} operations, medians; {result['cores']} cores, "
        f"load before {result['load_before']:.1f})"
    )
    table = Table(title=title)
    for column in ("verb", "connections", "per second", "CPU us/op", "p50 ms", "p99 ms", "of plain", "spread"):
        table.add_column(column, justify="left" if column == "verb" else "right")
    for row in result["verbs"]:
        table.add_row(
            row["verb"],
            str(row["connections"]),
            f"{row['per_second']:.0f}",
            f"{row['cpu_us']:.0f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['ratios'][0]:.2f} to {row['ratios'][1]:.2f}",
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default=os.environ.get("PAYHUB_LEDGER_DATABASE_URL"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operations", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not given.database_url:
        parser.error(
            "--database-url or PAYHUB_LEDGER_DATABASE_URL must name a PostgreSQL whose user may create databases"
        )
    result = uvloop.run(measure(given.database_url, given.rounds, given.operations))
    print(json.dumps(result)) if given.json else show(result)


if __name__ == "__main__":
    main()
