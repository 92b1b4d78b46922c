"""Accepted payments reach the engine: at once, or after whatever was in the way, and once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import httpx

from connectors.channel.model import PaymentAccepted
from connectors.channel.relay import _MOST_WAITING, Relay
from hub.messages import Message, Published
from hub.statements import open_statements
from hub.testing import FakeEngine
from hub.transfer import PaymentId


async def test_a_payment_is_published_right_after_it_was_accepted(running) -> None:
    payment_id = await running.accepted()
    [message] = await running.published(1)
    assert message.payment_id == payment_id


async def test_accepting_does_not_wait_for_the_engine(open_channel) -> None:
    class Slow(FakeEngine):
        async def publish(self, message: Message) -> Published:
            await asyncio.sleep(1)
            return await super().publish(message)

    async with open_channel(engine=Slow()) as channel:
        channel.start(channel.relay.run)
        await asyncio.sleep(0)
        began = time.perf_counter()
        await channel.accepted()
        assert time.perf_counter() - began < 0.8
        assert not channel.engine.messages
        await channel.published(1)


async def test_what_was_committed_and_never_published_is_swept_up(open_channel) -> None:
    async with open_channel() as channel:
        ids = [await channel.accepted() for _ in range(45)]  # no relay runs: as after a crash
        channel.start(channel.relay.run)
        await _claim_as_they_come(channel, len(ids))
        assert sorted(message.payment_id for message in channel.engine.published(PaymentAccepted)) == sorted(ids)
        assert channel.engine.asked == len(ids)


async def test_a_payment_that_somebody_has_in_hand_is_left_alone(open_channel) -> None:
    async with open_channel() as channel:
        channel.relay._running = True
        payment_id = await channel.accepted()
        channel.relay._queue.clear()  # that process dies here
        channel.start(Relay(channel.store, channel.engine, channel.settings).run)
        await asyncio.sleep(0.3)
        assert not channel.engine.messages
        await channel.age(payment_id, timedelta(seconds=channel.settings.lease))
        assert [message.payment_id for message in await channel.published(1)] == [payment_id]


async def test_a_swept_message_says_the_same_as_the_first(open_channel) -> None:
    async with open_channel() as channel:
        channel.start(channel.relay.run)
        await asyncio.sleep(0)
        payment_id = await channel.accepted()
        [first] = await channel.published(1)
        await channel.stop()
        await channel.rows("UPDATE channel.payment SET publish_after = now() WHERE id = %(id)s", id=payment_id)
        [swept] = await channel.store.lease_overdue(10, 10)
        assert swept == first


async def test_an_answer_that_was_lost_starts_nothing_twice(open_channel) -> None:
    async with open_channel() as channel:
        channel.engine.lose_answers = 3
        channel.start(channel.relay.run)
        await asyncio.sleep(0)
        ids = [await channel.accepted() for _ in range(5)]
        await channel.until(lambda: channel.engine.asked >= 8)
        assert [message.payment_id for message in await channel.published(5)] == ids


async def test_with_the_engine_away_payments_are_accepted_and_published_later_in_order(open_channel) -> None:  # H15
    async with open_channel() as channel:
        channel.engine.away = True
        channel.start(channel.relay.run)
        await asyncio.sleep(0)
        ids = [await channel.accepted() for _ in range(12)]
        await channel.until(lambda: channel.engine.asked >= 2)
        assert not channel.engine.messages
        channel.engine.away = False
        assert [message.payment_id for message in await channel.published(12)] == ids


async def test_the_engine_gets_no_more_than_a_window_of_payments_it_has_not_begun(open_channel) -> None:
    async with open_channel(window=3) as channel:
        channel.start(channel.relay.run)
        await asyncio.sleep(0)
        ids = [await channel.accepted() for _ in range(10)]
        await channel.published(3)
        await asyncio.sleep(0.5)
        assert len(channel.engine.messages) == 3
        for done in range(3, 10):
            await channel.claim(ids[done - 3])
            await channel.published(done + 1)
            await asyncio.sleep(0.05)
            assert len(channel.engine.messages) == done + 1
        assert [message.payment_id for message in channel.engine.published(PaymentAccepted)] == ids


async def test_payments_that_are_never_begun_do_not_stop_the_others(open_channel) -> None:
    async with open_channel(window=2, window_age=0.3) as channel:
        channel.start(channel.relay.run)
        await asyncio.sleep(0)
        for _ in range(6):
            await channel.accepted()
        await channel.published(6)


async def test_a_payment_that_the_engine_forgot_is_given_to_it_again(open_channel) -> None:
    async with open_channel() as channel:
        channel.start(channel.relay.run)
        await asyncio.sleep(0)
        payment_id = await channel.accepted()
        await channel.published(1)
        while not await channel.rows(
            "SELECT FROM channel.payment WHERE id = %(id)s AND published_at IS NOT NULL", id=payment_id
        ):
            await asyncio.sleep(0.05)
        channel.engine.forget()
        await channel.age(payment_id, timedelta(seconds=channel.settings.publish_again_after))
        assert [message.payment_id for message in await channel.published(2)] == [payment_id, payment_id]


async def test_a_payment_that_has_begun_is_never_published_again(open_channel) -> None:
    async with open_channel() as channel:
        payment_id = await channel.accepted()
        await channel.claim(payment_id)
        await channel.age(payment_id, timedelta(days=1))
        channel.start(channel.relay.run)
        await asyncio.sleep(0.3)
        assert channel.engine.asked == 0


async def test_several_relays_share_what_is_left_without_doing_it_twice(open_channel) -> None:
    async with open_channel(window=200) as channel:
        ids = [await channel.accepted() for _ in range(100)]
        relays = [Relay(channel.store, channel.engine, channel.settings) for _ in range(4)]
        for relay in relays:
            channel.start(relay.run)
        await channel.published(100)
        await asyncio.sleep(0.3)
        assert channel.engine.asked == len(ids)


async def test_what_memory_has_no_room_for_is_left_to_the_table(open_channel) -> None:
    async with open_channel(window=1) as channel:
        channel.relay._running = True
        assert channel.relay.lease() == channel.settings.lease
        message = PaymentAccepted(
            **{
                **(await _any_message(channel)).model_dump(),
                "payment_id": PaymentId("0198f0c0-0000-7000-8000-000000000000"),
            }
        )
        for _ in range(_MOST_WAITING + 10):
            channel.relay.hand_over(message)
        assert len(channel.relay._queue) == _MOST_WAITING
        assert channel.relay.lease() == 0


async def test_a_relay_that_leaves_hands_back_what_it_has(open_channel) -> None:
    async with open_channel(window=1) as channel:
        channel.start(channel.relay.run)
        await asyncio.sleep(0)
        ids = [await channel.accepted() for _ in range(4)]
        await channel.published(1)
        await channel.stop()
        await channel.claim(ids[0])
        found = await channel.store.lease_overdue(10, 10)
        assert [payment.payment_id for payment in found] == ids[1:]


async def test_the_outage_of_the_database_ends_no_loop(open_channel) -> None:
    async with open_channel() as channel:
        loop = channel.start(channel.relay.run)
        await asyncio.sleep(0)
        kept = channel.store._statements
        async with open_statements("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as away:
            channel.store._statements = away
            await asyncio.sleep(0.5)
            channel.store._statements = kept
        await channel.accepted()
        await channel.published(1)
        assert not loop.done()


async def test_killed_between_commit_and_publication_nothing_is_lost(
    open_channel, channel_database: str, tmp_path: Path
) -> None:
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from connectors.channel.connector import open_api
        from hub.api import serve
        from hub.testing import FakeEngine

        async def main():
            async with open_api(FakeEngine()) as service:
                loops = [asyncio.ensure_future(loop()) for loop in service.loops]
                await serve(service.app, "127.0.0.1", int(sys.argv[1]))
        asyncio.run(main())
        """
    )
    async with open_channel() as channel:
        port = _free_port()
        environment = {
            **os.environ,
            "PAYHUB_DATABASE_URL": channel_database,
            "PAYHUB_TOKEN_JWKS_FILE": str(tmp_path / "jwks.json"),
            "PAYHUB_FAILPOINT": "channel.accept.after-commit:3",
        }
        with subprocess.Popen([sys.executable, "-c", program, str(port)], env=environment) as process:
            try:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                    await _alive(client)
                    headers = {**channel.headers(), "X-CorrelationID": "1"}
                    for number in range(3):
                        headers["X-CorrelationID"] = str(number)
                        try:
                            answer = await client.post("/channel/transfer", json=channel.body(), headers=headers)
                            assert answer.status_code == 202
                        except httpx.TransportError:
                            assert number == 2
                assert process.wait(10) == -signal.SIGKILL
            finally:
                process.kill()
        repeated = await channel.send(key="2")
        assert repeated.headers["idempotent-replayed"] == "true"
        await channel.age(repeated.json()["transactionId"], timedelta(seconds=channel.settings.lease))
        channel.start(channel.relay.run)
        assert repeated.json()["transactionId"] in [one.payment_id for one in await channel.published(1)]


async def _claim_as_they_come(channel, count: int) -> None:
    claimed = 0
    async with asyncio.timeout(20):
        while claimed < count:
            for message in channel.engine.published(PaymentAccepted)[claimed:]:
                await channel.claim(message.payment_id)
                claimed += 1
            await asyncio.sleep(0.01)


async def _any_message(channel) -> PaymentAccepted:
    await channel.send(key="any")
    waiting: list[PaymentAccepted] = list(channel.relay._queue)
    return waiting[0]


async def _alive(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if (await client.get("/health/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
