"""`payhub bench`: start servers of its own, measure, print a table or JSON, leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from benchmarks.end_to_end import Measured, measure
from hub.stack.state import load_state


def run_end_to_end(*, rounds: int, payments: int, as_json: bool) -> int:
    """B2 and B4. Returns the exit code: 0 when measured, whatever the figures are."""
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
            measured = asyncio.run(
                measure(folder / "hub", state.address("zeebe"), _database(state.superuser_url), rounds, payments)
            )
        finally:
            subprocess.run([*stack, "down", "--data-dir", name], check=True, stdout=sys.stderr)
    if as_json:
        print(json.dumps(asdict(measured)))
    else:
        Console().print(_table(measured))
    return 0


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
