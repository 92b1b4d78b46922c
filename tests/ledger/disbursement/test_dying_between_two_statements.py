"""A process that is killed in the middle of a verb leaves nothing half done, and the next one does it once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid

from ledger.disbursement.model import Collected, Recorded, Trigger
from ledger.disbursement.verify import verify

WORK = """
import asyncio, sys
from hub.statements import open_statements
from ledger.disbursement.balances import Balances
from ledger.disbursement.model import Trigger
from ledger.disbursement.transfers import Transfers

async def main(verb, url, tenant, what):
    async with open_statements(url, 1, role="payhub_ledger_app") as statements:
        match verb:
            case "contribute": await Balances(statements).contribute(tenant, what, operation=what, actor="partner")
            case "collect": await Transfers(statements).collect(tenant, "s1", what, Trigger.DAILY)
            case "settle": await Transfers(statements).record_outcome(tenant, what, "SETTLED")

asyncio.run(main(*sys.argv[1:]))
"""


async def test_dying_anywhere_leaves_nothing_half_done(own_lender):  # L34
    lender = own_lender
    await lender.store()
    paid = str(uuid.uuid4())

    async def dies(verb: str, what: str, point: str) -> None:
        command = [sys.executable, "-c", WORK, verb, lender.url, lender.name, what]
        environment = {**os.environ, "PAYHUB_FAILPOINT": f"disbursement.{point}"}
        assert await asyncio.to_thread(subprocess.call, command, env=environment) == -signal.SIGKILL
        report = await verify(lender.url)
        assert report.sound, report

    await lender.credit("c1", "100")
    await dies("contribute", "c1", "contribute.before-commit")
    assert await lender.statuses() == []
    await lender.balances.contribute(lender.name, "c1", operation="c1", actor="partner")
    await dies("collect", paid, "collect.before-commit")
    assert await lender.statuses() == ["CONTRIBUTION PENDING"]
    await dies("collect", paid, "collect.after-commit")
    again = await lender.transfers.collect(lender.name, "s1", paid, Trigger.DAILY)
    assert isinstance(again, Collected)
    assert again.again
    await dies("settle", paid, "event.after-log")
    await dies("settle", paid, "record-outcome.before-commit")
    assert await lender.statuses() == ["CONTRIBUTION IN_TRANSIT"]
    await dies("settle", paid, "record-outcome.after-commit")
    assert await lender.statuses() == ["CONTRIBUTION APPLIED", "DISBURSEMENT APPLIED"]
    assert await lender.transfers.record_outcome(lender.name, paid, "SETTLED") is Recorded.REPEATED
    assert await lender.balance() == "0.00"
    outcomes = [event.outcome for event in await lender.transfers.events(lender.name, paid)]
    assert outcomes == [None, None, None, "repeated"]  # what was cut off is seen
