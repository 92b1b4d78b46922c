"""At most one order at STP under a payment's tracking key, on all operation dates together, whatever happens.

The walks below let workers die at every named point, answers and requests get lost, orders stay hidden, clocks pass the
rollover, callbacks arrive or not, and jobs run twice at the same time. The pretend STP takes a key again on the next
operation date, as the real one seems to, so whoever sends again across 18:00 pays twice here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

import pytest

from connectors.stp import client, dispatch, worker
from connectors.stp.calendar import MEXICO_CITY
from connectors.stp.model import Sending, SendOrder
from hub.errors import Unavailable
from hub.testing import Completed, Failed, Thrown, run
from hub.zeebe.outcomes import Ending

POINTS = [
    "stp.send-order.before-claim",
    "stp.send-order.after-claim",
    "stp.send-order.after-claim-again",
    "stp.register.before-http",
    "stp.register.after-http",
    "stp.send-order.before-record",
    "stp.send-order.after-record",
]
NOTHING: dict[str, Any] = {"registers": False}
FAULTS: list[dict[str, Any]] = [
    {"answer": "lost"}, {"answer": "lost", **NOTHING}, {"answer": "500"}, {"answer": "502", **NOTHING},
    {"answer": "403", **NOTHING}, {"answer": "no-response"}, {"answer": "no-response", **NOTHING},
    {"answer": "truncated"}, {"answer": "garbage", "hidden_for": 1200}, {"answer": "lost", "hidden_for": 400},
    {"answer": "id-as-text"}, {"refuse": -27, **NOTHING}, {"refuse": -30, **NOTHING}, {"refuse": -20, **NOTHING},
    {"refuse": -1, "hidden_for": 60}, {"callback_first": True}, {},
]  # fmt: skip
HIDDEN: list[dict[str, Any]] = [{"answer": answer, "hidden_for": 1200} for answer in ("lost", "500", "no-response")]
STEPS: list[list[dict[str, Any]]] = [
    [], [{"estado": "LQ", "report": False}], [{"estado": "LQ"}], [{"estado": "CN"}], [{"estado": "D", "causa": 1}],
]  # fmt: skip
MORNING = datetime(2026, 11, 18, 10, 0, tzinfo=MEXICO_CITY)
EVENING = datetime(2026, 11, 18, 17, 51, tzinfo=MEXICO_CITY)


class Died(BaseException):
    """A worker that was killed right here."""


@pytest.fixture
def dying(monkeypatch) -> ContextVar[str | None]:
    """Where whoever runs in this context dies."""
    where: ContextVar[str | None] = ContextVar("where", default=None)

    def failpoint(name: str) -> None:
        if where.get() == name:
            raise Died(name)

    for module in (client, dispatch, worker):
        monkeypatch.setattr(module, "failpoint", failpoint)
    return where


async def _walk(
    rail, chance: random.Random, where: ContextVar[str | None], faults: list[dict[str, Any]]
) -> tuple[SendOrder, list[Ending]]:
    """A payment's life among faults; its job and how the job's runs ended."""
    job: SendOrder = rail.job()
    endings: list[Ending] = []

    async def once(what, point):
        where.set(point)
        with contextlib.suppress(Died):
            endings.append(await run(rail.worker, what))

    for round_ in range(chance.randint(3, 7)):
        fault = {**chance.choice(faults), "steps": chance.choice(STEPS)}
        await rail.rule(job, fault, uses=1)
        rail.advance(timedelta(seconds=chance.choice([0, 1, 40, 400, 900])))
        asks = round_ and chance.random() < 0.5 and await rail.orders.find(job.payment_id)
        at_once = chance.choice([1, 1, 2])
        points = [chance.choice([None, None, *POINTS]) for _ in range(at_once)]
        await asyncio.gather(*(once(rail.ask(job) if asks else job, point) for point in points))
        if any(isinstance(ending, Thrown) for ending in endings):
            break
    return job, endings


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_there_is_one_order_and_no_false_refusal(rail, dying, seed):  # H1 H3 L44
    chance = random.Random(seed)
    for start, faults in ((MORNING, FAULTS), (EVENING, FAULTS + HIDDEN * 6)):
        for _ in range(4):
            rail.set_clocks(start)
            job, endings = await asyncio.ensure_future(_walk(rail, chance, dying, faults))
            assert not any(isinstance(ending, Failed) and ending.incident for ending in endings), endings
            at_stp, stored = rail.at_stp(job), await rail.orders.find(job.payment_id)
            assert len(at_stp) <= 1, (seed, endings)
            refused = any(isinstance(ending, Thrown) for ending in endings) or "REJECTED" in _said(endings, "outcome")
            assert not (refused and at_stp), (seed, endings)
            assert stored is None or stored.sending is not Sending.REJECTED or not at_stp
            if "ACCEPTED" in _said(endings, "order_state"):
                assert len(at_stp) == 1


def _said(endings: list[Ending], variable: str) -> set[Any]:
    return {ending.variables.get(variable) for ending in endings if isinstance(ending, Completed)}


@pytest.mark.parametrize("across", [False, True], ids=["same date", "across the rollover"])
async def test_a_worker_that_stood_still_after_its_claim_sends_nothing(rail, across):
    """Suspended between claim and sending, it wakes up after somebody else has sent the order."""
    rail.set_clocks(datetime(2026, 11, 18, 17, 50, tzinfo=MEXICO_CITY))
    job = rail.job()
    await rail.rule(job, "silent")
    stale, fresh = await rail.worker._find_or_claim(job)
    assert fresh
    rail.advance(timedelta(seconds=60))
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    if across:
        rail.set_clocks(datetime(2026, 11, 18, 18, 1, tzinfo=MEXICO_CITY))
    assert (await rail.dispatch.send(stale)).sending is Sending.ACCEPTED
    assert len(rail.at_stp(job)) == 1
    assert rail.sends(job) == 1


async def test_a_late_answer_to_an_older_attempt_leaves_the_newer_ones_reason(rail):  # L44
    job = rail.job()
    stale, _ = await rail.worker._find_or_claim(job)
    await rail.rule(job, "refuse")
    rail.advance(timedelta(seconds=60))
    assert (await rail.worker.send_order(job)).order_state == "UNKNOWN"  # refused, to be verified
    assert (await rail.dispatch.send(stale)).error_id == -20
    inquired = await rail.worker.inquire_order(rail.ask(job))
    assert (inquired.outcome, inquired.reason_detail) == ("REJECTED", "STP -20: the amount is not valid")


async def test_a_stale_claim_that_nobody_took_over_is_claimed_anew(rail):
    job = rail.job()
    stale, _ = await rail.worker._find_or_claim(job)
    rail.advance(timedelta(seconds=6))
    with pytest.raises(Unavailable, match="claimed anew"):
        await rail.dispatch.send(stale)
    assert rail.sends(job) == 0
    assert (await rail.order(job)).sending is Sending.NOT_SENT
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert len(rail.at_stp(job)) == 1


async def test_bad_data_in_a_job_is_an_incident_and_never_an_order(rail):
    """What a drawing hands over is not trusted: halves of characters, numbers that are none, endless text."""
    good = rail.job()
    for changes in (
        {"payee": good.payee.model_copy(update={"name": "\ud800"})},
        {"payee": good.payee.model_copy(update={"name": "x" * 100_000, "tax_id": "|" * 5000})},
        {"concept": "\x00|\r\n" * 1000},
    ):
        ending = await run(rail.worker, rail.job(**changes))
        assert isinstance(ending, Completed), ending
    for changes in (
        {"payee": good.payee.model_copy(update={"identifier": "07269100449571149²"})},
        {"payee": good.payee.model_copy(update={"identifier": "\ud800" * 18})},
        {"payee": good.payee.model_copy(update={"identifier": ""})},
        {"amount": -1},
        {"amount": 2**70},
        {"currency": "XXX"},
        {"reference_number": -5},
    ):
        job = rail.job(**changes)
        ending = await run(rail.worker, job)
        assert isinstance(ending, Thrown) or (isinstance(ending, Failed) and ending.incident), ending
        assert rail.sends(job) == 0
