"""Many payments at once through every scenario of the pretend STP: its book and what the process is told agree."""

from __future__ import annotations

import asyncio
import random

from connectors.stp.fake_scenarios import BY_CENTS
from connectors.stp.model import SendOrder
from hub.testing import Completed, Failed, Thrown, run

PAYMENTS = 120
AT_STP = {"LQ": "SETTLED", "D": "RETURNED", "CN": "CANCELLED", "L": None}


async def _life(rail, job: SendOrder) -> str | None:
    """What the drawn process does with one payment: send, retry, wait for the status, ask; the outcome or none."""
    for attempt in range(6):
        ending = await run(rail.worker, job)
        if not isinstance(ending, Failed):
            break
        assert not ending.incident, ending.message
        await asyncio.sleep(0.05 * attempt)
    if isinstance(ending, Thrown):
        return ending.variables["outcome"]
    assert isinstance(ending, Completed)
    for round_ in range(8):
        for _ in range(10):
            await asyncio.sleep(0.1)
            if told := rail.engine.told(job.payment_id):
                return str(told[0].outcome)
        asked = await run(rail.worker, rail.ask(job, round_))
        assert isinstance(asked, Completed), asked
        if asked.variables["outcome"] is not None:
            return str(asked.variables["outcome"])
    return None


async def test_the_book_of_stp_and_the_outcomes_of_the_processes_agree(rail):  # H1 H3 L41
    chance = random.Random(20261118)
    cents = [*BY_CENTS, *(chance.choice([0, *BY_CENTS]) for _ in range(PAYMENTS - len(BY_CENTS)))]
    jobs = [rail.job(amount=1_000_000 + 100 * place + each) for place, each in enumerate(cents)]
    open_at_once = asyncio.Semaphore(12)

    async def lived(job):
        async with open_at_once:
            return await _life(rail, job)

    outcomes = await asyncio.gather(*(lived(job) for job in jobs))
    await asyncio.sleep(2)  # late returns and late contradictions
    for job, each, outcome in zip(jobs, cents, outcomes, strict=True):
        orders = rail.at_stp(job)
        assert len(orders) <= 1, each
        if not orders:
            assert outcome == "REJECTED", each
        elif each in {4, 23}:  # settled when the process ended; STP changed its mind later, which is another process's
            assert outcome == "SETTLED", each
        else:
            assert outcome == AT_STP[orders[0].estado], each
            assert orders[0].centavos == job.amount
