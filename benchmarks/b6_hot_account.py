"""B6: every credit to one account, against credits spread evenly, by the same code, alternating in one run.

    python -m benchmarks.b6_hot_account --database-url postgresql+psycopg://... [--rounds 5] [--operations 400]
                                        [--connections 1 16 64] [--json]

*hot* credits the bank's one settlement account each time; *uniform* credits 250 customers in turn. Both debit 250
customers. *hot, by itself* is the same posting as an adjustment: never coalesced, one call each of the function for
several legs, so what the row lock alone costs. The database is made anew and must be sound afterwards, as in B5.
Target: hot >= 0.90 of uniform.
"""

from __future__ import annotations

import json
import os
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.b5_ledger import (
    AMOUNT,
    BOOK,
    Operation,
    Run,
    arguments,
    asked,
    bench_book,
    burst,
    customer,
    new_names,
    post,
    ratio,
    spread,
)
from hub.statements import open_statements
from ledger.book import Ledger
from ledger.model import STP_SETTLEMENT, Leg

UNIFORM: Final = "uniform"


async def _round(ledger: Ledger, connections: int, names: list[str]) -> list[Run]:
    async def by_itself(name: str) -> None:
        # An adjustment is never coalesced.
        legs = [Leg(customer(name), STP_SETTLEMENT, AMOUNT)]
        await ledger.post(BOOK, f"{name}:self", legs, kind="adjust", reason="benchmark", reference=name)

    operations: list[tuple[str, Operation]] = [
        (UNIFORM, post(ledger, "uniform", customer, lambda name: customer(name, 1))),
        ("hot", post(ledger, "hot", customer, lambda _: STP_SETTLEMENT)),
        ("hot, by itself", by_itself),
    ]
    random.SystemRandom().shuffle(operations)
    return [await burst(verb, connections, names, operation) for verb, operation in operations]


async def measure(server_url: str, rounds: int, operations: int, connections: Sequence[int]) -> dict[str, Any]:
    """Alternate both; medians, and the ratios of each round."""
    load, found = os.getloadavg()[0], list[dict[str, Any]]()
    async with bench_book(server_url) as url:
        for count in connections:
            kept: list[dict[str, Run]] = []
            async with open_statements(url, count) as statements:
                ledger = Ledger(statements)
                for number in range(rounds + 1):
                    runs = {run.verb: run for run in await _round(ledger, count, new_names(operations))}
                    if number:  # the first one warms up
                        kept.append(runs)
            for verb in (UNIFORM, "hot", "hot, by itself"):
                middle = statistics.median(one[verb].per_second for one in kept)
                one = next(one[verb] for one in kept if one[verb].per_second >= middle)
                found.append({**asdict(one), "per_second": middle, "of_uniform": ratio(kept, verb, UNIFORM)})
    return {
        "benchmark": "b6-hot-account",
        "rounds": rounds,
        "operations": operations,
        "cores": os.cpu_count(),
        "load_before": load,
        "accounts": found,
    }


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    title = (
        f"One hot account ({result['rounds']} rounds of {result['operations']} postings; {result['cores']} cores, "
        f"load before {result['load_before']:.1f})"
    )
    table = Table(title=title)
    for column in ("credits", "connections", "per second", "CPU us/op", "of uniform"):
        table.add_column(column, justify="left" if column == "credits" else "right")
    for row in result["accounts"]:
        table.add_row(
            row["verb"],
            str(row["connections"]),
            f"{row['per_second']:.0f}",
            f"{row['cpu_us']:.0f}",
            spread(row["of_uniform"]),
        )
    Console().print(table)


def main() -> None:
    given = asked(arguments(__doc__))
    result = uvloop.run(measure(given.database_url, given.rounds, given.operations, given.connections))
    print(json.dumps(result)) if given.json else show(result)


if __name__ == "__main__":
    main()
