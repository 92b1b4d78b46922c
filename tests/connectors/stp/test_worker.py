"""Sending and asking, against the pretend STP over HTTP and a real PostgreSQL."""

from __future__ import annotations

import pytest

from connectors.stp.model import OrderRejected


async def test_an_accepted_order_is_sent_once_and_settles(rail, eventually):
    job = rail.job()
    sent = await rail.worker.send_order(job)
    assert sent.order_state == "ACCEPTED"
    assert sent.inquire_after == "PT30S"
    await eventually(lambda: rail.engine.told(job.payment_id))
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["SETTLED"]
    assert len(rail.at_stp(job)) == 1


async def test_a_refused_order_raises_the_refusal(rail):
    job = rail.job()
    await rail.rule(job, "refuse")
    with pytest.raises(OrderRejected, match="STP -20"):
        await rail.worker.send_order(job)
