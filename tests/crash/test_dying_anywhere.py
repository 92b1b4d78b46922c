"""Each process is killed at each of its named points while payments run: nothing lost or doubled, no hold left."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url

from connectors.stp.calendar import rollover_after
from hub.trial import BBVA, TrialHub, transfer
from ledger.verify import verify

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]

DEADLY = {
    "work-ams": [
        "ledger.hold.before-commit:3",
        "ledger.hold.after-commit:3",
        "ledger.capture.before-commit:3",
        "ledger.capture.after-commit:3",
        "ledger.release.before-commit:1",
        "ledger.release.after-commit:1",
        "ams.hold-funds.taken:3",
    ],
    "work-channel": [
        "channel.claim.before-commit:3",
        "channel.claim.after-commit:3",
        "channel.record-outcome.before-commit:3",
        "channel.record-outcome.after-commit:3",
        "channel.callback.after-lease:1",
        "channel.callback.before-send:1",
        "channel.callback.after-send:1",
        "channel.relay.after-lease:1",
        "channel.record-outcome.handled:3",
    ],
    "serve-channel": [
        "channel.accept.before-commit:3",
        "channel.accept.after-commit:3",
        "channel.relay.before-publish:3",
        "channel.relay.after-publish:3",
    ],
    "work-stp": [
        "stp.send-order.before-claim:3",
        "stp.send-order.after-claim:3",
        "stp.register.before-http:3",
        "stp.register.after-http:3",
        "stp.send-order.before-record:3",
        "stp.send-order.after-record:3",
        "stp.send-order.after-claim-again:1",
        "stp.send-order.reported:3",
    ],
    "serve-stp-callbacks": [
        "stp.order-status.before-store:3",
        "stp.order-status.after-store:3",
        "stp.order-status.after-commit:3",
        "stp.order-status.after-publish:3",
    ],
}
"""Where each process dies, one point per life, and at which hit."""


def failpoints() -> set[str]:
    """The names in the source, as patterns: a placeholder stands for any word. The runtime has its own for each job."""
    files = [file for part in ("connectors", "ledger", "exporters") for file in Path(part).rglob("*.py")]
    found = {name for file in files for name in re.findall(r'failpoint\(f?"([^"]+)"\)', file.read_text())}
    found |= {f"{{job_type}}.{when}" for when in re.findall(r'_point = f"{self.job_type}.(\w+)"', RUNTIME.read_text())}
    return {re.sub(r"\\{.*?}", "[a-z.-]+", re.escape(name)) for name in found}


RUNTIME = Path("hub/zeebe/worker.py")

UNLUCKY = ("refuse", "return", "lose-answer", "lose-request")
"""What the pretend STP does with one payment in eight."""


def held(url: str) -> int:
    """Minor units still set aside in the whole book."""
    with psycopg.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        row = connection.execute("SELECT coalesce(sum(hold_out), 0) FROM ledger.balance").fetchone()
    assert row is not None
    return int(row[0])


def test_every_failpoint_is_named_by_a_test_that_dies_there():
    tests = "\n".join(file.read_text() for file in Path("tests").rglob("test_*.py"))
    assert {name for name in failpoints() if not re.search(f"[\"' ]{name}[\"':]", tests)} == set()
    assert "[a-z.-]+\\.taken" in failpoints()


@pytest_asyncio.fixture
async def callback_url() -> AsyncIterator[str]:
    """Where a channel receives outcome callbacks; answers 204 to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        await reader.readexactly(int(length.group(1)) if length else 0)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/outcomes"


async def test_two_hundred_payments_survive_every_process_dying_at_every_point(
    tmp_path: Path, zeebe_address: str, new_database: Callable[[], str], callback_url: str
):
    # What was lost is not sent again on another of STP's days, nor shortly before one ends, but waits for people.
    settings = {
        "PAYHUB_STP_INQUIRE_AFTER": "2",
        "PAYHUB_STP_INQUIRE_AGAIN_AFTER": "2",
        "PAYHUB_STP_ROLLOVER_GUARD": "0",
    }
    left = rollover_after(datetime.now(UTC)) - datetime.now(UTC)
    if left < timedelta(minutes=6):
        await asyncio.sleep(left.total_seconds() + 1)
    async with TrialHub.open(tmp_path, zeebe_address, new_database(), settings) as hub:
        await hub.start_all(DEADLY)
        paying: list[asyncio.Task[str]] = []
        callback = {"X-CallbackURL": callback_url}

        def still_to_die() -> dict[str, list[str]]:
            left = {name: points[hub.deaths(name) :] for name, points in DEADLY.items()}
            return {name: points for name, points in left.items() if points}

        end = time.monotonic() + 400
        while len(paying) < 200 or (still_to_die() and time.monotonic() < end):
            number = len(paying)
            over_stp = number % 2 == 0
            if number % 8 == 2:
                await hub.simulate({"conceptoPago": f"c{number}"}, UNLUCKY[number // 8 % len(UNLUCKY)])
            body = (
                transfer("2.00", payee=BBVA, payee_type="CLABE", note=f"c{number}")
                if over_stp
                else transfer("3.00", note=f"c{number}")
            )
            paying.append(asyncio.create_task(hub.pay(body, f"key-{number}", within=120, **callback)))
            await asyncio.sleep(0.1 if number < 200 else 0.4)
        payments = await asyncio.gather(*paying)
        assert still_to_die() == {}
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
