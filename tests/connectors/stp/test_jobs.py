"""What the engine is told of STP's jobs, by the same mapping as in production."""

from __future__ import annotations

from connectors.stp.connector import CONNECTOR
from connectors.stp.model import InquireOrder, ReturnDeposit, SendOrder
from hub.testing import Completed, Failed, Thrown, run


async def test_an_accepted_order_completes_with_the_processs_timers(rail):
    ending = await run(rail.worker, rail.job())
    assert isinstance(ending, Completed)
    assert ending.variables == {
        "order_state": "ACCEPTED", "inquire_after": "PT30S", "inquire_again_after": "PT3600S", "inquiries": 0,
    }  # fmt: skip


async def test_a_certain_rejection_takes_the_drawn_path(rail):  # L44
    job = rail.job()
    await rail.rule(job, "refuse")
    ending = await run(rail.worker, job)
    assert isinstance(ending, Thrown)
    assert (ending.code, ending.variables["outcome"]) == ("scheme-rejected", "REJECTED")
    assert ending.variables["reason_detail"] == "STP -20: the amount is not valid"


async def test_an_unknown_answer_completes_and_releases_nothing(rail):  # H3
    job = rail.job()
    await rail.rule(job, "lose-answer")
    ending = await run(rail.worker, job)
    assert isinstance(ending, Completed)
    assert ending.variables["order_state"] == "UNKNOWN"


async def test_not_sent_is_tried_again(rail):
    job = rail.job()
    await rail.rule(job, {"answer": "403", "registers": False})
    ending = await run(rail.worker, job)
    assert isinstance(ending, Failed)
    assert not ending.incident
    assert ending.tries_left == SendOrder.attempts - 1


async def test_a_configuration_that_stp_does_not_accept_is_an_incident_at_once(rail):
    job = rail.job()
    await rail.rule(job, {"refuse": 0, "text": "Error validando la firma", "registers": False})
    ending = await run(rail.worker, job)
    assert isinstance(ending, Failed)
    assert ending.incident


async def test_an_open_order_leaves_the_outcome_empty(rail):
    job = rail.job()
    await rail.rule(job, "silent")
    await run(rail.worker, job)
    ending = await run(rail.worker, rail.ask(job, 1))
    assert isinstance(ending, Completed)
    assert ending.variables == {
        "outcome": None, "reason": "no-answer", "reason_detail": "STP has the order and no final state",
        "happened_at": None, "inquiries": 2,
    }  # fmt: skip


def test_the_connector_names_its_parts():
    assert {SendOrder, InquireOrder, ReturnDeposit} <= set(CONNECTOR.jobs)
    assert set(CONNECTOR.services) == {"stp-callbacks", "stp-simulator"}


def test_jobs_outlast_the_slowest_outside_call():
    assert all(job.timeout.total_seconds() >= 60 for job in (SendOrder, InquireOrder, ReturnDeposit))
