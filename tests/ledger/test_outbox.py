"""What was committed is told once acknowledged, in the order of commits, and nothing is ever passed over (L81)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import psycopg
import pytest
from sqlalchemy.engine import make_url

from hub.money import Money
from hub.statements import open_statements
from ledger.model import STP_SETTLEMENT, AccountRef, Leg
from ledger.outbox import NotAcknowledged, Relay, Told
from ledger.settings import APP_ROLE

ANA = AccountRef.customer("ana")


class Listener:
    """Hears what is told; refuses when it is told to."""

    def __init__(self) -> None:
        self.heard: list[Told] = []
        self.deaf = self.breaks = False

    async def publish(self, waiting: Sequence[Told]) -> None:
        if self.deaf:
            raise NotAcknowledged("away")
        self.heard.extend(waiting)
        if self.breaks:
            raise NotAcknowledged("the acknowledgement got lost")

    @property
    def operations(self) -> list[str]:
        return [json.loads(one.value)["operation"] for one in self.heard]


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
async def told(own_bank):
    await own_bank.open(*({"id": name, "opening_balance": "100"} for name in ("ana", "b", "c")))
    async with open_statements(own_bank.url, 4, role=APP_ROLE) as statements:
        listener = Listener()
        relay = Relay(statements, listener.publish)
        assert await relay.tell() == 3
        listener.heard.clear()
        yield own_bank, statements, relay, listener


def begin(bank, operation: str) -> psycopg.Connection:
    """A booking on the side, not yet committed."""
    connection = psycopg.connect(plain(bank.url))
    connection.execute(
        "WITH booked AS (INSERT INTO ledger.txn (book_id, idem_key, idem_hash, kind, actor) "
        "VALUES (1, %s, sha256('x'), 'void', 'test') RETURNING id) "
        "INSERT INTO ledger.outbox (topic, key, txn_id) SELECT 'ledger.void', 'p', id FROM booked",
        [operation],
    )
    return connection


async def test_what_is_committed_late_is_told_late_and_not_passed_over(told):
    bank, _, relay, listener = told
    first, second = begin(bank, "drawn first"), begin(bank, "drawn second")
    second.commit()
    await bank.ledger.post(bank.name, "third", [Leg(STP_SETTLEMENT, ANA, Money(1, "MXN"))])
    assert await relay.tell() == 2  # nobody waits for the one that is still open
    assert await relay.tell() == 0
    first.commit()
    assert await relay.tell() == 1
    assert listener.operations == ["drawn second", "third", "drawn first"]
    ids = [one.outbox_id for one in listener.heard]
    assert ids != sorted(ids)
    assert await relay.tell() == 0
    for connection in (first, second):
        connection.close()


async def test_a_number_that_nobody_used_is_given_up_only_when_nobody_can_use_it_any_more(told):
    bank, statements, relay, listener = told
    given_up, late = begin(bank, "given up"), begin(bank, "late")
    await bank.ledger.post(bank.name, "new", [Leg(STP_SETTLEMENT, ANA, Money(1, "MXN"))])
    given_up.rollback()

    async def remembered() -> int:
        ((ranges,),) = await statements.rows("SELECT count(*) FROM ledger.outbox_cursor c, unnest(c.sent)")
        return int(ranges)

    for _ in range(3):
        await relay.tell()
    assert await remembered() == 2
    late.commit()
    async with asyncio.timeout(30):  # whatever runs on the server counts, in other databases too
        while await remembered() > 1:
            await relay.tell()
    assert listener.operations == ["new", "late"]
    for connection in (given_up, late):
        connection.close()


async def test_what_was_not_acknowledged_is_told_again_and_the_cursor_stays(told):
    bank, _, relay, listener = told
    await bank.ledger.post(bank.name, "one", [Leg(STP_SETTLEMENT, ANA, Money(125, "MXN"))], reference="p1", reason="x")
    listener.deaf = True
    with pytest.raises(NotAcknowledged):
        await relay.tell()
    await bank.ledger.hold(bank.name, "two", ANA, Money(200, "MXN"), Money(50, "MXN"))  # a booking does not wait
    listener.deaf, listener.breaks = False, True
    with pytest.raises(NotAcknowledged):
        await relay.tell()
    listener.breaks = False
    assert await relay.tell() == 2
    assert listener.operations == ["one", "two", "one", "two"]
    assert listener.heard[0] == listener.heard[2]  # at least once, told apart by the outbox id
    assert (listener.heard[0].topic, listener.heard[0].key, listener.heard[1].key) == ("ledger.post", "p1", "two")
    posted, held = (json.loads(one.value) for one in listener.heard[:2])
    assert posted["tenant"] == bank.name
    assert posted["postings"] == [
        {
            "leg": 1,
            "debit": "stp-settlement",
            "credit": "customer-deposit:ana",
            "currency": "MXN",
            "amount": "1.25",
            "debit_sequence": 1,
            "credit_sequence": 2,
        }
    ]
    assert held["hold"] == {"account": "customer-deposit:ana", "currency": "MXN", "amount": "2.50", "fee": "0.50"}


async def test_several_relays_tell_everything_in_batches_and_each_once(told):
    bank, statements, _, listener = told
    for number in range(20):
        await bank.ledger.post(bank.name, f"t{number}", [Leg(STP_SETTLEMENT, ANA, Money(1, "MXN"))])
    relays = [Relay(statements, listener.publish, batch=3) for _ in range(3)]
    while sum(await asyncio.gather(*(relay.tell() for relay in relays))):
        pass
    assert listener.operations == [f"t{number}" for number in range(20)]


async def test_another_consumer_hears_everything_from_the_beginning(told):
    _, statements, _, listener = told
    assert await Relay(statements, listener.publish, consumer="warehouse").tell() == 3
