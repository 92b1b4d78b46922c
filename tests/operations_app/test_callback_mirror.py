"""Every callback reaches Kafka, each change of it, whatever dies in between (H4, H15)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import pytest_asyncio

from hub.migrations import migrate
from hub.statements import Statements, open_statements
from ledger.outbox import NotAcknowledged, Told
from operations_app.callback_mirror import CallbackMirror


@pytest_asyncio.fixture
async def tables(new_database: Callable[[], str]) -> AsyncIterator[Statements]:
    url = new_database()
    for component in ("connectors.stp.migrations", "connectors.channel.migrations"):
        migrate(component, url)
    async with open_statements(url) as opened:
        yield opened


async def post(tables: Statements, body: str) -> None:
    await tables.rows(
        "INSERT INTO stp.callback (kind, body, body_sha256) VALUES ('order-status', %(body)s, sha256(%(body)s)) "
        "ON CONFLICT (kind, body_sha256) DO UPDATE SET times = callback.times + 1",
        {"body": body.encode()},
    )


class Topic:
    """What Kafka acknowledged; refuses as often as it is told to."""

    def __init__(self) -> None:
        self.told: list[dict[str, object]] = []
        self.refuse = 0

    async def publish(self, waiting: Sequence[Told]) -> None:
        if self.refuse:
            self.refuse -= 1
            raise NotAcknowledged("away")
        self.told += [json.loads(one.value) for one in waiting]


async def test_each_change_of_a_callback_is_told_and_none_is_lost_while_kafka_is_away(tables: Statements):  # H4
    topic = Topic()
    mirror = CallbackMirror(tables, topic.publish, batch=2)
    for number in range(3):
        await post(tables, f"b{number}")
    topic.refuse = 1
    with pytest.raises(NotAcknowledged):
        await mirror.tell()
    while await mirror.tell():
        pass
    assert [(one["id"], one["outcome"], one["times"]) for one in topic.told] == [
        (f"stp-{number}", "received", 1) for number in (1, 2, 3)
    ]
    await post(tables, "b1")
    await tables.rows("UPDATE stp.callback SET result = 'unknown-order' WHERE id = 2")
    assert await mirror.tell() == 1
    assert (topic.told[-1]["id"], topic.told[-1]["outcome"], topic.told[-1]["times"]) == ("stp-2", "unknown-order", 2)
    assert int(str(topic.told[-1]["seq"])) > int(str(topic.told[-2]["seq"]))
    assert await mirror.tell() == 0


async def test_a_callback_that_changes_while_it_is_told_is_told_again(tables: Statements):
    topic = Topic()

    async def publish(waiting: Sequence[Told]) -> None:
        if not topic.told:
            await tables.rows("UPDATE stp.callback SET result = 'malformed' WHERE id = 1")
        await topic.publish(waiting)

    mirror = CallbackMirror(tables, publish)
    await post(tables, "b")
    assert (await mirror.tell(), await mirror.tell(), await mirror.tell()) == (1, 1, 0)
    assert [one["outcome"] for one in topic.told] == ["received", "malformed"]


async def test_what_is_told_of_a_callback_to_a_channel_names_no_address(tables: Statements):
    await tables.rows(
        "WITH p AS (INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, amount, currency, payer, "  # noqa: E501
        "payee, concept, publish_after) VALUES (gen_random_uuid(), 'acme', 'k', '', 1, 'MXN', '{}', '{}', '', now()) "
        "RETURNING id), o AS (INSERT INTO channel.payment_outcome (payment_id, sequence, outcome, reason) "
        "SELECT id, 1, 'SETTLED', 'none' FROM p RETURNING payment_id) "
        "INSERT INTO channel.callback (payment_id, sequence, tenant_id, url) "
        "SELECT payment_id, 1, 'acme', 'https://someone.example/?token=secret' FROM o"
    )
    topic = Topic()
    assert await CallbackMirror(tables, topic.publish).tell() == 1
    assert (topic.told[0]["party"], topic.told[0]["outcome"], topic.told[0]["tenantId"]) == ("CHANNEL", "DUE", "acme")
    assert "secret" not in json.dumps(topic.told)


async def test_two_mirrors_at_once_tell_each_callback_once(tables: Statements):
    first, second = Topic(), Topic()
    await post(tables, "b")
    other = CallbackMirror(tables, second.publish)

    async def publish(waiting: Sequence[Told]) -> None:
        assert await other.tell() == 0
        await first.publish(waiting)

    assert await CallbackMirror(tables, publish).tell() == 1
    assert (len(first.told), len(second.told)) == (1, 0)


async def test_dying_between_kafkas_word_and_the_mark_tells_the_same_numbers_again(tables: Statements):
    """What `operations.callback-mirror.after-acknowledgement` is for."""
    topic = Topic()

    async def publish(waiting: Sequence[Told]) -> None:
        first = not topic.told
        await topic.publish(waiting)
        if first:
            raise NotAcknowledged("died before it could mark")

    mirror = CallbackMirror(tables, publish)
    await post(tables, "b")
    with pytest.raises(NotAcknowledged):
        await mirror.tell()
    assert (await mirror.tell(), await mirror.tell()) == (1, 0)
    assert topic.told[0] == topic.told[1]
