"""The relay and a real Kafka: told in order, through an outage of Kafka, once it is back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from kafka import KafkaConsumer

from hub.money import Money
from hub.stack.state import load_state
from hub.statements import open_statements
from ledger.model import STP_SETTLEMENT, AccountRef, Leg
from ledger.outbox import KafkaTopic, NotAcknowledged, Relay, tell_for_ever
from ledger.settings import APP_ROLE

pytestmark = pytest.mark.stack


class Healthy(BaseHTTPRequestHandler):
    """Stands for the servers that this test does not need: the stack only watches them."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def kafka_address(database_server: str) -> Iterator[str]:
    """A real Kafka, started as `payhub up` starts it, and nothing else."""
    others = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    Thread(target=others.serve_forever, daemon=True).start()
    existing = {
        "PAYHUB_DATABASE_URL": database_server,
        "PAYHUB_ZEEBE_ADDRESS": f"127.0.0.1:{others.server_port}",
        "PAYHUB_ELASTICSEARCH_URL": f"http://127.0.0.1:{others.server_port}",
    }
    folder = Path(tempfile.mkdtemp(prefix="payhub-tests-"))
    folder.chmod(0o711)
    command = [sys.executable, "-m", "hub.stack"]
    choices = ["--detach", "--free-ports", "--profile", "minimal", "--bound-to", str(os.getpid())]
    started = subprocess.run(
        [*command, "up", *choices, "--data-dir", str(folder)],
        check=False,
        text=True,
        capture_output=True,
        env={**os.environ, **existing},
    )
    assert started.returncode == 0, started.stderr
    state = load_state(folder)
    assert state is not None
    yield state.address("kafka")
    subprocess.run([*command, "down", "--data-dir", str(folder)], check=True)
    others.shutdown()
    shutil.rmtree(folder)


def heard(address: str, topic: str, count: int) -> list[tuple[int, dict[str, object]]]:
    consumer = KafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest", group_id=None)
    found: list[tuple[int, dict[str, object]]] = []
    end = time.monotonic() + 30
    while len(found) < count and time.monotonic() < end:
        for records in consumer.poll(timeout_ms=500).values():
            found += [(int(dict(record.headers)["outbox-id"]), json.loads(record.value)) for record in records]
    consumer.close()
    return found


async def test_what_is_booked_reaches_kafka_in_order(own_bank, kafka_address):
    ana = AccountRef.customer("ana")
    await own_bank.open({"id": "ana", "opening_balance": "100"})
    async with open_statements(own_bank.url, 2, role=APP_ROLE) as statements:
        away = KafkaTopic("127.0.0.1:1", "ledger-test")
        with pytest.raises(NotAcknowledged):
            await Relay(statements, away.publish).tell()

        topic = KafkaTopic(kafka_address, "ledger-test")
        telling = asyncio.create_task(tell_for_ever(Relay(statements, topic.publish, batch=7), 0.05))
        for number in range(30):
            await own_bank.ledger.post(
                own_bank.name, f"t{number}", [Leg(STP_SETTLEMENT, ana, Money(1, "MXN"))], reference=f"p{number % 3}"
            )
        found = await asyncio.to_thread(heard, kafka_address, "ledger-test", 31)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await topic.close()
    assert [value["operation"] for _, value in found] == ["seed:ana:opening", *(f"t{number}" for number in range(30))]
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
