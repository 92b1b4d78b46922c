"""The relay and a real Kafka: told in order, through an outage of Kafka, once it is back."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path

import pytest
from kafka import KafkaConsumer

from hub.money import Money
from hub.stack.state import load_state
from hub.statements import open_statements
from ledger.model import STP_SETTLEMENT, AccountRef, Leg
from ledger.outbox import KafkaTopic, NotAcknowledged, Relay, tell_for_ever
from ledger.settings import APP_ROLE

pytestmark = pytest.mark.stack


@pytest.fixture
def kafka_address(stack_folder: Path) -> str:
    state = load_state(stack_folder)
    assert state is not None
    return state.address("kafka")


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
    ana, name = AccountRef.customer("ana"), f"ledger-{uuid.uuid4().hex[:8]}"
    await own_bank.open({"id": "ana", "opening_balance": "100"})
    async with open_statements(own_bank.url, 2, role=APP_ROLE) as statements:
        away = KafkaTopic("127.0.0.1:1", name)
        with pytest.raises(NotAcknowledged):
            await Relay(statements, away.publish).tell()

        topic = KafkaTopic(kafka_address, name)
        telling = asyncio.create_task(tell_for_ever(Relay(statements, topic.publish, batch=7), 0.05))
        for number in range(30):
            await own_bank.ledger.post(
                own_bank.name, f"t{number}", [Leg(STP_SETTLEMENT, ana, Money(1, "MXN"))], reference=f"p{number % 3}"
            )
        found = await asyncio.to_thread(heard, kafka_address, name, 31)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await topic.close()
    assert [value["operation"] for _, value in found] == ["seed:ana:opening", *(f"t{number}" for number in range(30))]
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
