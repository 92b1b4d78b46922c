"""The channel's jobs: the fence, and the outcome that never changes."""

from __future__ import annotations

import asyncio

import pytest
from psycopg.errors import RaiseException

from connectors.channel.model import Claimed
from hub.jobs import Result
from hub.testing import Completed, Failed
from hub.transfer import Outcome, PaymentId, Reason, TenantId

FIRST, DUPLICATE, DONE = Completed(Claimed(duplicate=False)), Completed(Claimed(duplicate=True)), Completed(Result())


async def test_one_instance_gets_the_payment_and_any_other_is_a_duplicate(channel) -> None:
    payment_id = await channel.accepted()
    assert await channel.claim(payment_id, instance=1) == FIRST
    assert await channel.claim(payment_id, instance=2) == DUPLICATE
    assert await channel.claim(payment_id, instance=1) == FIRST, "a retry of the first"


async def test_of_many_instances_at_once_exactly_one_gets_the_payment(channel) -> None:
    payment_id = await channel.accepted()
    endings = await asyncio.gather(*(channel.claim(payment_id, instance=number) for number in range(1, 21)))
    assert endings.count(FIRST) == 1
    assert endings.count(DUPLICATE) == 19


async def test_a_payment_that_was_never_accepted_becomes_an_incident(channel) -> None:
    never = PaymentId("0198f0c0-0000-7000-8000-000000000000")
    for ending in (await channel.claim(never), await channel.record(never, Outcome.SETTLED, Reason.NONE)):
        assert isinstance(ending, Failed)
        assert ending.retries == 0


async def test_another_tenant_cannot_claim_a_payment(channel) -> None:  # H16
    payment_id = await channel.accepted()
    ending = await channel.claim(payment_id, tenant=TenantId("somebody-else"))
    assert isinstance(ending, Failed)
    assert (await channel.ask(payment_id)).json()["transferState"] == "RECEIVED"


async def test_an_outcome_is_recorded_once_however_often_the_job_runs(channel) -> None:
    payment_id = await channel.accepted()
    for _ in range(3):
        assert await channel.record(payment_id, Outcome.SETTLED, Reason.NONE) == DONE
    assert await _history(channel, payment_id) == [(1, "SETTLED", "none", None)]


async def test_at_once_too(channel) -> None:
    payment_id = await channel.accepted(**{"X-CallbackURL": "http://127.0.0.1:1/hooks"})
    endings = await asyncio.gather(*(channel.record(payment_id, Outcome.SETTLED, Reason.NONE) for _ in range(20)))
    assert endings == [DONE] * 20
    assert len(await _history(channel, payment_id)) == 1
    assert await channel.rows("SELECT count(*) FROM channel.callback WHERE payment_id = %(id)s", id=payment_id) == [
        (1,)
    ]


async def test_an_unknown_outcome_may_become_final(channel) -> None:  # H3
    payment_id = await channel.accepted()
    await channel.record(payment_id, Outcome.UNKNOWN, Reason.NO_ANSWER)
    await channel.record(payment_id, Outcome.UNKNOWN, Reason.NO_ANSWER)
    await channel.record(payment_id, Outcome.SETTLED, Reason.OPERATOR, "the bank confirmed")
    assert await _history(channel, payment_id) == [
        (1, "UNKNOWN", "no-answer", None),
        (2, "SETTLED", "operator", "the bank confirmed"),
    ]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(Outcome.REJECTED, Reason.COMPLIANCE), (Outcome.CANCELLED, Reason.NONE), (Outcome.SETTLED, Reason.OPERATOR)],
)
async def test_a_second_final_outcome_is_a_defect(channel, outcome: Outcome, reason: Reason) -> None:
    payment_id = await channel.accepted()
    await channel.record(payment_id, Outcome.SETTLED, Reason.NONE)
    ending = await channel.record(payment_id, outcome, reason)
    assert isinstance(ending, Failed)
    assert ending.retries == 0
    assert (await channel.ask(payment_id)).json()["reason"] == "none"
    assert len(await _history(channel, payment_id)) == 1


async def test_what_settled_may_be_returned_and_the_channel_hears_both(channel) -> None:  # L21 L22 L38
    payment_id = await channel.accepted(**{"X-CallbackURL": "http://127.0.0.1:1/hooks"})
    await channel.record(payment_id, Outcome.SETTLED, Reason.NONE)
    for _ in range(2):
        assert await channel.record(payment_id, Outcome.RETURNED, Reason.ACCOUNT_CLOSED, "returned: cause 3") == DONE
    assert await _history(channel, payment_id) == [
        (1, "SETTLED", "none", None),
        (2, "RETURNED", "account-closed", "returned: cause 3"),
    ]
    assert (await channel.ask(payment_id)).json()["transferState"] == "RETURNED"
    told = "SELECT sequence FROM channel.callback WHERE payment_id = %(id)s ORDER BY sequence"
    assert [row[0] for row in await channel.rows(told, id=payment_id)] == [1, 2]


async def test_a_settlement_that_is_told_after_its_return_changes_nothing(channel) -> None:  # L41
    payment_id = await channel.accepted()
    await channel.record(payment_id, Outcome.RETURNED, Reason.SCHEME_RETURNED)
    assert await channel.record(payment_id, Outcome.SETTLED, Reason.NONE) == DONE
    assert (await channel.ask(payment_id)).json()["outcome"] == "RETURNED"
    assert len(await _history(channel, payment_id)) == 1


@pytest.mark.parametrize("final", [Outcome.REJECTED, Outcome.CANCELLED])
async def test_what_never_settled_is_not_returned(channel, final: Outcome) -> None:  # L22
    payment_id = await channel.accepted()
    await channel.record(payment_id, final, Reason.NONE)
    ending = await channel.record(payment_id, Outcome.RETURNED, Reason.SCHEME_RETURNED)
    assert isinstance(ending, Failed)
    assert ending.retries == 0


async def test_an_unknown_outcome_that_comes_late_changes_nothing(channel) -> None:
    payment_id = await channel.accepted()
    await channel.record(payment_id, Outcome.SETTLED, Reason.NONE)
    assert await channel.record(payment_id, Outcome.UNKNOWN, Reason.NO_ANSWER) == DONE
    assert (await channel.ask(payment_id)).json()["outcome"] == "SETTLED"


async def test_the_database_itself_keeps_history_and_final_outcomes(channel) -> None:
    payment_id = await channel.accepted()
    await channel.record(payment_id, Outcome.SETTLED, Reason.NONE)
    for statement in (
        "UPDATE channel.payment_outcome SET outcome = 'REJECTED' WHERE payment_id = %(id)s",
        "DELETE FROM channel.payment_outcome WHERE payment_id = %(id)s",
        "UPDATE channel.payment SET outcome = 'REJECTED' WHERE id = %(id)s",
        "UPDATE channel.payment SET outcome = NULL WHERE id = %(id)s",
    ):
        with pytest.raises(RaiseException):
            await channel.rows(statement, id=payment_id)


async def test_an_outcome_makes_a_callback_only_where_one_was_asked_for(channel) -> None:  # H5
    asked, silent = await channel.accepted(**{"X-CallbackURL": "http://127.0.0.1:1/hooks"}), await channel.accepted()
    for payment_id in (asked, silent):
        await channel.record(payment_id, Outcome.UNKNOWN, Reason.NO_ANSWER)
        await channel.record(payment_id, Outcome.SETTLED, Reason.NONE)
    found = await channel.rows(
        "SELECT payment_id::text, sequence, url FROM channel.callback WHERE tenant_id = %(t)s ORDER BY sequence",
        t=channel.tenant,
    )
    assert found == [(asked, 1, "http://127.0.0.1:1/hooks"), (asked, 2, "http://127.0.0.1:1/hooks")]
    assert channel.looks == 4


async def _history(channel, payment_id: PaymentId) -> list[tuple[int, str, str, str | None]]:
    return [
        tuple(row)
        for row in await channel.rows(
            "SELECT sequence, outcome, reason, reason_detail FROM channel.payment_outcome WHERE payment_id = %(id)s"
            " ORDER BY sequence",
            id=payment_id,
        )
    ]
