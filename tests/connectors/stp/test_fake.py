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
from hub.testing import party


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
    await eventually(lambda: rail.engine.late(job.payment_id))
    assert [late.return_reason for late in rail.engine.late(job.payment_id)] == ["account-closed"]


@pytest.mark.parametrize(
    ("cents", "send", "outcomes", "at_stp"),
    [
        (0, "ACCEPTED", ["SETTLED"], "LQ"),
        (4, "ACCEPTED", ["SETTLED"], "D"),
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


# --- Consults, deposits, accounts, chance ---------------------------------------------------------------------------


def signed(rail, *values):
    signer = rail.worker._profiles.of(rail.job().tenant_id).signer
    return signer.sign(f"||{'|'.join(values)}||")


async def ask(rail, path, **body):
    answer = await rail.http.post(f"{rail.simulator_url}{path}", json=body)
    return answer.status_code, answer.json()


async def test_conciliation_lists_a_date_page_by_page_and_lags_behind_on_the_current_one(rail, eventually):
    rail.simulator.consults.page_size = 2
    for _ in range(3):
        await rail.worker.send_order(rail.job())
    firma = signed(rail, "TAMIZI", "E", "20261118")
    given = {"empresa": "TAMIZI", "tipoOrden": "E", "fechaOperacion": 20261118, "firma": firma}
    pages = [await ask(rail, "/efws/API/V2/conciliacion", **given, page=page) for page in range(3)]
    assert [len(page["datos"]) for _, page in pages] == [2, 1, 0]
    assert {page["total"] for _, page in pages} == {2}, "one less than there are"
    assert await ask(rail, "/efws/API/V2/conciliacion", **given | {"firma": "AAAA"}) == (
        400, {"estado": 2, "mensaje": "Peticion invalida"},
    )  # fmt: skip
    empty = {"empresa": "TAMIZI", "tipoOrden": "R", "firma": signed(rail, "TAMIZI", "R", "")}
    status, body = await ask(rail, "/efws/API/V2/conciliacion", **empty)
    assert (status, body["estado"], body["total"]) == (400, 6, 0)


async def test_the_older_consults_end_in_null_and_say_minus_100_for_nothing(rail):
    await rail.worker.send_order(job := rail.job())
    old = "/speiws/rest/ordenPago"
    firma = signed(rail, "", "TAMIZI", *[""] * 32)
    status, body = await ask(rail, f"{old}/consOrdenesFech", empresa="TAMIZI", estado="E", firma=firma)
    assert (status, body["resultado"]["id"], body["resultado"]["lst"][-1]) == (200, 1, None)
    _, body = await ask(rail, f"{old}/consOrdenesFech", empresa="TAMIZI", estado="R", firma=firma)
    assert body["resultado"]["id"] == -100
    _, body = await ask(rail, f"{old}/consSaldoEnvRec", empresa="TAMIZI", firma=firma)
    assert body["resultado"]["saldos"][0] == {"montoTotal": "1250.00", "tipoOperacion": "E", "totalOperaciones": 1}
    by_key = signed(rail, "", "TAMIZI", "", "", rail.key(job), "90646", *[""] * 28)
    given = {"empresa": "TAMIZI", "claveRastreo": rail.key(job), "institucionOperante": 90646, "firma": by_key}
    _, body = await ask(rail, f"{old}/consOrdEnvRastreo", **given)
    assert body["resultado"]["ordenPago"]["claveRastreo"] == rail.key(job)


async def test_the_balance_follows_orders_returns_and_deposits(rail, eventually):
    simulator = rail.simulator

    def moved():
        return simulator.company.balance - simulator.company.opening_balance

    settles, cancelled = rail.job(amount=100_000), rail.job(amount=200_005)
    await rail.worker.send_order(settles)
    await rail.worker.send_order(cancelled)
    await eventually(lambda: moved() == -100_000)
    url = f"{rail.simulator_url}/control/orders/{rail.at_stp(settles)[0].id}/state"
    await rail.http.post(url, json={"estado": "D", "causa": 1, "as_deposit": True})
    await eventually(lambda: moved() == 0 and not simulator.book.open_deposits())
    simulator.deposits.arrive({"monto": "7.50", "cuentaBeneficiario": "646180157000000017", "report": False})
    assert moved() == 750
    simulator.company.balance = 10
    await rail.worker.send_order(poor := rail.job(amount=300_000))
    await eventually(lambda: rail.at_stp(poor)[0].estado == "CN")


@pytest.mark.parametrize(("answer", "estado"), [((200, "confirmar"), "CCO"), ((400, "devolver"), "D")])
async def test_incoming_money_is_posted_until_it_is_answered(rail, eventually, monkeypatch, answer, estado):
    posted = []

    async def answered(body):
        posted.append(json.loads(body, parse_float=Decimal))
        right = len(posted) > 2
        return (answer[0], json.dumps({"mensaje": answer[1], "id": 2})) if right else (200, '{"mensaje":"recibido"}')

    monkeypatch.setattr(rail.simulator.company.deposits, "post", answered)
    given = {"monto": "10.50", "cuentaBeneficiario": "646180157000000017", "claveRastreo": "058-25/08/2023/25-3"}
    url = f"{rail.simulator_url}/control/deposits"
    assert (await rail.http.post(url, json={**given, "form": "old", "omit": ["nombreOrdenante"]})).status_code == 202
    await eventually(lambda: rail.simulator.book.deposits()[0].order.estado == estado)
    assert len(posted) == 3
    assert (posted[0]["Monto"], posted[0]["ClaveRastreo"]) == (Decimal("10.50"), "058-25/08/2023/25-3")
    assert "Clave" in posted[0]
    assert "NombreOrdenante" not in posted[0]
    assert rail.simulator.book.deposits()[0].order.causa == (2 if estado == "D" else None)
    assert (await rail.http.post(url, json={"monto": "0", "cuentaBeneficiario": "1"})).status_code == 422


async def test_incoming_money_that_was_not_answered_is_posted_again_after_a_restart(rail, eventually, monkeypatch):
    async def away(_):
        return None, "refused"

    monkeypatch.setattr(rail.simulator.company.deposits, "post", away)
    object.__setattr__(rail.simulator._settings, "repeat_every", 60)
    rail.simulator.deposits.arrive({"monto": "1.00", "cuentaBeneficiario": "646180999999999992"})
    await eventually(lambda: rail.simulator.book.deposits()[0].attempts == 1)
    await rail.simulator.close()
    async with Simulator.open(rail.simulator._settings) as again:
        await eventually(lambda: again.book.deposits()[0].order.estado == "D", 20)  # nobody has that account
        assert again.book.deposits()[0].attempts >= 2
    rail.simulator.book = again.book


async def test_accounts_are_registered_once_and_removed(rail):
    url = f"{rail.simulator_url}/speiws/rest/cuentaModule"
    person = {
        "empresa": "TAMIZI", "cuenta": "646180110400000010", "rfcCurp": "ND", "nombre": "ANA", "apellidoPaterno": "X",
        "paisNacimiento": 187, "fechaNacimiento": 19800101,
    }  # fmt: skip
    person["firma"] = signed(rail, "TAMIZI", "646180110400000010", "ND")
    answers = [(await rail.http.put(f"{url}/fisica", json=person)).json() for _ in range(2)]
    assert [answer["id"] for answer in answers] == [0, 3]
    batch = {"cuentasFisicas": [person] * 2 + [{**person, "firma": "AAAA"}]}
    answered = (await rail.http.put(f"{url}/fisicas", json=batch)).json()
    assert [answer["id"] for answer in answered] == [3, 3, 1]
    assert (await rail.http.put(f"{url}/fisicas", json={"cuentasFisicas": [person] * 101})).json()["id"] == 2
    assert "646180110400000010" in rail.simulator.company.accounts
    removed = [(await rail.http.request("DELETE", f"{url}/fisica", json=person)).json()["id"] for _ in range(2)]
    assert removed == [0, 1]
    assert (await rail.http.put(f"{url}/fisica", json=person)).json()["id"] == 0


async def test_each_company_has_its_own_key_money_and_callbacks(rail, key_files, tmp_path):
    file = tmp_path / "companies.json"
    other = {
        "empresa": "BLUE", "public_key_file": str(key_files[1]), "accounts": ["646180157000000004"],
        "callback_url": rail.callback_url, "callback_secret": "x" * 16, "dialect": "A", "opening_balance": 5,
    }  # fmt: skip
    file.write_text(json.dumps([other]))
    settings = rail.simulator._settings.model_copy(
        update={"companies_file": file, "book_file": tmp_path / "two.sqlite"}
    )
    async with Simulator.open(settings) as simulator:
        assert {name: company.balance for name, company in simulator.companies.items()} == {"TAMIZI": 10**15, "BLUE": 5}
        assert simulator.companies["BLUE"].accounts == {"646180157000000004"}


async def test_the_rollover_can_be_told_not_to_take_a_key_again_and_stp_not_to_pay_itself(rail):
    object.__setattr__(rail.simulator._settings, "key_again", False)
    object.__setattr__(rail.simulator._settings, "stp_to_stp", False)
    rail.set_clocks(datetime(2026, 11, 18, 17, 0, tzinfo=MEXICO_CITY))
    fields = await order(rail)
    assert (await put(rail, fields))[0] > 999
    rail.set_clocks(datetime(2026, 11, 18, 18, 0, tzinfo=MEXICO_CITY))
    assert (await put(rail, fields))[0] == -1
    own = await order(rail, payee=party(identifier="646180157000000017"))
    assert (await put(rail, own))[0] == -31


async def test_an_hour_has_so_many_consults(rail):
    rail.simulator.consults._per_hour = 3
    given = {"empresa": "TAMIZI", "tipoOrden": "R", "firma": signed(rail, "TAMIZI", "R", "")}
    asked = [(await ask(rail, "/efws/API/V2/conciliacion", **given))[1]["estado"] for _ in range(5)]
    assert asked == [6, 6, 6, 3, 3]
    rail.simulator.clock_offset += 3601
    assert (await ask(rail, "/efws/API/V2/conciliacion", **given))[1]["estado"] == 6


async def test_the_same_seed_goes_wrong_alike_and_an_unknown_fault_is_refused(rail):
    url = f"{rail.simulator_url}/control/faults"
    given = {"seed": 7, "orders": {"refuse": 0.3, "lose-answer": 0.3}, "callbacks": {"lost": 0.5}}
    drawn = []
    for _ in range(2):
        assert (await rail.http.post(url, json=given)).status_code == 200
        faults = rail.simulator.faults
        drawn.append([(faults.order(), faults.callback(), faults.consult()) for _ in range(30)])
    assert drawn[0] == drawn[1]
    assert {order is None for order, _, _ in drawn[0]} == {True, False}
    assert (await rail.http.post(url, json={"orders": {"nonsense": 0.1}})).status_code == 422
    assert (await rail.http.post(url, json={"callbacks": {"nonsense": 0.1}})).status_code == 422
