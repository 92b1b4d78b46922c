"""How a webhook is told, whoever tells it (H5). What the channel's callbacks show, tests/connectors/channel shows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from hub.addresses import Address
from hub.errors import Unavailable
from hub.webhook import Delivery, DeliveryState, Pace, Teller, Told, checked_secret, open_teller

SECRET = "whsec_dGVzdC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcyE="
PACE = Pace(at_once=4, look_every=0.01, timeout=0.5, days=3, first_pause=5, internal=False)


class Memory:
    """A desk that only remembers."""

    def __init__(self, *due: Delivery) -> None:
        self.due, self.results = list(due), list[Told]()
        self.busy: Sequence[str] = ()
        self.ended = asyncio.Event()
        self.away = 0

    async def lease(self, count: int, seconds: float, busy: Sequence[str]) -> Sequence[Delivery]:
        self.busy = busy
        found = [one for one in self.due if one.receiver not in busy][:count]
        self.due = [one for one in self.due if one not in found]
        return found

    def body(self, due: Delivery) -> str:
        return f'{{"id":"{due.message_id}"}}'

    async def told(self, due: Delivery, result: Told) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("database: away")
        self.results.append(result)
        self.ended.set()


def due(**given: object) -> Delivery:
    values: dict[str, object] = {
        "message_id": "m-1",
        "receiver": "r",
        "url": "http://127.0.0.1:9/hooks",
        "secret": SECRET,
        "allow_list": (Address.parse("http://127.0.0.1:*/hooks"),),
        "attempt": 1,
        "created_at": datetime.now(UTC),
        **given,
    }
    return Delivery(**values)  # type: ignore[arg-type]


async def answered(desk: Memory, answer: httpx.Response | Exception, pace: Pace = PACE) -> list[httpx.Request]:
    """Let the loop tell what waits; what the receiver saw."""
    seen: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(receive)) as http:
        loop = asyncio.create_task(Teller(desk, http, pace).run())
        async with asyncio.timeout(5):
            await desk.ended.wait()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    return seen


async def test_what_is_told_verifies_and_carries_its_id() -> None:
    desk = Memory(due())
    [request] = await answered(desk, httpx.Response(204))
    assert Webhook(SECRET).verify(request.content, dict(request.headers)) == {"id": "m-1"}
    assert request.headers["webhook-id"] == "m-1"
    assert desk.results == [Told(DeliveryState.DELIVERED, "204", 0)]


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        (httpx.Response(410), DeliveryState.REFUSED, "410"),
        (httpx.Response(302, headers={"location": "http://127.0.0.1:9/other"}), DeliveryState.DUE, "302"),
        (httpx.Response(500), DeliveryState.DUE, "500"),
        (httpx.ConnectError("no"), DeliveryState.DUE, "ConnectError"),
    ],
)
async def test_410_ends_it_and_any_other_refusal_is_tried_again(
    answer: httpx.Response | Exception, state: DeliveryState, text: str
) -> None:
    desk = Memory(due())
    assert len(await answered(desk, answer)) == 1
    assert (desk.results[0].state, desk.results[0].answer) == (state, text)


async def test_a_receiver_that_asks_for_time_gets_it_up_to_a_day() -> None:
    desk = Memory(due())
    await answered(desk, httpx.Response(503, headers={"retry-after": "999999"}))
    assert desk.results[0].pause == 86400


async def test_after_the_days_it_is_given_up() -> None:
    desk = Memory(due(created_at=datetime.now(UTC) - timedelta(days=3), attempt=40))
    await answered(desk, httpx.Response(500))
    assert desk.results[0].state is DeliveryState.GIVEN_UP


@pytest.mark.parametrize(
    "changes", [{"secret": None}, {"allow_list": ()}, {"url": ""}, {"url": "http://10.0.0.1/hooks"}]
)
async def test_nothing_is_sent_without_a_secret_or_off_the_list(changes: dict[str, object]) -> None:
    desk = Memory(due(**changes))
    assert await answered(desk, httpx.Response(204)) == []
    assert desk.results[0].state is DeliveryState.REFUSED


async def test_one_receiver_gets_half_of_what_is_under_way() -> None:
    held = asyncio.Event()

    async def hold(_: httpx.Request) -> httpx.Response:
        await held.wait()
        return httpx.Response(204)

    desk = Memory(*(due(message_id=f"m-{n}", receiver="slow") for n in range(4)), due(receiver="quick"))
    async with httpx.AsyncClient(transport=httpx.MockTransport(hold)) as http:
        loop = asyncio.create_task(Teller(desk, http, PACE).run())
        async with asyncio.timeout(5):
            while not (desk.busy == ["slow"] and [one.receiver for one in desk.due] == ["slow", "slow"]):
                await asyncio.sleep(0.01)
        held.set()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def test_a_desk_that_is_away_ends_no_loop() -> None:
    desk = Memory(due(), due())
    desk.away = 1
    assert len(await answered(desk, httpx.Response(204))) == 2


def test_pauses_double_up_to_four_hours() -> None:
    for attempt, seconds in ((1, 5), (2, 10), (5, 80), (40, 4 * 3600)):
        assert seconds * 0.75 <= PACE.pause(attempt) <= seconds * 1.25


def test_the_secret_is_not_in_what_is_printed() -> None:
    assert SECRET not in repr(due())


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_dG9vLXNob3J0", "whsec_!!", "whsec_" + "QUFB" * 30])
def test_a_secret_that_cannot_sign_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        checked_secret(text)
    assert checked_secret(SECRET) == SECRET


async def test_the_real_client_follows_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    calls: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    desk = Memory(due(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"))
    async with server, open_teller(desk, PACE) as teller:
        loop = asyncio.create_task(teller.run())
        async with asyncio.timeout(5):
            await desk.ended.wait()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    assert desk.results[0].state is DeliveryState.DELIVERED
    assert calls[0].startswith(b"POST /hooks ")
