"""Outcomes are told to the channel: signed, repeated, and only where they may go (H5)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from connectors.channel.callbacks import open_callbacks
from hub.errors import Unavailable
from hub.transfer import Outcome, PaymentId, Reason
from hub.webhook import DeliveryState

SECRET = "whsec_dGVzdC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcyE="


@dataclass
class Call:
    """One attempt as the receiver saw it."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.body)
        return found


@dataclass
class Receiver:
    """A channel application that answers as it is told."""

    url: str = ""
    answers: list[bytes] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    delay: float = 0

    async def heard(self, count: int) -> list[Call]:
        async with asyncio.timeout(10):
            while len(self.calls) < count:
                await asyncio.sleep(0.01)
        return self.calls

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in lines[1:] if line}
            body = await reader.readexactly(int(headers["content-length"]))
            self.calls.append(Call(lines[0].split(" ")[1], headers, body))
            await asyncio.sleep(self.delay)
            writer.write(self.answers.pop(0) if self.answers else OK)
            await writer.drain()
        finally:
            writer.close()


OK = b"HTTP/1.1 204 No Content\r\n\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
GONE = b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def _listening(**given: float) -> AsyncIterator[Receiver]:
    receiver = Receiver(**given)  # type: ignore[arg-type]
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
        yield receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with _listening() as listening:
        yield listening


async def _ended(channel, url: str, outcome: Outcome = Outcome.SETTLED, reason: Reason = Reason.NONE) -> PaymentId:
    payment_id: PaymentId = await channel.accepted(**{"X-CallbackURL": url})
    await channel.record(payment_id, outcome, reason)
    return payment_id


async def _state(channel, payment_id: PaymentId) -> tuple[str, int, str | None]:
    [row] = await channel.rows(
        "SELECT state, attempts, last_answer FROM channel.callback WHERE payment_id = %(id)s AND sequence = 1",
        id=payment_id,
    )
    return tuple(row)


async def _becomes(channel, payment_id: PaymentId, condition: Callable[[tuple[str, int, str | None]], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition(await _state(channel, payment_id)):
            await asyncio.sleep(0.02)


async def test_an_outcome_is_told_signed(running, receiver: Receiver) -> None:
    payment_id = await running.accepted(**{"X-CallbackURL": receiver.url, "X-CorrelationID": "rent"})
    await running.record(payment_id, Outcome.REJECTED, Reason.INSUFFICIENT_FUNDS, "the balance is too low")
    [call] = await receiver.heard(1)
    assert Webhook(SECRET).verify(call.body, call.headers) == call.json
    assert call.headers["content-type"] == "application/json"
    assert call.headers["host"] == receiver.url.split("/")[2]
    timestamp = call.json["timestamp"]
    assert call.json == {
        "type": "transfer.outcome",
        "timestamp": timestamp,
        "transactionId": payment_id,
        "correlationId": "rent",
        "clientRefId": "order-7",
        "completedTimestamp": timestamp,
        "transferState": "ABORTED",
        "outcome": "REJECTED",
        "reason": "insufficient-funds",
        "reasonDetail": "the balance is too low",
        "iso20022Reason": "AM04",
    }
    await _becomes(running, payment_id, lambda found: found == ("DELIVERED", 1, "204"))


async def test_a_changed_body_does_not_verify(running, receiver: Receiver) -> None:
    await _ended(running, receiver.url)
    [call] = await receiver.heard(1)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(call.body.replace(b"SETTLED", b"RETURNED"), call.headers)


async def test_a_callback_is_repeated_with_the_same_id_and_body_until_it_is_taken(running, receiver: Receiver) -> None:
    receiver.answers = [FAILED, FAILED]
    payment_id = await _ended(running, receiver.url)
    calls = await receiver.heard(3)
    assert len({call.headers["webhook-id"] for call in calls}) == 1
    assert len({call.body for call in calls}) == 1
    await _becomes(running, payment_id, lambda found: found == ("DELIVERED", 3, "204"))
    await asyncio.sleep(0.3)
    assert len(receiver.calls) == 3


async def test_an_unknown_outcome_and_the_final_one_are_two_callbacks(running, receiver: Receiver) -> None:
    payment_id = await _ended(running, receiver.url, Outcome.UNKNOWN, Reason.NO_ANSWER)
    [unknown] = await receiver.heard(1)
    await running.record(payment_id, Outcome.SETTLED, Reason.OPERATOR)
    final = (await receiver.heard(2))[1]
    assert (unknown.json["transferState"], final.json["transferState"]) == ("UNKNOWN", "COMMITTED")
    assert unknown.json["completedTimestamp"] is None
    assert unknown.headers["webhook-id"] != final.headers["webhook-id"]


async def test_gone_ends_it_at_once(running, receiver: Receiver) -> None:
    receiver.answers = [GONE]
    payment_id = await _ended(running, receiver.url)
    await _becomes(running, payment_id, lambda found: found == ("REFUSED", 1, "410"))
    await asyncio.sleep(0.3)
    assert len(receiver.calls) == 1


async def test_a_redirect_is_not_followed(running, receiver: Receiver) -> None:
    async with _listening() as elsewhere:
        receiver.answers = [
            f"HTTP/1.1 307 Temporary\r\nlocation: {elsewhere.url}\r\ncontent-length: 0\r\n\r\n".encode()
        ]
        await _ended(running, receiver.url)
        await receiver.heard(2)
        assert not elsewhere.calls


async def test_a_receiver_that_asks_for_time_gets_it(running, receiver: Receiver) -> None:
    receiver.answers = [BUSY]
    payment_id = await _ended(running, receiver.url)
    await _becomes(running, payment_id, lambda found: found == ("DUE", 1, "503"))
    [(seconds,)] = await running.rows(
        "SELECT extract(epoch FROM next_attempt_at - now()) FROM channel.callback WHERE payment_id = %(id)s",
        id=payment_id,
    )
    assert 3500 < seconds <= 3600


async def test_an_address_that_left_the_list_is_not_called(channel, receiver: Receiver) -> None:
    payment_id = await _ended(channel, receiver.url)
    await channel.store.put_tenant(channel.tenant, "A tenant", ["https://elsewhere.example"], SECRET)
    async with open_callbacks(channel.store, channel.settings) as callbacks:
        channel.start(callbacks.run)
        await _becomes(channel, payment_id, lambda found: found == ("REFUSED", 1, "not on the allow-list"))
    assert not receiver.calls


@pytest.mark.parametrize(("internal", "called"), [(False, 0), (True, 1)])
async def test_a_name_that_points_inside_is_called_only_where_settings_allow_it(
    open_channel, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, internal: bool, called: int
) -> None:
    async with open_channel(callback_internal=internal) as channel:
        url = receiver.url.replace("127.0.0.1", "bank.example")
        await channel.store.put_tenant(channel.tenant, "A tenant", ["http://bank.example:*/"], SECRET)
        payment_id = await _ended(channel, url)
        loop = asyncio.get_running_loop()
        resolve = loop.getaddrinfo

        async def resolved(host: str, *rest: object, **more: object) -> object:
            return await resolve("127.0.0.1" if host == "bank.example" else host, *rest, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "getaddrinfo", resolved)
        async with open_callbacks(channel.store, channel.settings) as callbacks:
            channel.start(callbacks.run)
            await _becomes(channel, payment_id, lambda found: found[0] != "DUE")
        assert len(receiver.calls) == called
        if called:
            assert receiver.calls[0].headers["host"] == url.split("/")[2]


async def test_after_three_days_it_is_given_up_and_stays_to_be_asked_for(channel, receiver: Receiver) -> None:
    receiver.answers = [FAILED]
    payment_id = await _ended(channel, receiver.url)
    await channel.rows(
        "UPDATE channel.callback SET created_at = created_at - interval '3 days' WHERE payment_id = %(id)s",
        id=payment_id,
    )
    async with open_callbacks(channel.store, channel.settings) as callbacks:
        channel.start(callbacks.run)
        await _becomes(channel, payment_id, lambda found: found == ("GIVEN_UP", 1, "500"))
    assert (await channel.ask(payment_id)).json()["transferState"] == "COMMITTED"


async def test_a_receiver_that_does_not_answer_is_tried_again(open_channel) -> None:
    async with open_channel(callback_timeout=0.2) as channel, _listening(delay=1) as silent:
        payment_id = await _ended(channel, silent.url)
        async with open_callbacks(channel.store, channel.settings) as callbacks:
            channel.start(callbacks.run)
            await silent.heard(2)
            await _becomes(channel, payment_id, lambda found: found[1] >= 2)
            assert (await _state(channel, payment_id))[0] == "DUE"
            await channel.stop()


async def test_a_receiver_that_is_not_there_is_tried_again(running) -> None:
    payment_id = await _ended(running, "http://127.0.0.1:1/hooks")
    await _becomes(running, payment_id, lambda found: found[:1] == ("DUE",) and found[1] >= 2)
    assert (await _state(running, payment_id))[2] == "ConnectError"


async def test_what_a_process_that_died_had_in_hand_is_told_by_the_next(channel, receiver: Receiver) -> None:
    payment_id = await _ended(channel, receiver.url)
    [leased] = await channel.store.lease_callbacks(10, 30, [])  # and here it dies
    assert leased.transfer.payment_id == payment_id
    assert await channel.store.lease_callbacks(10, 30, []) == []
    await channel.rows(
        "UPDATE channel.callback SET next_attempt_at = next_attempt_at - interval '30 s' WHERE payment_id = %(id)s",
        id=payment_id,
    )
    async with open_callbacks(channel.store, channel.settings) as callbacks:
        channel.start(callbacks.run)
        await _becomes(channel, payment_id, lambda found: found == ("DELIVERED", 2, "204"))


async def test_several_processes_tell_each_outcome_once(channel, receiver: Receiver) -> None:
    ids = [await _ended(channel, receiver.url) for _ in range(20)]
    async with (
        open_callbacks(channel.store, channel.settings) as one,
        open_callbacks(channel.store, channel.settings) as other,
    ):
        channel.start(one.run)
        channel.start(other.run)
        await receiver.heard(20)
        await asyncio.sleep(0.3)
        await channel.stop()
    assert sorted(str(call.json["transactionId"]) for call in receiver.calls) == sorted(ids)


async def test_one_tenants_silent_receiver_does_not_hold_up_anothers(open_channel, receiver: Receiver) -> None:  # H16
    async with open_channel(callbacks_at_once=4) as slow, open_channel() as quick, _listening(delay=2.5) as silent:
        for _ in range(8):
            await _ended(slow, silent.url)
        async with open_callbacks(slow.store, slow.settings) as callbacks:
            slow.start(callbacks.run)
            await silent.heard(2)
            began = time.monotonic()
            await _ended(quick, receiver.url)
            await receiver.heard(1)
            assert time.monotonic() - began < 2
            await slow.stop()


async def test_the_outage_of_the_database_ends_no_loop(channel, receiver: Receiver) -> None:
    async with open_callbacks(channel.store, channel.settings) as callbacks:
        lease = channel.store.lease_callbacks

        async def away(*_: object) -> list[object]:
            raise Unavailable("database: OperationalError")

        channel.store.lease_callbacks = away
        loop = channel.start(callbacks.run)
        await asyncio.sleep(0.2)
        channel.store.lease_callbacks = lease
        await _ended(channel, receiver.url)
        await receiver.heard(1)
        assert not loop.done()


def test_the_states_are_those_of_the_table() -> None:
    assert {state.value for state in DeliveryState} == {"DUE", "DELIVERED", "REFUSED", "GIVEN_UP"}
