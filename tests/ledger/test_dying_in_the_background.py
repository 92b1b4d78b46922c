"""A process that is killed in the middle of background work leaves nothing half done, and the next one does it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from hub.money import Money
from hub.statements import open_statements
from ledger.model import STP_SETTLEMENT, AccountRef, Leg
from ledger.verify import verify

WORK = """
import asyncio, sys
from hub.statements import open_statements
from ledger.chain import Sealer
from ledger.outbox import Relay
from ledger.rebuild import rebuild
from ledger.snapshots import take_due

async def publish(waiting):
    with open(sys.argv[3], "a") as heard:
        heard.writelines(f"{one.outbox_id}\\n" for one in waiting)

async def main(what, url):
    if what == "rebuild":
        return await rebuild(url, write=True, reason="test")
    async with open_statements(url, 1, role="payhub_ledger_app") as statements:
        match what:
            case "seal": await Sealer(statements).seal()
            case "snapshot": await take_due(statements)
            case "relay": await Relay(statements, publish).tell()

asyncio.run(main(*sys.argv[1:3]))
"""


@pytest.mark.parametrize(
    "point",
    [
        "ledger.seal.before-commit",
        "ledger.snapshot.before-commit",
        "ledger.relay.after-acknowledgement",
        "ledger.rebuild.before-commit",
    ],
)
async def test_dying_halfway_leaves_nothing_half_done(own_bank, tmp_path, point):
    await own_bank.open({"id": "ana", "opening_balance": "100"})
    for number in range(3):
        await own_bank.ledger.post(
            own_bank.name, f"t{number}", [Leg(STP_SETTLEMENT, AccountRef.customer("ana"), Money(1, "MXN"))]
        )
    what, heard = point.split(".")[1], tmp_path / "heard"
    async with open_statements(own_bank.url, 1) as statements:
        if what == "snapshot":  # as if booked yesterday
            await statements.rows("ALTER TABLE ledger.txn DISABLE TRIGGER ALL")
            await statements.rows("UPDATE ledger.txn SET booked_at = booked_at - interval '1 day'")
        if what == "rebuild":
            await statements.rows("UPDATE ledger.balance SET debits = debits + 1 WHERE account_id = 1")

        async def work(environment: dict[str, str]) -> int:
            command = [sys.executable, "-c", WORK, what, own_bank.url, str(heard)]
            return await asyncio.to_thread(subprocess.call, command, env={**os.environ, **environment})

        async def traces() -> list[int]:
            return [
                (await statements.rows(f"SELECT count(*) FROM ledger.{table}".encode()))[0][0]  # type: ignore[arg-type]
                for table in (
                    "chain_block",
                    "snapshot",
                    "snapshot_run",
                    "rebuilt_balance",
                    "outbox_cursor WHERE sent <> '{}'",
                )
            ]

        assert await work({"PAYHUB_FAILPOINT": point}) == -signal.SIGKILL
        assert await traces() == [0, 0, 0, 0, 0]
        assert await work({}) == 0
        assert sum(await traces()) > 0
    if what == "relay":
        assert heard.read_text().split() == [*"1234", *"1234"]  # at least once, told apart by number
    assert (await verify(own_bank.url)).sound
