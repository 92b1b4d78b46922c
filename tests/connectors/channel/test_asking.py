"""Asking how a payment stands (H5): every state, and nothing of anybody else's."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from hub.transfer import Outcome, Reason


async def test_a_payment_is_received_then_pending_then_ended(channel) -> None:
    answer = await channel.send(key="k")
    payment_id = answer.json()["transactionId"]
    received = (await channel.ask(payment_id)).json()
    assert received == {
        "clientRefId": "order-7",
        "transactionId": payment_id,
        "transferId": payment_id,
        "completedTimestamp": None,
        "transferState": "RECEIVED",
        "outcome": None,
        "reason": None,
        "reasonDetail": None,
        "iso20022Reason": None,
    }
    await channel.claim(payment_id)
    assert (await channel.ask(payment_id)).json()["transferState"] == "PENDING"
    await channel.record(payment_id, Outcome.SETTLED, Reason.NONE)
    settled = (await channel.ask(payment_id)).json()
    assert (settled["transferState"], settled["outcome"], settled["reason"]) == ("COMMITTED", "SETTLED", "none")
    completed = datetime.fromisoformat(settled["completedTimestamp"])
    assert abs((datetime.now(UTC) - completed).total_seconds()) < 10


@pytest.mark.parametrize(
    ("outcome", "reason", "state", "iso"),
    [
        (Outcome.REJECTED, Reason.INSUFFICIENT_FUNDS, "ABORTED", "AM04"),
        (Outcome.CANCELLED, Reason.SCHEME_CANCELLED, "ABORTED", "DS02"),
        (Outcome.RETURNED, Reason.SCHEME_RETURNED, "RETURNED", "NARR"),
        (Outcome.UNKNOWN, Reason.NO_ANSWER, "UNKNOWN", "NOAS"),
    ],
)
async def test_each_outcome_is_shown_as_it_is(channel, outcome: Outcome, reason: Reason, state: str, iso: str) -> None:
    payment_id = await channel.accepted()
    await channel.record(payment_id, outcome, reason, "why")
    found = (await channel.ask(payment_id)).json()
    assert (found["transferState"], found["outcome"], found["reason"], found["iso20022Reason"]) == (
        state,
        outcome.value,
        reason.value,
        iso,
    )
    assert found["reasonDetail"] == "why"
    assert (found["completedTimestamp"] is None) == (outcome is Outcome.UNKNOWN)


@pytest.mark.parametrize("key", ["rent-2026-11", "a/b/c", "with blank", "%41"])
async def test_a_payment_is_found_by_its_correlation_id(channel, key: str) -> None:
    from urllib.parse import quote

    payment_id = (await channel.send(key=key)).json()["transactionId"]
    answer = await channel.client.get(f"/channel/txnState/{quote(key, safe='')}", headers=channel.headers())
    assert answer.status_code == 200, answer.text
    assert (answer.json()["transactionId"], answer.json()["transferState"]) == (payment_id, "RECEIVED")


async def test_what_never_was_is_not_found(channel) -> None:
    for path in (f"transfer/{uuid.uuid4()}", "transfer/nonsense", "transfer/1", "txnState/never"):
        answer = await channel.client.get(f"/channel/{path}", headers=channel.headers())
        assert (answer.status_code, answer.json()["code"]) == (404, "transfer-unknown"), path


async def test_another_tenants_payment_looks_like_one_that_never_was(open_channel) -> None:  # H16
    async with open_channel() as one, open_channel() as other:
        payment_id = (await one.send(key="k")).json()["transactionId"]
        never = (await other.ask(str(uuid.uuid4()))).json()
        assert (await other.ask(payment_id)).json() == never
        by_key = await other.client.get("/channel/txnState/k", headers=other.headers())
        assert (by_key.status_code, by_key.json()) == (404, never)
        assert (await one.ask(payment_id)).status_code == 200
