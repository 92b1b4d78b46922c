"""A connection or a process that dies half-way: nothing is half booked, and the repeat is answered."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.errors import Unavailable
from hub.money import Money
from hub.statements import open_statements
from ledger.book import Ledger
from ledger.model import AccountRef, Leg
from ledger.service import free_expired_holds
from ledger.verify import verify

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


@asynccontextmanager
async def locked(bank: Any, where: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Holds the balance of an account, so that whoever moves it stands still right there."""
    address = make_url(bank.url).set(drivername="postgresql").render_as_string(hide_password=False)
    async with (
        await psycopg.AsyncConnection.connect(address) as holder,
        await psycopg.AsyncConnection.connect(address, autocommit=True) as watcher,
    ):
        await holder.execute(
            "SELECT 1 FROM ledger.balance b JOIN ledger.account a ON a.id = b.account_id WHERE "
            f"{where} FOR UPDATE OF b".encode()
        )
        yield watcher
        await holder.rollback()


async def cut_off(watcher: psycopg.AsyncConnection[Any]) -> None:
    """Wait until somebody waits for the lock, and end that connection."""
    for _ in range(500):
        found = await watcher.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        if await found.fetchone():
            return
        await asyncio.sleep(0.01)
    pytest.fail("nobody waited for the lock")


async def test_a_connection_cut_in_the_middle_of_a_capture_leaves_nothing_and_the_repeat_works(own_bank):
    bank = own_bank
    await bank.open({"id": "ana", "opening_balance": "100"}, {"id": "bruno"})
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("10"), mxn("1"), reference="p1")
    async with locked(bank, "a.kind = 'fee-income'") as watcher:  # payer and payee are booked by then
        capture = asyncio.ensure_future(bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO))
        await cut_off(watcher)
        with pytest.raises(Unavailable):
            await capture
    assert (await bank.booked("ana"), await bank.held("ana"), await bank.booked("bruno")) == ("100.00", "11.00", "0.00")
    assert (await verify(bank.url)).sound
    assert not (await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)).replayed


@pytest.mark.parametrize("verb", ["hold", "release", "post"])
async def test_a_cut_connection_is_unavailable_for_every_verb(own_bank, verb):
    bank = own_bank
    await bank.open({"id": "ana", "opening_balance": "100"}, {"id": "bruno"})
    await bank.ledger.hold(bank.name, "p0:hold", ANA, mxn("10"))

    def attempt() -> Any:
        match verb:
            case "hold":
                return bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("10"))
            case "release":
                return bank.ledger.release(bank.name, "p0:hold", "p0:release")
            case _:
                return bank.ledger.post(bank.name, "t1", [Leg(ANA, BRUNO, mxn("1"))])

    async with locked(bank, "a.owner_id = 'ana'") as watcher:
        running = asyncio.ensure_future(attempt())
        await cut_off(watcher)
        with pytest.raises(Unavailable):
            await running
    assert (await bank.booked("ana"), await bank.held("ana")) == ("100.00", "10.00")
    assert not (await attempt()).replayed
    assert (await verify(bank.url)).sound


async def test_a_database_that_is_away_is_unavailable():
    async with open_statements("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as statements:
        with pytest.raises(Unavailable):
            await Ledger(statements).release("acme", "p1:hold", "p1:release")


async def test_the_sweeper_outlives_a_database_that_is_away():
    async with open_statements("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as statements:
        sweeping = asyncio.ensure_future(free_expired_holds(Ledger(statements), every=0.01))
        await asyncio.sleep(0.2)
        assert not sweeping.done()
        sweeping.cancel()


_PROGRAM = """
import asyncio, sys
from hub.statements import open_statements
from hub.money import Money
from ledger.book import Ledger
from ledger.model import AccountRef

async def main(url, book):
    async with open_statements(url, 1) as statements:
        ledger = Ledger(statements)
        await ledger.hold(book, "p1:hold", AccountRef.customer("ana"), Money(1000, "MXN"), Money(100, "MXN"))
        await ledger.capture(book, "p1:hold", "p1:capture", AccountRef.customer("bruno"))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("point", "held", "captured"),
    [
        ("ledger.hold.before-commit", False, False),
        ("ledger.hold.after-commit", True, False),
        ("ledger.capture.before-commit", True, False),
        ("ledger.capture.after-commit", True, True),
    ],
)
async def test_a_process_killed_around_a_commit_is_repeated_without_a_second_effect(bank, point, held, captured):
    await bank.open({"id": "ana", "opening_balance": "100"}, {"id": "bruno"})
    command = [sys.executable, "-c", _PROGRAM, bank.url, bank.name]
    killed = await asyncio.to_thread(
        subprocess.run, command, env={**os.environ, "PAYHUB_FAILPOINT": point}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    hold = await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("10"), mxn("1"))
    capture = await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", BRUNO)
    assert (hold.replayed, capture.replayed) == (held, captured)
    assert (await bank.booked("ana"), await bank.held("ana"), await bank.booked("bruno")) == ("89.00", "0.00", "10.00")
