"""Everything STP can say of an order, in every order and multiplicity: the same state, and the payer pays the same."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.stp.calendar import operation_date
from connectors.stp.model import OrderState, SendOutcome
from connectors.stp.orders import NewOrder
from connectors.stp.tracking import TrackingKey, tracking_key
from connectors.stp.wire import Answer
from hub.transfer import PaymentId, TenantId

AMOUNT = 125_000
LQ, D, CN, IN, ZZ, L = "LQ", "D", "CN", "came in again", "ZZ", "L"
_ids = itertools.count(800_000_001)


@dataclass
class Told:
    """An order, and what its processes make of what they are told."""

    payment_id: PaymentId
    key: TrackingKey
    stp_id: int

    def says(self, word: str, place: int) -> tuple[str, bytes]:
        """The place-th thing that STP posts, in one of its dialects: the path and the body."""
        if word == IN:
            body = {"id": 900_000_000 + self.stp_id, "fechaOperacion": 20261118, "institucionOrdenante": 40072,
                    "claveRastreo": self.key, "monto": AMOUNT / 100, "tipoPago": 0}  # fmt: skip
            return "deposits", json.dumps(body).encode()
        dialects = (
            {"id": self.stp_id, "empresa": "TAMIZI", "claveRastreo": self.key, "estado": word, "causaDevolucion": 3},
            {"id": str(self.stp_id), "empresa": "TAMIZI", "folioOrigen": self.key, "estado": word.lower()},
            {"id": self.stp_id, "Estado": word, "Detalle": "x"},
        )
        return "order-status", json.dumps(dialects[place % 3] | {"tsLiquidacion": 1763481600000 + place}).encode()


async def sent(rail) -> Told:
    """An order that STP has accepted."""
    payment_id = PaymentId(str(uuid.uuid4()))
    told = Told(payment_id, tracking_key(payment_id), next(_ids))
    moment = rail.clock()
    new = NewOrder(payment_id, TenantId("greenbank"), "TAMIZI", told.key, AMOUNT, "072691004495711499", "{}", "")
    order = await rail.orders.claim(new, operation_date(moment), moment)
    await rail.orders.record(order, Answer(SendOutcome.ACCEPTED, stp_id=told.stp_id), moment)
    return told


async def hears(rail, path: str, body: bytes) -> None:
    if path == "deposits":
        await rail.deposits.receive(body, 60)
    else:
        await rail.callbacks.receive(body, 60)


def paid(rail, order: Told) -> int | None:
    """What the payer has paid when every process has ended; nothing while the transfer still waits."""
    told, late = rail.engine.told(order.payment_id), rail.engine.late(order.payment_id)
    assert len(told) <= 1, "the payer's transfer takes one word, and would never hear a second"
    assert len(late) <= 1
    if not told:
        assert not late
        return None
    captured = AMOUNT if told[0].outcome == "SETTLED" else 0
    assert not late or captured, "only what was captured can be given back"
    return captured - AMOUNT * len(late)


async def ends(rail, order: Told, words: Sequence[str]) -> tuple[OrderState, int | None, bool]:
    """The order's state, what the payer paid, and whether an operator must look for a contradiction."""
    found = await rail.orders.find(order.payment_id)
    rows = await rail.rows(
        "SELECT contradicted_at IS NOT NULL FROM stp.stp_order WHERE payment_id = :p", p=order.payment_id
    )
    return found.state, paid(rail, order), rows[0][0]


def must_end(words: Sequence[str]) -> tuple[OrderState, int | None, bool]:
    """By rank, not by arrival. Of a contradiction the first word stands, and an operator must look."""
    final = [word for word in words if word in {LQ, D, CN, IN}]
    if not final:
        return OrderState.PENDING, None, False
    if CN in final:
        contradiction = any(word != CN for word in final)
        if final[0] == CN:
            return OrderState.CANCELLED, 0, contradiction
        final = [word for word in final if word != CN]
    else:
        contradiction = False
    if D in final or IN in final:
        return OrderState.RETURNED, 0, contradiction
    return OrderState.SETTLED, AMOUNT, contradiction


async def test_every_sequence_of_three_ends_the_same_whatever_the_order(rail):  # L32 L35 L36 L37 L38 L41
    everything = (LQ, D, CN, IN, ZZ)
    sequences = [s for length in (1, 2, 3) for s in itertools.product(everything, repeat=length)]
    room = asyncio.Semaphore(6)

    async def one(words: Sequence[str]) -> None:
        async with room:
            order = await sent(rail)
            for place, word in enumerate(words):
                await hears(rail, *order.says(word, place))
            assert await ends(rail, order, words) == must_end(words), words

    await asyncio.gather(*(one(words) for words in sequences))


@pytest.mark.parametrize("words", [(LQ, LQ, D, IN, L, ZZ), (LQ, D, D, IN), (CN, CN, ZZ, L)])
async def test_all_permutations_of_what_agrees_end_the_same(rail, words):  # L38 L41
    orders = list(dict.fromkeys(itertools.permutations(words)))[::17]
    for permuted in orders:
        order = await sent(rail)
        for place, word in enumerate(permuted):
            path, body = order.says(word, place)
            await hears(rail, path, body)
            await hears(rail, path, body)
        assert await ends(rail, order, permuted) == must_end(words), permuted


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from([LQ, D, IN, ZZ, L]), min_size=2, max_size=8))
async def test_whatever_arrives_at_once_ends_the_same(rail, words):  # L38 L41
    order = await sent(rail)
    await asyncio.gather(*(hears(rail, *order.says(word, place)) for place, word in enumerate(words)))
    assert await ends(rail, order, words) == must_end(words)


async def test_contradictions_that_arrive_at_once_are_always_seen(rail):
    for _ in range(5):
        order = await sent(rail)
        words = (LQ, CN, D)
        await asyncio.gather(*(hears(rail, *order.says(word, place)) for place, word in enumerate(words)))
        state, _, contradicted = await ends(rail, order, words)
        assert contradicted
        assert state in {OrderState.CANCELLED, OrderState.RETURNED}


async def test_a_return_ninety_days_after_settlement_is_a_late_one(rail):  # L22 L38
    order = await sent(rail)
    await hears(rail, *order.says(LQ, 0))
    await rail.callbacks.mark()
    rail.clock.advance(timedelta(days=90))
    rail.engine.forget()
    await hears(rail, *order.says(D, 0))
    assert await ends(rail, order, (LQ, D)) == (OrderState.RETURNED, 0, False)
    await rail.callbacks.mark()
    rail.clock.advance(timedelta(days=1))
    await rail.callbacks.sweep()
    assert len(rail.engine.late(order.payment_id)) == 1


async def test_what_is_noted_as_told_is_the_later_of_two_states(rail):  # L38
    """Both were told before either was noted; nothing is left for the sweep to tell again."""
    order = await sent(rail)
    for place, word in enumerate((LQ, D)):
        await hears(rail, *order.says(word, place))
    await rail.callbacks.mark()
    rows = await rail.rows("SELECT told = observation FROM stp.stp_order WHERE payment_id = :p", p=order.payment_id)
    assert rows[0][0] is True


async def test_a_settlement_that_nobody_was_told_before_the_return_is_told_first(rail):  # H4 L38
    """The process died between the commit and telling the engine, and the return came before the sweep."""
    order = await sent(rail)
    rail.engine.away = True
    for place, word in enumerate((LQ, D)):
        await hears(rail, *order.says(word, place))
    rail.engine.away = False
    rail.clock.advance(timedelta(seconds=10))
    await rail.callbacks.sweep()
    assert await ends(rail, order, (LQ, D)) == (OrderState.RETURNED, 0, False)


async def test_an_inquiry_for_the_payers_transfer_never_shows_the_late_return(rail):  # L38
    """The transfer still asks, although the order was settled and returned meanwhile: for it, it settled."""
    job = rail.job()
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    order = Told(job.payment_id, rail.key(job), rail.at_stp(job)[0].id)
    for place, word in enumerate((LQ, D)):
        await hears(rail, *order.says(word, 3 * place))
    asked = await rail.worker.inquire_order(rail.ask(job))
    assert asked.outcome == "SETTLED"
    assert len(rail.engine.late(job.payment_id)) == 1
