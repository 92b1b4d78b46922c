"""The pretend STP: it checks like the real one, keeps its book through a restart, and hurts whoever is careless."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from connectors.stp.calendar import MEXICO_CITY
from connectors.stp.fake import Simulator
from connectors.stp.fake_scenarios import BY_CENTS, PRESETS, Rule
from connectors.stp.model import SendOutcome
from connectors.stp.wire import Orden


async def order(rail, **changes):
    """The fields of a good order."""
    profile = rail.worker._profiles.of(rail.job().tenant_id)
    new = await rail.worker._new_order(rail.job(**changes), profile)
    fields = json.loads(new.body, parse_float=Decimal)
    fields.pop("firma")
    return fields


async def put(rail, fields, firma=None):
    """Sign whatever it is and send it: the number and the text of the answer."""
    signer = rail.worker._profiles.of(rail.job().tenant_id).signer
    names = list(Orden.model_fields)
    printed = [_printed(name, fields.get(name)) for name in names]
    signature = firma or signer.sign(f"||{'|'.join(printed)}||")
    body = json.dumps({**fields, "firma": signature}, default=str)
    answer = await rail.http.put(f"{rail.simulator_url}/speiws/rest/ordenPago/registra", content=body)
    assert answer.status_code == 200
    result = answer.json()["resultado"]
    return result["id"], result.get("descripcionError")


def _printed(name, value):
    if value is None:
        return ""
    return f"{Decimal(value):.2f}" if name in {"monto", "iva"} else str(value)


CHECKS = [
    ({"empresa": "NADIE"}, 0),
    ({"conceptoPago": " "}, 0),
    ({"nombreBeneficiario": None}, 0),
    ({"cuentaOrdenante": None}, -200),
    ({"cuentaOrdenante": "646180157000000004"}, -7),
    ({"institucionContraparte": 12345}, -9),
    ({"tipoCuentaBeneficiario": 5}, -11),
    ({"cuentaBeneficiario": "07269100449571149"}, -23),
    ({"cuentaBeneficiario": "072691004495711498"}, -21),
    ({"institucionContraparte": 40002}, -22),
    ({"cuentaBeneficiario": "646180110400000007", "institucionContraparte": 90646}, -24),
    ({"monto": "0.00"}, -20),
    ({"claveRastreo": "A-1"}, -34),
    ({"claveRastreo": "A" * 31}, -26),
    ({"tipoPago": 99}, -13),
    ({"medioEntrega": 77}, -10),
    ({"fechaOperacion": 20201118}, -16),
]


@pytest.mark.parametrize(("changes", "number"), CHECKS)
async def test_each_check_answers_with_stps_own_number(rail, changes, number):
    fields = await order(rail) | changes
    found, text = await put(rail, {name: value for name, value in fields.items() if value is not None})
    assert found == number
    assert text


async def test_a_signature_over_anything_else_is_refused(rail):
    fields = await order(rail)
    number, text = await put(rail, fields, firma="AAAA")
    assert (number, text) == (0, "Error validando la firma")
    assert (await put(rail, fields))[0] > 999


async def test_a_dropped_zero_breaks_the_signature(rail):
    """Clients that write `value or ''` sign prioridad 0 as nothing."""
    fields = await order(rail)
    signer = rail.worker._profiles.of(rail.job().tenant_id).signer
    careless = "|".join("" if not fields.get(n) else _printed(n, fields.get(n)) for n in Orden.model_fields)
    assert (await put(rail, fields, firma=signer.sign(f"||{careless}||")))[0] == 0


async def test_a_key_is_taken_for_its_date_and_free_on_the_next(rail):
    rail.set_clocks(datetime(2026, 11, 18, 17, 0, tzinfo=MEXICO_CITY))
    fields = await order(rail)
    assert (await put(rail, fields))[0] > 999
    number, text = await put(rail, fields)
    assert number == -1
    assert fields["claveRastreo"] in text
    rail.set_clocks(datetime(2026, 11, 18, 18, 0, tzinfo=MEXICO_CITY))
    assert (await put(rail, fields))[0] > 999


async def test_the_book_survives_a_restart_and_posts_what_was_not_answered(rail, eventually):
    job = rail.job()
    await rail.rule(job, {"steps": [{"estado": "LQ", "after": 0.3}]})
    await rail.worker.send_order(job)
    await rail.simulator.close()
    async with Simulator.open(rail.simulator._settings) as again:
        assert [order.clave for order in again.book.orders()] == [rail.key(job)]
        await eventually(lambda: rail.engine.told(job.payment_id))
        assert again.book.orders()[0].estado == "LQ"
    rail.simulator.book = again.book


async def test_callbacks_are_repeated_until_they_are_answered_rightly(rail, eventually, monkeypatch):
    job = rail.job()
    posted = []
    post = rail.simulator.company.status.post

    async def refused_at_first(body):
        posted.append(body)
        return (500, "no") if len(posted) < 4 else await post(body)

    monkeypatch.setattr(rail.simulator.company.status, "post", refused_at_first)
    await rail.worker.send_order(job)
    await eventually(lambda: rail.engine.told(job.payment_id))
    await eventually(lambda: len(rail.simulator.book.callbacks()) == 4)
    assert [row["status"] for row in rail.simulator.book.callbacks()] == [500, 500, 500, 200]
    assert len(set(posted)) == 1


async def test_a_careless_receiver_gets_the_same_callback_twenty_times(rail, eventually, monkeypatch):
    job = rail.job()

    async def answered_wrongly(_):
        return 200, "ok"

    monkeypatch.setattr(rail.simulator.company.status, "post", answered_wrongly)
    object.__setattr__(rail.simulator._settings, "repeat_every", 0.001)
    await rail.worker.send_order(job)
    await eventually(lambda: len(rail.simulator.book.callbacks()) == 20)
    await asyncio.sleep(0.2)
    assert len(rail.simulator.book.callbacks()) == 20


async def test_an_inquiry_must_be_signed_and_names_no_future_date(rail):
    job = rail.job()
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    asked = {"empresa": "TAMIZI", "claveRastreo": rail.key(job), "tipoOrden": "E", "firma": "AAAA"}
    url = f"{rail.simulator_url}/efws/API/consultaOrden"
    answer = await rail.http.post(url, json=asked)
    assert (answer.status_code, answer.json()["estado"]) == (400, 2)
    signer = rail.worker._profiles.of(job.tenant_id).signer
    future = {**asked, "fechaOperacion": 20991231, "firma": signer.sign(f"||TAMIZI|{rail.key(job)}|E|20991231||")}
    assert (await rail.http.post(url, json=future)).json()["estado"] == 8
    good = {**asked, "firma": signer.sign(f"||TAMIZI|{rail.key(job)}|E|||")}
    shown = await rail.http.post(url, json=good)
    assert '"monto": 1250.00' in shown.text
    assert shown.json()["respuesta"]["estado"] == "L"


async def test_the_control_api_lists_the_book_for_comparison_with_a_ledger(rail):
    job = rail.job()
    await rail.worker.send_order(job)
    listed = (await rail.http.get(f"{rail.simulator_url}/control/orders")).json()["orders"]
    assert [(one["claveRastreo"], one["monto"], one["centavos"]) for one in listed] == [
        (rail.key(job), "1250.00", 125_000)
    ]


async def test_a_state_can_be_forced_even_long_after(rail, eventually):  # L22
    job = rail.job()
    await rail.worker.send_order(job)
    await eventually(lambda: rail.engine.told(job.payment_id))
    rail.advance(timedelta(days=90))
    url = f"{rail.simulator_url}/control/orders/{rail.at_stp(job)[0].id}/state"
    assert (await rail.http.post(url, json={"estado": "D", "causa": 3})).status_code == 200
    await eventually(lambda: len(rail.engine.told(job.payment_id)) == 2)
    assert rail.engine.told(job.payment_id)[1].reason == "account-closed"


@pytest.mark.parametrize(
    ("cents", "send", "outcomes", "at_stp"),
    [
        (0, "ACCEPTED", ["SETTLED"], "LQ"),
        (4, "ACCEPTED", ["SETTLED", "RETURNED"], "D"),
        (5, "ACCEPTED", ["CANCELLED"], "CN"),
        (9, "ACCEPTED", ["SETTLED"], "LQ"),
        (11, "ACCEPTED", ["RETURNED"], "D"),
        (19, "ACCEPTED", ["SETTLED"], "LQ"),
        (20, "ACCEPTED", ["SETTLED"], "LQ"),
        (21, "ACCEPTED", ["SETTLED"], "LQ"),
        (23, "ACCEPTED", ["SETTLED"], "CN"),
        (24, "ACCEPTED", ["RETURNED"], "D"),
        (25, "ACCEPTED", ["SETTLED"], "LQ"),
        (26, "ACCEPTED", ["SETTLED"], "LQ"),
        (50, "ACCEPTED", ["SETTLED"], "LQ"),
    ],
)
async def test_the_cents_choose_what_happens(rail, eventually, cents, send, outcomes, at_stp):
    job = rail.job(amount=10_000 + cents)
    assert (await rail.worker.send_order(job)).order_state == send
    await eventually(lambda: len(rail.engine.told(job.payment_id)) == len(outcomes))
    await eventually(lambda: rail.at_stp(job)[0].estado == at_stp)
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == outcomes


async def test_cents_22_report_the_return_before_the_settlement(rail, eventually):
    job = rail.job(amount=10_022)
    await rail.worker.send_order(job)
    await eventually(lambda: len(rail.simulator.book.callbacks()) == 2)
    assert rail.at_stp(job)[0].estado == "D"
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["RETURNED"]


@pytest.mark.parametrize("cents", [6, 10, 12, 16, 17, 28])
async def test_cents_that_lose_the_answer_leave_one_order_that_is_found(rail, eventually, cents):
    job = rail.job(amount=10_000 + cents)
    await rail.worker.send_order(job)
    rail.advance(timedelta(seconds=6))
    for round_ in range(3):
        if (await rail.worker.inquire_order(rail.ask(job, round_))).outcome == "SETTLED":
            break
    else:
        pytest.fail("three inquiries did not find it")
    assert len(rail.at_stp(job)) == 1


async def test_every_scenario_of_the_tables_is_well_formed():
    assert set(PRESETS) >= {"refuse", "cancel", "return", "silent", "lose-answer", "repeat", "reorder", "delay"}
    assert all(0 < cents < 100 for cents in BY_CENTS)
    with pytest.raises(KeyError):
        Rule(do="no-such-thing").scenario()


async def test_a_rule_that_is_not_understood_is_refused(rail):
    for bad in ({"do": "no-such-thing"}, {"do": {"nonsense": 1}}, {"match": 5, "do": "cancel"}):
        assert (await rail.http.post(f"{rail.simulator_url}/control/rules", json=bad)).status_code == 422
    assert (await rail.http.get(f"{rail.simulator_url}/nothing")).status_code == 404


async def test_a_rule_may_apply_a_number_of_times(rail):
    jobs = [rail.job(concept="UNA VEZ") for _ in range(2)]
    rule = {"match": {"conceptoPago": "UNA VEZ"}, "do": {"refuse": -20, "registers": False}, "uses": 1}
    await rail.http.post(f"{rail.simulator_url}/control/rules", json=rule)
    answers = [await rail.stp.register(await _body(rail, job)) for job in jobs]
    assert [answer.outcome for answer in answers] == [SendOutcome.REJECTED, SendOutcome.ACCEPTED]


async def _body(rail, job):
    return (await rail.worker._new_order(job, rail.worker._profiles.of(job.tenant_id))).body


async def test_a_stp_that_is_down_answers_like_a_gateway(rail):
    await rail.http.post(f"{rail.simulator_url}/control/mode", json={"down": True})
    assert (await rail.stp.register(await _body(rail, rail.job()))).outcome is SendOutcome.UNKNOWN


async def test_the_clock_can_be_set_and_advanced(rail):
    url = f"{rail.simulator_url}/control/clock"
    answer = await rail.http.post(url, json={"now": "2026-11-20T17:59:00-06:00"})
    assert answer.json()["fechaOperacion"] == 20261120
    answer = await rail.http.post(url, json={"advance_seconds": 120})
    assert answer.json()["fechaOperacion"] == 20261123
    assert time.time() != answer.json()["now"]
