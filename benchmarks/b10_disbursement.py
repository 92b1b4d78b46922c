"""B10: what a day's run costs: stores due at once, from looking at them to a transfer for each, in time and memory.

    python -m benchmarks.b10_disbursement --database-url postgresql+psycopg://... [--stores 10000] [--rounds 3]
                                          [--connections 8] [--json]

Ours is `Runs.select`, page by page with every verdict kept, and `Transfers.collect` of each store on as many
connections. *raw, store by store* sends the statements that write the same rows straight through psycopg, the same
pages, transactions, locks and connections. *raw, all at once* writes them for all stores in one statement, which nobody
could resume, and which holds every store for as long as it takes: the least that PostgreSQL needs.

Each side of each round is a process of its own on fresh rows: a copy of one prepared database. Memory is the peak of
that process; growth is what it took beyond having started. What the engine, the jobs and the orders cost on top is not
in it. Afterwards each side must have left as many transfers of the same sum, with every update in one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg
import uvloop
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from hub.migrations import migrate
from hub.statements import open_statements
from ledger.disbursement.model import Collected, Frequency, Trigger
from ledger.disbursement.runs import Runs
from ledger.disbursement.transfers import Transfers
from ledger.seed import Seed, seed
from ledger.settings import APP_ROLE

BOOK: Final = "bench"
PAGE: Final = 200
UPDATES_PER_STORE: Final = 2
EFFECT: Final = 96_450
OURS, RAW, AT_ONCE = "ours", "raw, store by store", "raw, all at once"

# A store in a hundred owes more than it is owed, so that not every verdict is the same.
_STORES: Final = """
    INSERT INTO disbursement.merchant (tenant_id, id, name, tax_id, validated)
        VALUES ('bench', 'm', 'Muebles', 'MUE010101AAA', true);
    INSERT INTO disbursement.store (tenant_id, id, merchant_id, name, frequency, validated)
        SELECT 'bench', 's' || lpad(n::text, 6, '0'), 'm', 'Store', 'DAILY', true FROM generate_series(1, {stores}) n;
    INSERT INTO disbursement.bank_account (tenant_id, store_id, clabe, holder_name, tax_id, authenticated_at,
                                           authenticated_by)
        SELECT 'bench', id, '646180110400000007', 'Muebles', 'MUE010101AAA', now(), 't' FROM disbursement.store;
    INSERT INTO disbursement.credit (tenant_id, id, store_id, amount, commission, signed_at)
        SELECT 'bench', s.id || '-' || n, s.id, 100000, 3550, now()
          FROM disbursement.store s CROSS JOIN generate_series(1, {updates}) n;
    DO $$
    DECLARE
        v record;
    BEGIN
        FOR v IN SELECT * FROM disbursement.credit ORDER BY id LOOP
            PERFORM disbursement.append_update(
                'bench', v.store_id, 'CONTRIBUTION', 96450, 'PENDING', NULL, v.id, NULL, v.id, NULL, 'bench',
                'delivered', ARRAY['credit-receivable', 'credit-receivable'], ARRAY['@', 'commission-income'],
                ARRAY[96450, 3550], v.id, NULL);
        END LOOP;
        FOR v IN SELECT id FROM disbursement.store WHERE right(id, 2) = '00' LOOP
            PERFORM disbursement.append_update(
                'bench', v.id, 'BALANCE_ADJUSTMENT', -500000, 'PENDING', NULL, NULL, NULL, 'owes:' || v.id, 'bench',
                'bench', 'adjusted', ARRAY['@'], ARRAY['balance-adjustment'], ARRAY[500000], NULL, NULL);
        END LOOP;
    END $$;
"""
_RUN: Final = (
    "INSERT INTO disbursement.run (id, tenant_id, frequency, scheduled_for, requested_by) "
    "VALUES (%(run)s, 'bench', 'DAILY', now(), 'bench')"
)
_LOOK: Final = (
    "SELECT store_id, verdict, updates, total::bigint, minimum_amount FROM disbursement.standing "
    "WHERE tenant_id = 'bench' AND frequency = 'DAILY' AND store_id > %(after)s ORDER BY store_id LIMIT %(limit)s"
)
_KEEP: Final = (
    "INSERT INTO disbursement.run_store (run_id, store_id, verdict, updates, total, minimum, payment_id) "
    "SELECT %(run)s, x.* FROM unnest(%(stores)s::text[], %(verdicts)s::text[], %(updates)s::bigint[], "
    "%(totals)s::bigint[], %(minima)s::bigint[], %(payments)s::text[]) AS x"
)
_LOCK: Final = "SELECT FROM disbursement.store WHERE tenant_id = 'bench' AND id = %(store)s FOR NO KEY UPDATE"
_COLLECT: Final = (
    "WITH taken AS (UPDATE disbursement.balance_update SET status = 'IN_TRANSIT' WHERE tenant_id = 'bench' "
    "AND store_id = %(store)s AND status = 'PENDING' RETURNING id, effect), "
    "made AS (INSERT INTO disbursement.bank_transfer (id, tenant_id, store_id, amount, currency, trigger, run_id, "
    "clabe, holder_name, tax_id, needs_confirmation) "
    "SELECT %(id)s, 'bench', n.store_id, (SELECT sum(effect) FROM taken), n.currency, 'DAILY', "
    "%(run)s, n.clabe, n.holder_name, n.tax_id, n.manual_confirmation "
    "FROM disbursement.standing n WHERE n.tenant_id = 'bench' AND n.store_id = %(store)s RETURNING id, status), "
    "recorded AS (INSERT INTO disbursement.bank_transfer_status (transfer_id, status, cause, actor) "
    "SELECT id, status, 'collected', 'bench' FROM made), "
    "linked AS (INSERT INTO disbursement.bank_transfer_item (update_id, transfer_id) SELECT id, %(id)s FROM taken) "
    "INSERT INTO disbursement.balance_update_status (update_id, status, cause, actor) "
    "SELECT id, 'IN_TRANSIT', 'transfer ' || %(id)s, 'bench' FROM taken"
)
_ALL: Final = (
    "WITH looked AS MATERIALIZED (SELECT n.*, CASE n.verdict WHEN 'PAY' THEN gen_random_uuid()::text END AS payment "
    "FROM disbursement.standing n WHERE n.tenant_id = 'bench' AND n.frequency = 'DAILY'), "
    "kept AS (INSERT INTO disbursement.run_store (run_id, store_id, verdict, updates, total, minimum, payment_id) "
    "SELECT %(run)s, store_id, verdict, updates, total, minimum_amount, payment FROM looked), "
    "taken AS (UPDATE disbursement.balance_update u SET status = 'IN_TRANSIT' FROM looked n "
    "WHERE n.payment IS NOT NULL AND u.tenant_id = 'bench' AND u.store_id = n.store_id AND u.status = 'PENDING' "
    "RETURNING u.id, n.payment), "
    "made AS (INSERT INTO disbursement.bank_transfer (id, tenant_id, store_id, amount, currency, trigger, run_id, "
    "clabe, holder_name, tax_id, needs_confirmation) "
    "SELECT n.payment, 'bench', n.store_id, n.total, n.currency, 'DAILY', %(run)s, "
    "n.clabe, n.holder_name, n.tax_id, n.manual_confirmation FROM looked n WHERE n.payment IS NOT NULL "
    "RETURNING id, status), "
    "recorded AS (INSERT INTO disbursement.bank_transfer_status (transfer_id, status, cause, actor) "
    "SELECT id, status, 'collected', 'bench' FROM made), "
    "linked AS (INSERT INTO disbursement.bank_transfer_item (update_id, transfer_id) SELECT id, payment FROM taken) "
    "INSERT INTO disbursement.balance_update_status (update_id, status, cause, actor) "
    "SELECT id, 'IN_TRANSIT', 'transfer ' || payment, 'bench' FROM taken"
)
_LEFT: Final = (
    "SELECT (SELECT count(*) FROM disbursement.bank_transfer), (SELECT sum(amount) FROM disbursement.bank_transfer), "
    "(SELECT count(*) FROM disbursement.bank_transfer_item), (SELECT count(*) FROM disbursement.run_store)"
)


@dataclass(frozen=True)
class Measured:
    """One side of one round."""

    seconds: float
    cpu_seconds: float
    """Processor time of the client."""
    peak_mb: float
    growth_mb: float


# --- The sides, each in a process of its own ----------------------------------------------------------------------


async def ours(url: str, connections: int) -> None:
    """Our code: a run that a person asked for, its pages, and a transfer per due store."""
    async with open_statements(url, connections, role=APP_ROLE) as statements:
        runs, transfers = Runs(statements), Transfers(statements)
        run = await runs.request(BOOK, Frequency.DAILY, "bench")
        after: str | None = None
        while True:
            page = await runs.select(run.id, after, PAGE)
            waiting = iter(page.due)

            async def collect() -> None:
                for due in waiting:  # noqa: B023 (all have ended before the next page)
                    made = await transfers.collect(BOOK, due.store, due.payment_id, Trigger.DAILY, run_id=run.id)
                    if not isinstance(made, Collected):
                        raise SystemExit(f"{due.store} was not paid: {made.verdict.code}")

            await asyncio.gather(*(collect() for _ in range(connections)))
            after = page.after
            if after is None:
                await runs.close(run.id)
                return


async def raw(url: str, connections: int) -> None:
    """The same rows by the same pages and transactions, straight through psycopg."""
    async with AsyncExitStack() as opened:
        free = [
            await opened.enter_async_context(await psycopg.AsyncConnection.connect(_plain(url), autocommit=True))
            for _ in range(connections)
        ]
        run, after = str(uuid.uuid4()), ""
        await free[0].execute(_RUN, {"run": run})
        while True:
            rows = await (await free[0].execute(_LOOK, {"after": after, "limit": PAGE})).fetchall()
            payments = [str(uuid.uuid4()) if row[1] == "PAY" else None for row in rows]
            columns: list[list[Any]] = [[row[place] for row in rows] for place in range(5)]
            names = ("stores", "verdicts", "updates", "totals", "minima")
            await free[0].execute(_KEEP, {"run": run, "payments": payments, **dict(zip(names, columns, strict=True))})
            waiting = iter([(row[0], payment) for row, payment in zip(rows, payments, strict=True) if payment])

            async def collect(connection: psycopg.AsyncConnection[Any]) -> None:
                for store, payment in waiting:  # noqa: B023 (all have ended before the next page)
                    async with connection.transaction():
                        await connection.execute(_LOCK, {"store": store})
                        await connection.execute(_COLLECT, {"store": store, "id": payment, "run": run})

            await asyncio.gather(*(collect(connection) for connection in free))
            if len(rows) < PAGE:
                return
            after = rows[-1][0]


async def at_once(url: str, _: int) -> None:
    """The same rows in one statement."""
    async with await psycopg.AsyncConnection.connect(_plain(url), autocommit=True) as connection:
        run = str(uuid.uuid4())
        await connection.execute(_RUN, {"run": run})
        await connection.execute(_ALL, {"run": run})


SIDES: Final[dict[str, Callable[[str, int], Awaitable[None]]]] = {OURS: ours, RAW: raw, AT_ONCE: at_once}


def run_side(side: str, url: str, connections: int) -> Measured:
    """Run one side in this process."""
    before, began, cpu = _peak_mb(), time.perf_counter(), time.process_time()
    uvloop.run(_awaited(SIDES[side](url, connections)))
    took, cpu, peak = time.perf_counter() - began, time.process_time() - cpu, _peak_mb()
    return Measured(took, cpu, peak, peak - before)


async def _awaited(side: Awaitable[None]) -> None:
    await side


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- Measuring ----------------------------------------------------------------------------------------------------


def measure(server_url: str, stores: int, rounds: int, connections: int) -> dict[str, Any]:
    """Alternate the sides in a random order, each on rows of its own; medians and the ratios of each round."""
    load, found = os.getloadavg()[0], list[dict[str, Measured]]()
    with _database(server_url, None) as template:
        _prepare(template, stores)
        for _ in range(rounds):
            order = list(SIDES)
            random.SystemRandom().shuffle(order)
            found.append({side: _one(server_url, template, side, stores, connections) for side in order})
    return {
        "benchmark": "b10-disbursement",
        "stores": stores,
        "rounds": rounds,
        "connections": connections,
        "cores": os.cpu_count(),
        "load_before": load,
        "sides": {side: _summary(found, side) for side in SIDES},
    }


def _one(server_url: str, template: str, side: str, stores: int, connections: int) -> Measured:
    with _database(server_url, template) as url:
        arguments = ["--database-url", url, "--side", side, "--connections", str(connections)]
        ran = subprocess.run(
            [sys.executable, "-m", __spec__.name, *arguments], check=True, capture_output=True, text=True
        )
        with psycopg.connect(_plain(url)) as connection:
            left = connection.execute(_LEFT).fetchone()
        paid = stores - stores // 100
        if left != (paid, paid * UPDATES_PER_STORE * EFFECT, paid * UPDATES_PER_STORE, stores):
            raise SystemExit(f"{side} left {left} transfers, minor units, items and verdicts")
        return Measured(**json.loads(ran.stdout))


def _summary(rounds: list[dict[str, Measured]], side: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: statistics.median(getattr(one[side], name) for one in rounds) for name in asdict(rounds[0][side])
    }
    for limit, short in ((RAW, "raw"), (AT_ONCE, "at_once")):
        for name, attribute in (("time", "seconds"), ("memory", "peak_mb")):
            ratios = [getattr(one[side], attribute) / getattr(one[limit], attribute) for one in rounds]
            row[f"{name}_of_{short}"] = [statistics.median(ratios), min(ratios), max(ratios)]
    return row


def _prepare(url: str, stores: int) -> None:
    migrate("ledger.migrations", url)
    migrate("ledger.disbursement.migrations", url)
    asyncio.run(seed(url, Seed.model_validate({"tenants": [{"id": BOOK, "accounts": []}]})))
    with psycopg.connect(_plain(url), autocommit=True) as connection:
        connection.execute(_STORES.format(stores=stores, updates=UPDATES_PER_STORE).encode())
        connection.execute("VACUUM ANALYZE")


@contextmanager
def _database(server_url: str, template: str | None) -> Iterator[str]:
    """A database of its own, empty or a copy; dropped afterwards."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    copied = "" if template is None else f" TEMPLATE {make_url(template).database}"
    with psycopg.connect(_plain(server_url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}{copied}".encode())
        try:
            yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    table = Table(
        title=f"{result['stores']} stores due at once ({result['rounds']} rounds, medians; {result['connections']} "
        f"connections, {result['cores']} cores, load before {result['load_before']:.1f})"
    )
    for column in ("side", "s", "client CPU s", "peak MB", "growth MB", "time ÷ raw", "time ÷ at once", "peak ÷ raw"):
        table.add_column(column, no_wrap=column == "side", justify="left" if column == "side" else "right")
    for side, row in result["sides"].items():
        numbers = [f"{row[name]:.1f}" for name in ("seconds", "cpu_seconds", "peak_mb", "growth_mb")]
        ratios = [
            f"{median:.2f} ({low:.2f} to {high:.2f})"
            for median, low, high in (row["time_of_raw"], row["time_of_at_once"], row["memory_of_raw"])
        ]
        table.add_row(side, *numbers, *ratios)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default=os.environ.get("PAYHUB_LEDGER_DATABASE_URL"))
    parser.add_argument("--stores", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not given.database_url:
        parser.error("--database-url must name a PostgreSQL whose user may create databases")
    if given.side:
        print(json.dumps(asdict(run_side(given.side, given.database_url, given.connections))))
        return
    result = measure(given.database_url, given.stores, given.rounds, given.connections)
    print(json.dumps(result)) if given.json else show(result)


if __name__ == "__main__":
    main()
