"""Payments that cross the whole hub: channel, engine, workers, ledger, the pretend STP over HTTP, and back."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from hub.operator import OutcomeDecided
from hub.settings import EngineSettings
from hub.statements import open_statements
from hub.transfer import Outcome, PaymentId
from hub.trial import BBVA, TrialHub, transfer
from hub.zeebe.client import open_engine
from ledger.model import AccountRef
from ledger.queries import LedgerQueries
from ledger.verify import verify

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


def over_stp(amount: str, note: str = "Renta") -> dict[str, object]:
    return transfer(amount, payee=BBVA, payee_type="CLABE", note=note)


@pytest.fixture(autouse=True)
async def _the_book_is_sound_after_each_payment(hub: TrialHub):
    yield
    report = await verify(hub.environment["PAYHUB_LEDGER_DATABASE_URL"])
    assert report.sound, str(report)


async def orders_of(hub: TrialHub, note: str) -> list[dict[str, object]]:
    return [order for order in await hub.simulated_orders() if order["conceptoPago"] == note]


def a_note() -> str:
    return f"n{uuid.uuid4().hex[:12]}"


async def test_a_payment_between_two_of_our_accounts_settles(hub: TrialHub):  # H1
    payment = await hub.pay(transfer("10.00"))
    ended = await hub.until(payment, "COMMITTED")
    assert ended["outcome"] == "SETTLED"


async def test_a_payment_over_stp_settles(hub: TrialHub):  # H1
    note = a_note()
    payment = await hub.pay(over_stp("11.00", note))
    await hub.until(payment, "COMMITTED")
    assert [order["monto"] for order in await orders_of(hub, note)] == ["11.00"]


async def test_an_order_that_stp_refuses_releases_the_hold(hub: TrialHub):  # L44
    note = a_note()
    await hub.simulate({"conceptoPago": note}, "refuse")
    payment = await hub.pay(over_stp("12.00", note))
    ended = await hub.until(payment, "ABORTED")
    assert (ended["outcome"], ended["reason"]) == ("REJECTED", "scheme-rejected")


async def test_money_that_comes_back_after_sending_is_released(hub: TrialHub):  # L37
    note = a_note()
    await hub.simulate({"conceptoPago": note}, "return")
    payment = await hub.pay(over_stp("13.00", note))
    ended = await hub.until(payment, "RETURNED")
    assert ended["outcome"] == "RETURNED"


async def test_a_cancelled_order_is_released(hub: TrialHub):  # L36
    note = a_note()
    await hub.simulate({"conceptoPago": note}, "cancel")
    payment = await hub.pay(over_stp("14.00", note))
    ended = await hub.until(payment, "ABORTED")
    assert ended["outcome"] == "CANCELLED"


async def test_a_lost_answer_is_found_by_inquiry_and_there_is_one_order(hub: TrialHub):  # H3
    note = a_note()
    await hub.simulate({"conceptoPago": note}, "lose-answer")
    payment = await hub.pay(over_stp("15.00", note))
    await hub.until(payment, "COMMITTED")
    assert len(await orders_of(hub, note)) == 1


async def test_a_silent_order_waits_for_an_operator_and_keeps_its_hold(hub: TrialHub):  # H3
    note = a_note()
    await hub.simulate({"conceptoPago": note}, "silent")
    payment = await hub.pay(over_stp("16.00", note))
    waiting = await hub.until(payment, "UNKNOWN", within=40)
    assert (waiting["outcome"], waiting["reason"]) == ("UNKNOWN", "no-answer")
    async with open_engine(EngineSettings(address=hub.environment["PAYHUB_ZEEBE_ADDRESS"])) as engine:
        await engine.publish(
            OutcomeDecided(
                payment_id=PaymentId(payment), outcome=Outcome.CANCELLED, reason_detail="STP confirmed by phone"
            )
        )
    ended = await hub.until(payment, "ABORTED")
    assert (ended["outcome"], ended["reason"]) == ("CANCELLED", "operator")


@pytest.mark.parametrize("repeats", ["repeat", "callback-first", "delay"])
async def test_a_callback_repeated_early_or_late_settles_once(hub: TrialHub, repeats: str):  # L41 H4
    note = a_note()
    await hub.simulate({"conceptoPago": note}, repeats)
    payment = await hub.pay(over_stp("17.00", note))
    await hub.until(payment, "COMMITTED")
    assert len(await orders_of(hub, note)) == 1


async def test_a_payment_without_funds_is_refused_with_the_reason(hub: TrialHub):
    payment = await hub.pay(transfer("500.00", payer="525511110003"))
    ended = await hub.until(payment, "ABORTED")
    assert (ended["outcome"], ended["reason"], ended["iso20022Reason"]) == ("REJECTED", "insufficient-funds", "AM04")


async def test_a_payment_to_a_closed_account_is_refused(hub: TrialHub):
    payment = await hub.pay(transfer("5.00", payee="525511110004"))
    ended = await hub.until(payment, "ABORTED")
    assert ended["reason"] == "account-closed"


async def test_the_same_request_many_times_at_once_is_one_payment(hub: TrialHub):
    key, body = uuid.uuid4().hex, transfer("18.00")
    answers = await asyncio.gather(*(hub.pay(body, key) for _ in range(20)))
    assert len(set(answers)) == 1
    await hub.until(answers[0], "COMMITTED")


async def test_another_tenants_payment_does_not_exist(hub: TrialHub):  # H16
    payment = await hub.pay(transfer("1.00"))
    answer = await hub.http.get(f"{hub.urls['channel']}/channel/transfer/{payment}", headers=hub.headers("norte"))
    assert answer.status_code == 404


async def test_no_log_of_any_process_holds_a_name_an_account_or_a_secret(hub: TrialHub):
    await hub.until(await hub.pay(over_stp("19.00", a_note())), "COMMITTED")
    secret = hub.environment["PAYHUB_STP_CALLBACK_SECRET"]
    for log in hub.folder.glob("*.log"):
        text = log.read_text()
        for canary in (BBVA, "Luis Vega", "Ana Torres", "525511110001", "646180157000000017", secret, "eyJ"):
            assert canary not in text, log.name


async def booked(hub: TrialHub, account: str) -> int:
    """What the ledger says an account of acme's holds, in centavos."""
    async with open_statements(hub.environment["PAYHUB_LEDGER_DATABASE_URL"]) as statements:
        found = await LedgerQueries(statements).balance("acme", AccountRef.customer(account), "MXN")
        return found.booked.minor


async def test_a_settled_payment_that_comes_back_is_given_to_the_payer_once(hub: TrialHub):  # L38 L41
    note, before = a_note(), await booked(hub, "acme-ana")
    payment = await hub.pay(over_stp("19.00", note))
    await hub.until(payment, "COMMITTED")
    assert await booked(hub, "acme-ana") < before
    [order] = await orders_of(hub, note)
    state = f"{hub.urls['stp_simulator']}/control/orders/{order['id']}/state"
    for _ in range(2):  # STP tells it by status and once more as incoming money, and then all of it again
        (await hub.http.post(state, json={"estado": "D", "causa": 3, "as_deposit": True})).raise_for_status()
    ended = await hub.until(payment, "RETURNED")
    # The incoming money does not say why, and may be the first to tell.
    assert ended["outcome"] == "RETURNED"
    assert ended["reason"] in {"account-closed", "scheme-returned"}
    assert await booked(hub, "acme-ana") == before, "amount and fee are back"


async def test_a_deposit_is_credited_once_and_one_for_nobody_goes_back(hub: TrialHub):  # H2 L41
    before, key = await booked(hub, "acme-bruno"), a_note()
    url = f"{hub.urls['stp_simulator']}/control/deposits"
    arrives = {"claveRastreo": key, "monto": "20.00", "cuentaBeneficiario": "646180157000000020", "times": 5}
    (await hub.http.post(url, json=arrives)).raise_for_status()
    nobody = {"claveRastreo": f"{key}-1", "monto": "20.00", "cuentaBeneficiario": "646180157000099994"}
    (await hub.http.post(url, json=nobody)).raise_for_status()

    async def ended() -> dict[str, Any]:
        found = (await hub.http.get(url)).json()["deposits"]
        return {each["claveRastreo"]: each for each in found if str(each["claveRastreo"]).startswith(key)}

    async with asyncio.timeout(40):
        while [each["estado"] for each in (await ended()).values()] != ["CCO", "D"]:
            await asyncio.sleep(0.2)
        while (await ended())[key]["posts"] < 5 or await booked(hub, "acme-bruno") == before:
            await asyncio.sleep(0.2)
    assert await booked(hub, "acme-bruno") == before + 2000
