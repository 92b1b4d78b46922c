"""PostgreSQL is shut down immediately while postings run: what was acknowledged is there, and nothing half."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.errors import Unavailable
from hub.migrations import migrate
from hub.money import Money
from hub.stack.state import load_state
from hub.statements import open_statements
from ledger.book import Ledger
from ledger.model import STP_SETTLEMENT, AccountRef, Leg
from ledger.seed import Seed, seed
from ledger.verify import verify

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

BANK = "acme"
PEOPLE = [AccountRef.customer(f"c{number}") for number in range(6)]
EACH = Money.parse("1000.00", "MXN")


@pytest.fixture
def own_postgres() -> Iterator[tuple[str, Path]]:
    """The superuser's URL of a PostgreSQL that may be killed, and its data folder. Its stack starts it again."""
    folder = Path(tempfile.mkdtemp(prefix="payhub-crash-"))
    folder.chmod(0o711)
    command = [sys.executable, "-m", "hub.stack"]
    choices = ["--detach", "--free-ports", "--profile", "barebone", "--bound-to", str(os.getpid())]
    with socket.create_server(("127.0.0.1", 0)) as engine:  # no engine is needed: one that exists elsewhere
        address = f"127.0.0.1:{engine.getsockname()[1]}"
        environment = {**os.environ, "PAYHUB_ZEEBE_ADDRESS": address}
        started = subprocess.run(
            [*command, "up", *choices, "--data-dir", str(folder)],
            env=environment,
            check=False,
            text=True,
            capture_output=True,
        )
        assert started.returncode == 0, started.stderr
        state = load_state(folder)
        assert state is not None
        assert state.superuser_url is not None
        (postmaster,) = folder.rglob("postmaster.pid")
        yield state.superuser_url, postmaster
        subprocess.run([*command, "down", "--data-dir", str(folder)], env=environment, check=True)
    shutil.rmtree(folder)


async def test_what_was_acknowledged_survives_an_immediate_shutdown_under_load(own_postgres):
    url, postmaster = own_postgres
    await asyncio.to_thread(migrate, "ledger.migrations", url)
    accounts = [{"id": one.owner, "currency": "MXN", "opening_balance": EACH.decimal()} for one in PEOPLE]
    await seed(url, Seed.model_validate({"tenants": [{"id": BANK, "accounts": accounts}]}))
    acknowledged: set[str] = set()
    failures, over = 0, asyncio.Event()

    async def someone(ledger: Ledger, number: int) -> None:
        nonlocal failures
        chance = random.Random(number)
        for step in range(100_000):
            if over.is_set():
                return
            payer, payee = chance.sample(PEOPLE, 2)
            name, amount = f"{number}-{step}", Money(1, "MXN")
            try:
                if step % 3:
                    await ledger.post(BANK, name, [Leg(payer, payee, amount)])
                else:
                    await ledger.hold(BANK, f"{name}:hold", payer, amount, amount)
                    acknowledged.add(f"{name}:hold")
                    await ledger.capture(BANK, f"{name}:hold", name, STP_SETTLEMENT)
                acknowledged.add(name)
            except Unavailable:
                failures += 1
                await asyncio.sleep(0.05)

    async with open_statements(url, 8) as statements:
        ledger = Ledger(statements)
        load = [asyncio.ensure_future(someone(ledger, number)) for number in range(16)]
        while len(acknowledged) < 300:
            await asyncio.sleep(0.01)
        os.kill(int(postmaster.read_text(encoding="utf-8").split()[0]), signal.SIGQUIT)  # pg_ctl stop -m immediate
        before = len(acknowledged)
        async with asyncio.timeout(120):
            while not (failures and len(acknowledged) > before + 300):
                await asyncio.sleep(0.02)
        over.set()
        await asyncio.gather(*load)
        booked = {row[0] for row in await statements.rows("SELECT idem_key FROM ledger.txn")}
        assert acknowledged <= booked
        report = await verify(url)
        assert report.sound, report
        total = await statements.rows(
            "SELECT sum(CASE a.side WHEN 'C' THEN b.credits - b.debits ELSE b.debits - b.credits END)::bigint "
            "FROM ledger.account a JOIN ledger.balance b ON b.account_id = a.id "
            "WHERE a.kind IN ('customer-deposit', 'fee-income')"
        )
        at_stp = await statements.rows(
            "SELECT (b.debits - b.credits)::bigint FROM ledger.account a JOIN ledger.balance b ON b.account_id = a.id "
            "WHERE a.kind = 'stp-settlement'"
        )
        assert total[0][0] - at_stp[0][0] == len(PEOPLE) * EACH.minor
