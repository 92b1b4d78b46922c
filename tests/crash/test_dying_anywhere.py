"""Each process is killed at each of its named points while payments run: nothing lost or doubled, no hold left."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.trial import BBVA, TrialHub, transfer
from ledger.verify import verify

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

SOURCES = {
    "work-ams": ["connectors/ams", "ledger"],
    "work-channel": ["connectors/channel/worker.py", "connectors/channel/callbacks.py"],
    "serve-channel": ["connectors/channel/api.py", "connectors/channel/accepting.py", "connectors/channel/relay.py"],
    "work-stp": ["connectors/stp/worker.py", "connectors/stp/dispatch.py", "connectors/stp/orders.py"],
    "serve-stp-callbacks": ["connectors/stp/api.py", "connectors/stp/callbacks.py"],
}
"""Which process reaches the failpoints of which files."""


def failpoints(places: list[str]) -> list[str]:
    files = [
        file for place in places for file in ([Path(place)] if place.endswith(".py") else Path(place).rglob("*.py"))
    ]
    return sorted({name for file in files for name in re.findall(r'failpoint\("([^"]+)"\)', file.read_text())})


def held(url: str) -> int:
    """Minor units still set aside in the whole book."""
    with psycopg.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        row = connection.execute("SELECT coalesce(sum(hold_out), 0) FROM ledger.balance").fetchone()
    assert row is not None
    return int(row[0])


def test_every_failpoint_belongs_to_a_process_that_is_killed_there():
    everywhere = failpoints(["connectors", "ledger"])
    assert everywhere
    assert sorted({name for places in SOURCES.values() for name in failpoints(places)}) == everywhere


async def test_two_hundred_payments_survive_every_process_dying_at_every_point(
    tmp_path: Path, zeebe_address: str, new_database: Callable[[], str]
):
    deadly = {name: [f"{point}:3" for point in failpoints(places)] for name, places in SOURCES.items()}
    settings = {"PAYHUB_STP_INQUIRE_AFTER": "2", "PAYHUB_STP_INQUIRE_AGAIN_AFTER": "2"}
    async with TrialHub.open(tmp_path, zeebe_address, new_database(), settings) as hub:
        await hub.start_all(deadly)
        paying: list[asyncio.Task[str]] = []

        def wanted() -> bool:
            return len(paying) < 200 or any(hub.deaths(name) < len(points) for name, points in deadly.items())

        while wanted() and len(paying) < 600:
            number = len(paying)
            over_stp = number % 2 == 0
            if number % 16 == 2:
                await hub.simulate({"conceptoPago": f"c{number}"}, ["refuse", "return", "lose-answer"][number % 3])
            body = (
                transfer("2.00", payee=BBVA, payee_type="CLABE", note=f"c{number}")
                if over_stp
                else transfer("3.00", note=f"c{number}")
            )
            paying.append(asyncio.create_task(hub.pay(body, f"key-{number}", within=120)))
            await asyncio.sleep(0.08)
        payments = await asyncio.gather(*paying)
        assert {name: hub.deaths(name) for name in deadly} == {name: len(points) for name, points in deadly.items()}
        assert len(set(payments)) == len(payments)

        ended = await hub.until_final(payments, within=240)
        ledger_url = hub.environment["PAYHUB_LEDGER_DATABASE_URL"]
        report = await verify(ledger_url)
        assert report.sound, str(report)
        assert held(ledger_url) == 0
        orders = await hub.simulated_orders()
        assert max(Counter(order["claveRastreo"] for order in orders).values()) == 1
        settled = {order["conceptoPago"] for order in orders if order["estado"] == "LQ"}
        committed = {
            f"c{number}"
            for number, payment in enumerate(payments)
            if number % 2 == 0 and ended[payment]["transferState"] == "COMMITTED"
        }
        assert settled == committed
