"""The account system goes away and comes back: payments are accepted within limits, and each is posted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.trial import TrialHub, transfer
from ledger.verify import verify

pytestmark = [pytest.mark.timeout(300)]

MOST = 6


class Way:
    """A TCP way to the ledger's database that can be blocked: connections break, and new ones are refused."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def unblock(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def block(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        self._open |= {writer, there_writer}
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        self._open -= {writer, there_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def way(new_database: Callable[[], str]) -> AsyncIterator[tuple[Way, str]]:
    url = new_database()
    server = make_url(url)
    way = Way(server.host or "127.0.0.1", server.port or 5432)
    await way.unblock()
    yield way, url
    await way.block()


async def standing(hub: TrialHub) -> dict[str, Any]:
    answer = await hub.http.get(f"{hub.urls['channel']}/channel/stand-in", headers=hub.headers())
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


async def until_it_says(hub: TrialHub, word: str) -> None:
    async with asyncio.timeout(30):
        while (await standing(hub))["accountSystem"] != word:
            await asyncio.sleep(0.1)


def captures(url: str) -> dict[str, int]:
    """How often each payment was paid out of its hold."""
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)) as book:
        rows = book.execute("SELECT ext_ref, count(*) FROM ledger.txn WHERE kind = 'capture' GROUP BY 1").fetchall()
    return {str(payment): int(count) for payment, count in rows}


async def test_payments_wait_within_limits_while_the_ledger_is_away_and_are_posted_once_each(
    tmp_path: Path, zeebe_address: str, way: tuple[Way, str]
):  # H8
    road, url = way
    settings = {
        "PAYHUB_LEDGER_DATABASE_URL": make_url(url)
        .set(host="127.0.0.1", port=road.port)
        .render_as_string(hide_password=False),
        "PAYHUB_CHANNEL_STAND_IN_PAYMENTS": str(MOST),
    }
    async with TrialHub.open(tmp_path, zeebe_address, url, settings) as hub:
        needed = ("serve-channel", "work-channel", "work-ams")
        for name in needed:
            hub.start(name)
        await asyncio.gather(*(hub.ready(name) for name in needed))
        await until_it_says(hub, "reachable")
        before = await hub.pay(transfer("1.00"))
        await hub.until(before, "COMMITTED")

        await road.block()
        await until_it_says(hub, "away")
        answers = await asyncio.gather(*(hub.ask(transfer("2.00"), f"waiting-{number}") for number in range(MOST + 4)))
        accepted = [answer.json()["transactionId"] for answer in answers if answer.status_code == 202]
        refused = [answer for answer in answers if answer.status_code != 202]
        assert len(accepted) == MOST
        assert {(one.status_code, one.json()["code"]) for one in refused} == {(503, "stand-in-limit")}
        waiting = (await standing(hub))["waiting"]
        assert (waiting["payments"], waiting["amounts"]) == (MOST, [{"currency": "MXN", "amount": "12.00"}])
        await asyncio.gather(*(hub.until(payment, "PENDING") for payment in accepted))
        await asyncio.sleep(3)  # time for tries that fail
        assert {(await hub.state(payment))["transferState"] for payment in accepted} == {"PENDING"}

        await road.unblock()
        ended = await hub.until_final(accepted, within=90)
        assert {one["outcome"] for one in ended.values()} == {"SETTLED"}
        assert captures(url) == dict.fromkeys([before, *accepted], 1)
        await until_it_says(hub, "reachable")
        later = await asyncio.gather(*(hub.pay(transfer("2.00"), f"waiting-{number}") for number in range(MOST + 4)))
        assert set(accepted) < set(later)
        await hub.until_final(later)
        assert set(captures(url).values()) == {1}
        assert len(captures(url)) == 1 + MOST + 4
        report = await verify(url)
        assert report.sound, str(report)
        async with asyncio.timeout(30):
            while (await standing(hub))["waiting"]["payments"]:
                await asyncio.sleep(0.1)
