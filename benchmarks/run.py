"""`payhub bench`: start servers of its own, measure, print a table or JSON, leave nothing behind.

Each benchmark but the end-to-end one is a module that can also be run by hand against servers that run already, as in
`python -m benchmarks.b3_worker_runtime --address localhost:26500`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from benchmarks.end_to_end import Measured, measure
from hub.stack.state import load_state

END_TO_END: Final = "end-to-end"


@dataclass(frozen=True, slots=True)
class _Alone:
    """A benchmark that runs by itself, with the server it is given."""

    module: str
    needs: Literal["database", "engine", "nothing"]


ALONE: Final = {
    "accept": _Alone("benchmarks.b1_accept", "database"),
    "worker": _Alone("benchmarks.b3_worker_runtime", "engine"),
    "ledger": _Alone("benchmarks.b5_ledger", "database"),
    "hot-account": _Alone("benchmarks.b6_hot_account", "database"),
    "orders": _Alone("benchmarks.stp_orders", "database"),
    "streamer": _Alone("benchmarks.b7_streamer", "nothing"),
    "freshness": _Alone("benchmarks.b8_freshness", "nothing"),
    "search": _Alone("benchmarks.b9_search", "nothing"),
    "disbursement": _Alone("benchmarks.b10_disbursement", "database"),
}
"""B1, B3, B5, B6, STP's orders, B7, B8, B9 and the stores due at once, by the names that `payhub bench` takes."""

NAMES: Final = (END_TO_END, *ALONE)


def run(names: Sequence[str], *, rounds: int, payments: int, as_json: bool) -> int:
    """Measure what is named, one after the other on the same fresh servers, printing each as it ends.

    Returns the exit code: 0 when all was measured, whatever the figures are.
    """
    with _servers() as (folder, zeebe, superuser_url):
        failed = 0
        for name in names:
            if name == END_TO_END:
                measured = asyncio.run(measure(folder / "hub", zeebe, _database(superuser_url), rounds, payments))
                Console().print(_table(measured)) if not as_json else print(json.dumps(asdict(measured)), flush=True)
                continue
            chosen = ALONE[name]
            address = {
                "database": ("--database-url", superuser_url),
                "engine": ("--address", zeebe),
                "nothing": (),  # it starts the servers that the others do not need
            }[chosen.needs]
            command = [sys.executable, "-m", chosen.module, *address, *(["--json"] if as_json else [])]
            failed += subprocess.run(command, check=False).returncode != 0
        return min(failed, 1)


@contextmanager
def _servers() -> Iterator[tuple[Path, str, str]]:
    """Zeebe and PostgreSQL for this run alone: a folder, the engine's address, the database as its superuser."""
    with tempfile.TemporaryDirectory(prefix="payhub-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # The servers run as another user when we are root.
        folder.chmod(0o755)
        stack = [sys.executable, "-m", "hub.stack"]
        choices = ["--detach", "--free-ports", "--profile", "barebone", "--bound-to", str(os.getpid())]
        subprocess.run([*stack, "up", *choices, "--data-dir", name], check=True, stdout=sys.stderr)
        try:
            state = load_state(folder)
            if state is None or state.superuser_url is None:
                raise RuntimeError("the servers of the benchmark did not start")
            yield folder, state.address("zeebe"), state.superuser_url
        finally:
            subprocess.run([*stack, "down", "--data-dir", name], check=True, stdout=sys.stderr)


def _database(superuser_url: str) -> str:
    url = make_url(superuser_url)
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench")
    return url.set(database="bench").render_as_string(hide_password=False)


def _table(measured: Measured) -> Table:
    table = Table(title=f"{measured.rounds} rounds of {measured.payments_per_round} payments, {measured.cores} cores")
    for column in ("measure", "value", "target"):
        table.add_column(column)
    low, high = measured.spread
    median = sorted(measured.hub)[len(measured.hub) // 2]
    table.add_row("B2 hub ÷ engine with no-op workers", f"{measured.ratio:.2f} ({low:.2f} to {high:.2f})", "≥ 0.75")
    table.add_row("B2 hub payments/s", f"{median:.0f}  {measured.hub}", "> 51")
    table.add_row("B2 engine with no-op workers payments/s", str(measured.engine_only), "")
    table.add_row("our CPU per payment, simulator included", f"{measured.hub_cpu_ms_per_payment:.1f} ms", "")
    rate = f"at {measured.latency_rate:.0f}/s"
    table.add_row(f"B4 added latency p50 {rate}", f"{measured.added_p50_ms:.0f} ms", "≤ 15 ms")
    table.add_row(f"B4 added latency p99 {rate}", f"{measured.added_p99_ms:.0f} ms", "≤ 60 ms")
    table.add_row(f"hub latency p50 / p99 {rate}", f"{measured.hub_p50_ms:.0f} / {measured.hub_p99_ms:.0f} ms", "")
    table.add_row("load before", f"{measured.load_before:.1f}", "quiet: < 1")
    return table
