"""B5: what the book costs: against its own SQL functions, a plain INSERT and bare SQL, alternating in one run.

    python -m benchmarks.b5_ledger --database-url postgresql+psycopg://... [--rounds 5] [--operations 400]
                                   [--connections 1 16 64] [--verbs] [--json]

*the functions themselves* are `ledger.post_one` and `ledger.post_batch`, the statements that our service sends, called
straight through psycopg over as many connections of their own: what is left is the service written in Python. The rest
runs over the same client and connections as ours. *plain INSERT* puts one row with a unique key into a log, one
commit each: the least that any recorded payment costs. *bare transfer* is what a ledger without a service would do: one
prepared statement that inserts a transfer with a unique key and its two entries and moves two guarded balances, one
commit each, on tables without history, sequences, outbox, holds, tenants or stored answers. *bare group* is the same
for 500 transfers in one set-based statement that checks no funds at all. Ours are `Ledger.post`, called by as many
callers as there are connections, and `Ledger.post_batch` of 500. With `--verbs` holds, captures and releases too.

*cold* spreads over many accounts, *hot* hits two accounts of the book each time. The URL's database is not touched: a
new one is made on its server, and afterwards the auditor must find the book sound. Target: post, cold >= 0.60 of the
bare transfer; batch >= 0.50 of the bare group.
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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, LiteralString

import psycopg
import uvloop
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from hub.migrations import migrate
from hub.money import Money
from hub.statements import Statements, open_statements
from ledger.book import Ledger
from ledger.model import FEE_INCOME, STP_SETTLEMENT, AccountRef, Leg, Post, Receipt, asset_of
from ledger.seed import Seed, seed
from ledger.verify import verify

BOOK: Final = "bench"
HALF: Final = 250
AMOUNT, FEE = Money(1000, "MXN"), Money(10, "MXN")
PLAIN: Final = "plain INSERT"

BARE: Final = "bare transfer"
BARE_GROUP: Final = "bare group of 500"
GROUP: Final = 500
COLD, HOT, BATCH = "post, cold", "post, hot", "batch of 500"
FUNCTION: Final = {COLD: "ledger.post_one, cold", HOT: "ledger.post_one, hot", BATCH: "ledger.post_batch of 500"}
"""Ours, and the function behind it called straight."""

_TABLES: Final = """
CREATE TABLE plain_log (id bigserial PRIMARY KEY, key text UNIQUE, account text, amount bigint, at timestamptz);
CREATE TABLE bare_transfer (id bigserial PRIMARY KEY, key text UNIQUE, at timestamptz NOT NULL);
CREATE TABLE bare_balance (account int PRIMARY KEY, amount bigint NOT NULL CHECK (amount >= 0)) WITH (fillfactor = 50);
CREATE TABLE bare_entry (transfer_id bigint REFERENCES bare_transfer, account int REFERENCES bare_balance,
    amount bigint NOT NULL, after bigint, PRIMARY KEY (transfer_id, account));
INSERT INTO bare_balance SELECT n, 100000000 FROM generate_series(0, 499) n;
"""
_INSERT: Final = (
    "INSERT INTO plain_log (key, account, amount, at) VALUES (%(key)s, %(account)s, 1000, clock_timestamp())"
)
# The credit waits for the debit and debits come from one half of the accounts: no two can lock each other out.
_BARE: Final = (
    "WITH t AS (INSERT INTO bare_transfer (key, at) VALUES (%(key)s, clock_timestamp()) ON CONFLICT DO NOTHING "
    "RETURNING id), d AS (UPDATE bare_balance b SET amount = b.amount - 1000 FROM t "
    "WHERE b.account = %(debit)s AND b.amount >= 1000 RETURNING b.account, b.amount), "
    "c AS (UPDATE bare_balance b SET amount = b.amount + 1000 FROM d WHERE b.account = %(credit)s "
    "RETURNING b.account, b.amount) INSERT INTO bare_entry SELECT t.id, d.account, -1000, d.amount FROM t, d "
    "UNION ALL SELECT t.id, c.account, 1000, c.amount FROM t, c"
)
_POST_ONE: Final = (
    "SELECT refusal, detail, txn_id, booked_at, replayed FROM ledger.post_one(%(book)s, %(operation)s, 'post', "
    "%(debit)s, %(credit)s, %(asset)s, %(amount)s, %(reference)s, NULL, NULL, 'bench')"
)
_POST_BATCH: Final = (
    "SELECT refusal, detail, txn_id, booked_at, replayed FROM ledger.post_batch(%(books)s::text[], "
    "%(operations)s::text[], %(debits)s::text[], %(credits)s::text[], %(assets)s::text[], %(amounts)s::bigint[], "
    "%(references)s::text[], %(nothing)s::text[], %(nothing)s::timestamptz[], 'bench', false)"
)
_BARE_GROUP: Final = (
    "WITH r AS (SELECT * FROM unnest(%(keys)s::text[], %(debits)s::int[], %(credits)s::int[]) AS r (key, dr, cr)), "
    "t AS (INSERT INTO bare_transfer (key, at) SELECT r.key, clock_timestamp() FROM r RETURNING id, key), "
    "s AS (SELECT account, sum(amount) AS amount FROM (SELECT dr AS account, -1000 AS amount FROM r "
    "UNION ALL SELECT cr, 1000 FROM r) x GROUP BY account), "
    "u AS (UPDATE bare_balance b SET amount = b.amount + s.amount FROM s WHERE s.account = b.account) "
    "INSERT INTO bare_entry SELECT t.id, r.dr, -1000, NULL::bigint FROM r JOIN t USING (key) "
    "UNION ALL SELECT t.id, r.cr, 1000, NULL::bigint FROM r JOIN t USING (key)"
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

    def times(self, count: int) -> Run:
        """As if each operation had been `count` of them."""
        return replace(self, per_second=self.per_second * count, cpu_us=self.cpu_us / count)


Operation = Callable[[str], Awaitable[object]]


async def burst(verb: str, connections: int, names: list[str], operation: Operation) -> Run:
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


def customer(name: str, step: int = 0) -> AccountRef:
    """One of the first half of the accounts (`step` 0) or of the second."""
    return AccountRef.customer(f"c{hash(name) % HALF + step * HALF}")


def post(
    ledger: Ledger, mark: str, debit: Callable[[str], AccountRef], credit: Callable[[str], AccountRef]
) -> Operation:
    """The operation that books one posting of the service per name."""

    async def operation(name: str) -> None:
        await ledger.post(BOOK, f"{name}:{mark}", [Leg(debit(name), credit(name), AMOUNT)], reference=name)

    return operation


Straight = Callable[[LiteralString, dict[str, Any]], Awaitable[list[Any]]]


@asynccontextmanager
async def straight(url: str, count: int) -> AsyncIterator[Straight]:
    """Runs a statement on one of as many connections of psycopg's own, each statement its own transaction."""
    free: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()
    async with AsyncExitStack() as opened:
        for _ in range(count):
            connection = await psycopg.AsyncConnection.connect(_plain(url), autocommit=True)
            free.put_nowait(await opened.enter_async_context(connection))

        async def run(statement: LiteralString, values: dict[str, Any]) -> list[Any]:
            connection = await free.get()
            try:
                return await (await connection.execute(statement, values)).fetchall()
            finally:
                free.put_nowait(connection)

        yield run


def post_straight(
    call: Straight, mark: str, debit: Callable[[str], AccountRef], credit: Callable[[str], AccountRef]
) -> Operation:
    """The operation that calls `ledger.post_one` itself once per name."""

    async def operation(name: str) -> None:
        values = {"book": BOOK, "operation": f"{name}:{mark}", "debit": str(debit(name)), "credit": str(credit(name))}
        found = await call(
            _POST_ONE, {**values, "asset": asset_of(AMOUNT.currency), "amount": AMOUNT.minor, "reference": name}
        )
        if found[0][0] is not None:
            raise SystemExit(f"ledger.post_one refused: {found[0][0]}")

    return operation


async def _transfers(
    statements: Statements, call: Straight, ledger: Ledger, connections: int, names: list[str]
) -> list[Run]:
    """The plain INSERT, the bare transfer, the functions and ours once each, in a random order."""

    async def plain(name: str) -> None:
        await statements.rows(_INSERT, {"key": name, "account": str(customer(name))})

    async def bare(name: str) -> None:
        place = hash(name) % HALF
        await statements.rows(_BARE, {"key": name, "debit": place, "credit": place + HALF})

    operations: list[tuple[str, Operation]] = [
        (PLAIN, plain),
        (BARE, bare),
        (COLD, post(ledger, "cold", customer, lambda name: customer(name, 1))),
        (HOT, post(ledger, "hot", lambda _: STP_SETTLEMENT, lambda _: FEE_INCOME)),
        (FUNCTION[COLD], post_straight(call, "function-cold", customer, lambda name: customer(name, 1))),
        (FUNCTION[HOT], post_straight(call, "function-hot", lambda _: STP_SETTLEMENT, lambda _: FEE_INCOME)),
    ]
    random.SystemRandom().shuffle(operations)
    return [await burst(verb, connections, names, operation) for verb, operation in operations]


async def _groups(statements: Statements, call: Straight, ledger: Ledger, names: list[str]) -> list[Run]:
    """The bare group, the function and `post_batch`, each over one connection."""
    parts = [names[place : place + GROUP] for place in range(0, len(names), GROUP)]

    async def bare(part: str) -> None:
        keys = parts[int(part)]
        places = [hash(name) % HALF for name in keys]
        values = {"keys": [f"{key}:g" for key in keys], "debits": places, "credits": [place + HALF for place in places]}
        await statements.rows(_BARE_GROUP, values)

    async def ours(part: str) -> None:
        posts = [
            Post(BOOK, f"{name}:batch", Leg(customer(name), customer(name, 1), AMOUNT), reference=name)
            for name in parts[int(part)]
        ]
        outcomes = await ledger.post_batch(posts)
        if not all(isinstance(outcome, Receipt) for outcome in outcomes):
            raise SystemExit("a batch was refused")

    async def function(part: str) -> None:
        names = parts[int(part)]
        found = await call(
            _POST_BATCH,
            {
                "books": [BOOK] * len(names),
                "operations": [f"{name}:function-batch" for name in names],
                "debits": [str(customer(name)) for name in names],
                "credits": [str(customer(name, 1)) for name in names],
                "assets": [asset_of(AMOUNT.currency)] * len(names),
                "amounts": [AMOUNT.minor] * len(names),
                "references": names,
                "nothing": [None] * len(names),
            },
        )
        if any(answer[0] is not None for answer in found):
            raise SystemExit("ledger.post_batch refused")

    operations: list[tuple[str, Operation]] = [(BARE_GROUP, bare), (FUNCTION[BATCH], function), (BATCH, ours)]
    random.SystemRandom().shuffle(operations)
    numbers = [str(number) for number in range(len(parts))]
    return [(await burst(verb, 1, numbers, operation)).times(GROUP) for verb, operation in operations]


async def _verbs(ledger: Ledger, connections: int, names: list[str]) -> list[Run]:
    """Holds and their ends."""

    async def hold(name: str) -> None:
        await ledger.hold(BOOK, f"{name}:hold", customer(name), AMOUNT, FEE, reference=name)

    async def capture(name: str) -> None:
        await ledger.capture(BOOK, f"{name}:hold", f"{name}:capture", STP_SETTLEMENT)

    async def hold_to_release(name: str) -> None:
        await ledger.hold(BOOK, f"{name}:hold-2", customer(name), AMOUNT, reference=name)

    async def release(name: str) -> None:
        await ledger.release(BOOK, f"{name}:hold-2", f"{name}:release")

    steps: list[tuple[str, Operation]] = [
        ("hold", hold),
        ("capture, hot, with fee", capture),
        ("", hold_to_release),
        ("release", release),
    ]
    runs = [await burst(verb, connections, names, operation) for verb, operation in steps]
    return [run for run in runs if run.verb]


async def measure(
    server_url: str, rounds: int, operations: int, connections: Sequence[int], *, verbs: bool
) -> dict[str, Any]:
    """Alternate ours and the limits; medians, and the ratios of each round."""
    load = os.getloadavg()[0]
    found: list[dict[str, Any]] = []
    async with bench_book(server_url) as url:
        for count in connections:
            async with open_statements(url, count) as statements, straight(url, count) as call:
                ledger, kept = Ledger(statements), list[list[Run]]()
                for number in range(rounds + 1):
                    names = new_names(operations)
                    runs = await _transfers(statements, call, ledger, count, names)
                    runs += await _verbs(ledger, count, names) if verbs else []
                    if number:  # the first one warms up
                        kept.append(runs)
            found += _summary(kept)
        async with open_statements(url, 1) as statements, straight(url, 1) as call:
            ledger, kept = Ledger(statements), []
            for number in range(rounds + 1):
                runs = await _groups(statements, call, ledger, new_names(4 * GROUP))
                if number:
                    kept.append(runs)
        found += _summary(kept)
    return {
        "benchmark": "b5-ledger",
        "rounds": rounds,
        "operations": operations,
        "cores": os.cpu_count(),
        "load_before": load,
        "verbs": found,
    }


def _summary(rounds: list[list[Run]]) -> list[dict[str, Any]]:
    by_round = [{run.verb: run for run in runs} for runs in rounds]
    order = (PLAIN, BARE, BARE_GROUP)
    rows = []
    for verb in sorted(by_round[0], key=lambda name: (order.index(name) if name in order else len(order), name)):
        runs = [one[verb] for one in by_round]
        middle = Run(verb, runs[0].connections, *(float(statistics.median(column)) for column in _columns(runs)))
        limits = {"plain": PLAIN, "bare": BARE, "bare_group": BARE_GROUP, "function": FUNCTION.get(verb, "")}
        rows.append(
            {**asdict(middle), **{f"of_{name}": ratio(by_round, verb, limit) for name, limit in limits.items()}}
        )
    return rows


def ratio(rounds: list[dict[str, Run]], verb: str, limit: str) -> list[float] | None:
    """Median, lowest and highest ratio of a verb to its limit, round by round; nothing where it was not measured."""
    ratios = [one[verb].per_second / one[limit].per_second for one in rounds if limit in one]
    return [statistics.median(ratios), min(ratios), max(ratios)] if ratios else None


def _columns(runs: list[Run]) -> list[list[float]]:
    return [[getattr(run, name) for run in runs] for name in ("per_second", "cpu_us", "p50_ms", "p99_ms")]


def new_names(count: int) -> list[str]:
    batch = uuid.uuid4().hex[:12]
    return [f"{batch}-{number}" for number in range(count)]


@asynccontextmanager
async def bench_book(server_url: str) -> AsyncIterator[str]:
    """A database of its own with a book of 500 accounts; it must be sound in the end, and is dropped then."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(_plain(server_url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    url = make_url(server_url).set(database=name).render_as_string(hide_password=False)
    try:
        with psycopg.connect(_plain(url), autocommit=True) as connection:
            connection.execute(_TABLES)
        await asyncio.to_thread(migrate, "ledger.migrations", url)
        accounts = [{"id": f"c{n}", "currency": "MXN", "opening_balance": "1000000.00"} for n in range(2 * HALF)]
        await seed(url, Seed.model_validate({"tenants": [{"id": BOOK, "accounts": accounts}]}))
        yield url
        report = await verify(url)
        if not report.sound:
            raise SystemExit(str(report))
    finally:
        with psycopg.connect(_plain(server_url), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def spread(ratios: list[float] | None) -> str:
    """`0.71 (0.65 to 0.80)`."""
    return "" if ratios is None else f"{ratios[0]:.2f} ({ratios[1]:.2f} to {ratios[2]:.2f})"


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    title = (
        f"The book ({result['rounds']} rounds of {result['operations']} operations, medians; {result['cores']} cores, "
        f"load before {result['load_before']:.1f})"
    )
    table = Table(title=title)
    for column in (
        "verb",
        "connections",
        "per second",
        "CPU us/op",
        "p50 ms",
        "p99 ms",
        "of plain",
        "of bare",
        "of function",
    ):
        table.add_column(column, justify="left" if column == "verb" else "right")
    for row in result["verbs"]:
        table.add_row(
            row["verb"],
            str(row["connections"]),
            f"{row['per_second']:.0f}",
            f"{row['cpu_us']:.0f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            spread(row["of_plain"]),
            spread(row["of_bare"] or row["of_bare_group"]),
            spread(row["of_function"]),
        )
    Console().print(table)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What both benchmarks of the book are asked with."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default=os.environ.get("PAYHUB_LEDGER_DATABASE_URL"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operations", type=int, default=400)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--json", action="store_true")
    return parser


def asked(parser: argparse.ArgumentParser) -> argparse.Namespace:
    given = parser.parse_args()
    if not given.database_url:
        parser.error(
            "--database-url or PAYHUB_LEDGER_DATABASE_URL must name a PostgreSQL whose user may create databases"
        )
    return given


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--verbs", action="store_true")
    given = asked(parser)
    result = uvloop.run(
        measure(given.database_url, given.rounds, given.operations, given.connections, verbs=given.verbs)
    )
    print(json.dumps(result)) if given.json else show(result)


if __name__ == "__main__":
    main()
