"""An operator's decision is kept beside STP's word, which counts more; what STP says later is compared with it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from connectors.stp.decisions import DecisionWorker
from connectors.stp.model import OrderState, RecordDecision
from hub.testing import Completed, Failed, run
from hub.transfer import Outcome, Reason, TenantId


async def silent(rail):
    job = rail.job()
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    return job


async def decide(rail, job, outcome, tenant=None):
    decided = RecordDecision(payment_id=job.payment_id, tenant_id=tenant or job.tenant_id, outcome=outcome,
                             reason=Reason.OPERATOR, reason_detail="by phone")  # fmt: skip
    return await run(DecisionWorker(rail.orders, rail.clock), decided)


async def stp_says(rail, job, estado):
    body = {"id": rail.at_stp(job)[0].id, "empresa": "TAMIZI", "claveRastreo": rail.key(job), "estado": estado}
    assert (await rail.post_status(body)).status_code == 200


OPERATORS = ("operator", "by phone")


@pytest.mark.parametrize("outcome", ["SETTLED", "REJECTED", "RETURNED", "CANCELLED"])
async def test_a_decision_is_kept_and_told_to_nobody_again(rail, outcome):  # H3
    job = await silent(rail)
    for _ in range(2):
        ending = await decide(rail, job, outcome)
        assert isinstance(ending, Completed)
        assert tuple(ending.variables.values()) == (outcome, *OPERATORS, None)
    await rail.callbacks.sweep()
    assert (rail.engine.told(job.payment_id), rail.engine.late(job.payment_id)) == ([], [])


async def test_what_was_decided_settled_and_comes_back_is_a_late_return(rail):  # L38
    job = await silent(rail)
    await decide(rail, job, "SETTLED")
    await stp_says(rail, job, "LQ")
    await stp_says(rail, job, "D")
    rail.clock.advance(timedelta(seconds=10))
    await rail.callbacks.sweep()
    assert len(rail.engine.late(job.payment_id)) == 1
    assert {message.outcome for message in rail.engine.told(job.payment_id)} <= {Outcome.SETTLED}


@pytest.mark.parametrize("outcome", ["REJECTED", "CANCELLED"])
async def test_what_was_given_up_and_settles_after_all_is_for_a_person(rail, alerts, outcome):
    job = await silent(rail)
    await decide(rail, job, outcome)
    await stp_says(rail, job, "LQ")
    assert [kind for kind, _ in alerts] == ["contradiction"]
    assert (await rail.order(job)).state is OrderState.CANCELLED
    assert rail.engine.told(job.payment_id) == []


@pytest.mark.parametrize(
    ("word", "decided", "counts"),
    [
        ("LQ", "REJECTED", "SETTLED"),
        ("LQ", "RETURNED", "SETTLED"),
        ("CN", "SETTLED", "CANCELLED"),
        ("D", "SETTLED", "RETURNED"),
        ("D", "CANCELLED", "RETURNED"),
    ],
)
async def test_stps_word_counts_more_than_a_decision_that_it_overtook(rail, alerts, word, decided, counts):
    job = await silent(rail)
    await stp_says(rail, job, word)
    ending = await decide(rail, job, decided)
    assert isinstance(ending, Completed)
    assert ending.variables["outcome"] == counts
    assert "decision-overruled" in [kind for kind, _ in alerts]


async def test_another_tenants_order_is_not_decided(rail):  # H16
    job = await silent(rail)
    ending = await decide(rail, job, "SETTLED", TenantId("bluebank"))
    assert isinstance(ending, Failed)
    assert (await rail.order(job)).state is OrderState.PENDING
