"""Sending and asking, against the pretend STP over real HTTP and a real PostgreSQL.

After each test here the same holds: at most one order at STP under a payment's tracking key.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import datetime, timedelta

import pytest

from connectors.stp import accounts
from connectors.stp.calendar import MEXICO_CITY
from connectors.stp.client import StpHttp
from connectors.stp.dispatch import Rules
from connectors.stp.model import (
    AccountUnknown,
    ComplianceRefused,
    OrderRejected,
    OrderState,
    Sending,
    SendOrder,
    SendOutcome,
    StpConfigurationError,
    TrackingKeyCollision,
)
from connectors.stp.signature import Signer
from connectors.stp.transport import Line
from connectors.stp.wire import Cause, FoundOrder, classify
from hub.errors import Unavailable
from hub.statements import open_statements
from hub.transfer import IdentifierType, Party, PaymentId, TenantId


async def claimed_by_somebody_who_died(rail, job):
    """The row as a worker leaves it that was killed right after the claim."""
    fresh = await rail.worker._find_or_claim(job)
    assert fresh[1]
    return fresh[0]


# --- Accepted and refused -------------------------------------------------------------------------------------------


async def test_an_accepted_order_is_sent_once_and_settles(rail, eventually):
    job = rail.job()
    sent = await rail.worker.send_order(job)
    assert (sent.order_state, sent.inquire_after, sent.inquire_again_after, sent.inquiries) == (
        "ACCEPTED", "PT30S", "PT3600S", 0,
    )  # fmt: skip
    await eventually(lambda: rail.engine.told(job.payment_id))
    assert [message.outcome for message in rail.engine.told(job.payment_id)] == ["SETTLED"]
    [order] = rail.at_stp(job)
    stored = await rail.order(job)
    assert (order.centavos, order.fields["cuentaBeneficiario"]) == (job.amount, job.payee.identifier)
    assert (stored.stp_id, stored.state, stored.sending) == (order.id, OrderState.SETTLED, Sending.ACCEPTED)


async def test_the_exact_body_is_committed_before_it_is_sent(rail):  # R1 of the claim-send-record rule
    seen: list[tuple[Sending, bool]] = []

    class Watching(StpHttp):
        async def register(self, body):
            stored = await rail.order(job)
            seen.append((stored.sending, stored.body == body))
            return await super().register(body)

    rail.dispatch._stp.__class__ = Watching
    job = rail.job()
    await rail.worker.send_order(job)
    assert seen == [(Sending.CLAIMED, True)]
    rows = await rail.rows(
        "SELECT joined_sha256, sends, operation_date FROM stp.stp_order WHERE payment_id = :p", p=job.payment_id
    )
    assert len(rows[0].joined_sha256) == 64
    assert (rows[0].sends, str(rows[0].operation_date)) == (1, "2026-11-18")


@pytest.mark.parametrize(
    ("refuse", "kind"),
    [(-20, OrderRejected), (-22, AccountUnknown), (-200, ComplianceRefused), (3, OrderRejected)],
)
async def test_a_refused_order_is_refused_for_good_and_kept_with_number_and_text(rail, refuse, kind):  # L44
    job = rail.job()
    await rail.rule(job, {"refuse": refuse, "text": "no por esto", "registers": False})
    for _ in range(2):
        with pytest.raises(kind, match=f"STP {refuse}:"):
            await rail.worker.send_order(job)
    assert rail.sends(job) == 1
    rows = await rail.rows("SELECT error_id, error_text FROM stp.stp_order WHERE payment_id = :p", p=job.payment_id)
    assert tuple(rows[0]) == (refuse, "no por esto")
    inquired = await rail.worker.inquire_order(rail.ask(job))
    assert inquired.outcome == "REJECTED"


@pytest.mark.parametrize(
    ("changes", "kind", "why"),
    [
        ({"currency": "USD"}, OrderRejected, "MXN"),
        ({"amount": 0}, OrderRejected, "positive"),
        ({"reference_number": 10_000_000}, OrderRejected, "9999999"),
        ({"payee": Party(id_type=IdentifierType.CLABE, identifier="072691004495711498")}, AccountUnknown, "digit"),
        ({"payee": Party(id_type=IdentifierType.CLABE, identifier="646180110400000007")}, OrderRejected, "same"),
    ],
)
async def test_what_stp_would_certainly_refuse_is_not_even_sent(rail, changes, kind, why):
    job = rail.job(**changes)
    with pytest.raises(kind, match=why):
        await rail.worker.send_order(job)
    assert rail.sends(job) == 0
    assert await rail.orders.find(job.payment_id) is None


@pytest.mark.parametrize(
    ("id_type", "identifier", "kind", "account", "institution"),
    [
        ("CLABE", "072691004495711499", 40, "072691004495711499", 40072),
        ("CARD", "4242424242424242", 3, "4242424242424242", 40002),
        ("CARD", "378282246310005", 3, "378282246310005", 40014),
        ("MSISDN", "+525512345678", 10, "5512345678", 40012),
    ],
)
async def test_every_kind_of_account_is_paid(rail, id_type, identifier, kind, account, institution):
    rail.worker._institutions = accounts.Institutions(by_card={"42": 40002, "37": 40014}, mobile=40012)
    job = rail.job(payee=Party(id_type=IdentifierType(id_type), identifier=identifier, name="Ana"))
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    [order] = rail.at_stp(job)
    sent = (order.fields[name] for name in ("tipoCuentaBeneficiario", "cuentaBeneficiario", "institucionContraparte"))
    assert tuple(sent) == (kind, account, institution)


async def test_a_reference_is_derived_when_the_channel_gives_none(rail):
    job = rail.job(reference_number=None)
    await rail.worker.send_order(job)
    [order] = rail.at_stp(job)
    assert 1 <= order.fields["referenciaNumerica"] <= 9_999_999


async def test_an_order_that_was_sent_is_not_refused_by_rules_that_changed_since(rail, monkeypatch):
    job = rail.job()
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)

    def closed(*_):
        raise OrderRejected("the deny list has grown")

    monkeypatch.setattr(accounts, "beneficiary", closed)
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    with pytest.raises(OrderRejected):
        await rail.worker.send_order(rail.job())


# --- Answers that say nothing ---------------------------------------------------------------------------------------

LOST = ["lost", "500", "truncated", "garbage", "no-response", "slow"]


@pytest.mark.parametrize("answer", LOST)
async def test_an_order_whose_answer_got_lost_is_found_by_asking_and_sent_once(rail, answer):  # H3
    job = rail.job()
    await rail.rule(job, {"answer": answer, "slow_by": 3, "times": 1, "steps": [{"estado": "LQ", "report": False}]})
    sent = await rail.worker.send_order(job)
    assert sent.order_state == "UNKNOWN"
    inquired = await rail.worker.inquire_order(rail.ask(job))
    assert (inquired.outcome, inquired.reason, inquired.inquiries) == ("SETTLED", "none", 1)
    assert len(rail.at_stp(job)) == 1
    assert rail.sends(job) == 1


@pytest.mark.parametrize("answer", ["lost", "502", "no-response"])
async def test_a_request_that_got_lost_is_sent_again_with_the_same_bytes(rail, answer, eventually):
    job = rail.job()
    await rail.rule(job, {"answer": answer, "registers": False, "times": 1})
    assert (await rail.worker.send_order(job)).order_state == "UNKNOWN"
    before = (await rail.order(job)).body
    inquired = await rail.worker.inquire_order(rail.ask(job))
    assert inquired.outcome in {None, "SETTLED"}  # it may settle before it is asked for
    assert (await rail.order(job)).body == before
    assert (await rail.order(job)).sending is Sending.ACCEPTED
    assert len(rail.at_stp(job)) == 1
    if inquired.outcome is None:  # else the process heard it from the inquiry, and no message is due
        await eventually(lambda: rail.engine.told(job.payment_id))


async def test_html_403_is_not_sent_and_tried_again(rail):
    job = rail.job()
    await rail.rule(job, {"answer": "403", "registers": False, "times": 1})
    with pytest.raises(Unavailable):
        await rail.worker.send_order(job)
    assert (await rail.order(job)).sending is Sending.NOT_SENT
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert len(rail.at_stp(job)) == 1


async def test_consult_only_mode_is_waited_out(rail):
    job = rail.job()
    await rail.rule(job, {"refuse": -30, "registers": False, "times": 1})
    with pytest.raises(Unavailable, match="-30"):
        await rail.worker.send_order(job)
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"


async def test_no_connection_is_not_sent_and_needs_no_inquiry(rail, monkeypatch):
    job = rail.job()
    good = rail.stp._orders
    rail.stp._orders = Line("http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="no connection"):
        await rail.worker.send_order(job)
    rail.stp._orders = good
    asked = _counting_inquiries(rail, monkeypatch)
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert asked == []


def _counting_inquiries(rail, monkeypatch):
    asked = []
    inquire = rail.stp.inquire

    async def counting(company, key, day, signer):
        asked.append(day)
        return await inquire(company, key, day, signer)

    monkeypatch.setattr(rail.stp, "inquire", counting)
    return asked


async def test_an_answer_as_text_is_an_id_too(rail):
    job = rail.job()
    await rail.rule(job, {"answer": "id-as-text"})
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"


# --- Already registered ---------------------------------------------------------------------------------------------


async def test_a_key_in_use_is_looked_up_and_adopted(rail):
    job = rail.job()
    await rail.rule(job, {"refuse": -1, "steps": [{"estado": "LQ", "report": False}]})
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    [order] = rail.at_stp(job)
    assert (await rail.order(job)).stp_id == order.id


async def test_a_key_in_use_that_stp_does_not_show_yet_is_never_sent_again(rail):
    job = rail.job()
    await rail.rule(job, {"refuse": -1, "hidden_for": 1, "steps": [{"estado": "LQ", "report": False}]})
    assert (await rail.worker.send_order(job)).order_state == "UNKNOWN"
    assert (await rail.worker.inquire_order(rail.ask(job))).outcome is None
    assert rail.sends(job) == 1
    rail.advance(timedelta(seconds=2))
    assert (await rail.worker.inquire_order(rail.ask(job, 1))).outcome == "SETTLED"


@pytest.mark.parametrize("differs", ["amount", "account"])
async def test_another_order_under_our_key_stops_everything(rail, differs, alerts):
    job = rail.job()
    await rail.rule(job, "silent")
    changes = {"amount": 999} if differs == "amount" else {
        "payee": Party(id_type=IdentifierType.CLABE, identifier="002010077777777771")
    }  # fmt: skip
    theirs = job.model_copy(update=changes)
    new = await rail.worker._new_order(theirs, rail.worker._profiles.of(job.tenant_id))
    await rail.stp.register(new.body)
    with pytest.raises(TrackingKeyCollision) as found:
        await rail.worker.send_order(job)
    assert job.payee.identifier not in str(found.value)
    assert [kind for kind, _ in alerts] == ["tracking-key-collision"]


# --- Undocumented numbers -------------------------------------------------------------------------------------------


async def test_an_undocumented_no_is_believed_after_an_inquiry_finds_nothing(rail, monkeypatch):
    asked = _counting_inquiries(rail, monkeypatch)
    job = rail.job()
    await rail.rule(job, {"refuse": -27, "registers": False})
    with pytest.raises(OrderRejected, match="-27: not documented"):
        await rail.worker.send_order(job)
    assert asked == [None]


async def test_an_undocumented_no_whose_order_exists_is_adopted(rail, monkeypatch):
    job = rail.job()

    async def refusing_although_registered(sent):
        await StpHttp.register(rail.stp, sent)
        return _answer(-27)

    monkeypatch.setattr(rail.stp, "register", refusing_although_registered)
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert len(rail.at_stp(job)) == 1


def _answer(number):
    return classify(200, json.dumps({"resultado": {"id": number, "descripcionError": "x"}}).encode())


async def test_an_undocumented_no_that_cannot_be_verified_holds_the_money_until_it_can(rail):
    job = rail.job()
    await rail.rule(job, {"refuse": -27, "registers": False})
    await rail.http.post(f"{rail.simulator_url}/control/mode", json={"inquiry_limit": 0})
    assert (await rail.worker.send_order(job)).order_state == "UNKNOWN"
    await rail.http.post(f"{rail.simulator_url}/control/mode", json={"inquiry_limit": None})
    inquired = await rail.worker.inquire_order(rail.ask(job))
    assert (inquired.outcome, inquired.reason) == ("REJECTED", "scheme-rejected")
    assert rail.sends(job) == 1


async def test_an_undocumented_no_after_an_attempt_in_doubt_stays_unknown(rail):
    job = rail.job()
    await claimed_by_somebody_who_died(rail, job)
    await rail.rule(job, {"refuse": -27, "registers": False})
    assert (await rail.worker.send_order(job)).order_state == "UNKNOWN"
    assert (await rail.order(job)).sending is Sending.UNKNOWN


# --- Configuration --------------------------------------------------------------------------------------------------


async def test_a_wrong_key_is_an_incident_and_the_payment_goes_out_once_it_is_put_right(rail, tmp_path, alerts):
    from cryptography.hazmat.primitives.asymmetric import rsa

    profile = rail.worker._profiles.of(TenantId("greenbank"))
    wrong = Signer(rsa.generate_private_key(65537, 2048))
    right = profile.signer
    object.__setattr__(profile, "signer", wrong)
    job = rail.job()
    with pytest.raises(StpConfigurationError, match="signature"):
        await rail.worker.send_order(job)
    assert (await rail.order(job)).sending is Sending.NOT_SENT
    object.__setattr__(profile, "signer", right)
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert len(rail.at_stp(job)) == 1
    assert ("configuration", {"payment_id": job.payment_id, "error_id": 0}) in alerts


async def test_an_unknown_company_is_an_incident(rail):
    profile = rail.worker._profiles.of(TenantId("greenbank"))
    object.__setattr__(profile, "sender", profile.sender.__class__("NOBODY", profile.sender.payer_account))
    with pytest.raises(StpConfigurationError):
        await rail.worker.send_order(rail.job())


# --- Repeats and deaths ---------------------------------------------------------------------------------------------


async def test_a_job_that_is_done_again_sends_nothing_again(rail):
    job = rail.job()
    for _ in range(5):
        assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert rail.sends(job) == 1


async def test_a_job_that_is_done_twice_at_the_same_time_makes_one_order(rail):
    job = rail.job()
    sent = await asyncio.gather(*(rail.worker.send_order(job) for _ in range(8)))
    assert {one.order_state for one in sent} <= {"ACCEPTED", "UNKNOWN"}
    assert "ACCEPTED" in {one.order_state for one in sent}
    assert len(rail.at_stp(job)) == 1
    assert (await rail.order(job)).sending is Sending.ACCEPTED


async def test_death_between_claim_and_send_is_made_good_by_the_next_worker(rail):
    job = rail.job()
    await claimed_by_somebody_who_died(rail, job)
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert rail.sends(job) == 1


async def test_death_between_send_and_record_is_found_by_the_next_worker(rail):
    job = rail.job()
    await rail.rule(job, "silent")
    order = await claimed_by_somebody_who_died(rail, job)
    await rail.stp.register(order.body)
    assert (await rail.worker.send_order(job)).order_state == "ACCEPTED"
    assert rail.sends(job) == 1


async def test_death_after_a_refusal_ends_in_the_same_refusal(rail):
    job = rail.job()
    await rail.rule(job, "refuse")
    order = await claimed_by_somebody_who_died(rail, job)
    await rail.stp.register(order.body)
    assert (await rail.worker.send_order(job)).order_state == "UNKNOWN"  # the refusal must be verified first
    inquired = await rail.worker.inquire_order(rail.ask(job))
    assert (inquired.outcome, inquired.reason) == ("REJECTED", "scheme-rejected")


@pytest.mark.parametrize(
    "rules", [Rules(True, timedelta(seconds=40), timedelta(minutes=5))], ids=["attempts may last 40 s"]
)
async def test_an_attempt_that_may_still_run_is_not_repeated(rail):
    job = rail.job()
    await claimed_by_somebody_who_died(rail, job)
    assert (await rail.worker.send_order(job)).order_state == "UNKNOWN"
    assert (await rail.worker.inquire_order(rail.ask(job))).outcome is None
    assert rail.sends(job) == 0
    rail.advance(timedelta(seconds=41))
    await rail.worker.inquire_order(rail.ask(job, 1))
    assert rail.sends(job) == 1


@pytest.mark.parametrize("rules", [Rules(False, timedelta(0), timedelta(0))], ids=["resend=False"])
async def test_nothing_is_sent_again_where_that_is_switched_off(rail):
    job = rail.job()
    await claimed_by_somebody_who_died(rail, job)
    await rail.worker.inquire_order(rail.ask(job))
    assert rail.sends(job) == 0


async def test_an_order_of_another_tenant_is_not_touched(rail):  # H16
    job = rail.job()
    await rail.worker.send_order(job)
    theirs = job.model_copy(update={"tenant_id": TenantId("bluebank")})
    with pytest.raises(LookupError):
        await rail.worker.send_order(theirs)
    with pytest.raises(LookupError):
        await rail.worker.inquire_order(rail.ask(theirs))


# --- The rollover ---------------------------------------------------------------------------------------------------


def _local(hour: int, minute: int, day: int = 18) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=MEXICO_CITY)


async def test_nothing_is_sent_again_across_the_rollover_although_stp_would_take_the_key_twice(rail):
    job = rail.job()
    rail.set_clocks(_local(17, 50))
    await rail.rule(job, {"answer": "lost", "hidden_for": 900, "times": 1, "steps": []})
    assert (await rail.worker.send_order(job)).order_state == "UNKNOWN"
    rail.set_clocks(_local(18, 1))
    assert (await rail.worker.inquire_order(rail.ask(job))).outcome is None
    assert rail.sends(job) == 1
    body = (await rail.order(job)).body
    answer = await rail.stp.register(body)  # what a careless connector would do
    assert answer.outcome is SendOutcome.ACCEPTED
    assert len(rail.at_stp(job)) == 2


async def test_nothing_is_sent_again_shortly_before_the_rollover(rail):
    job = rail.job()
    rail.set_clocks(_local(17, 56))
    await claimed_by_somebody_who_died(rail, job)
    await rail.worker.inquire_order(rail.ask(job))
    assert rail.sends(job) == 0


async def test_an_order_is_looked_for_on_the_current_date_that_of_sending_and_the_next(rail, monkeypatch):
    job = rail.job()
    rail.set_clocks(_local(17, 50))
    await rail.rule(job, {"answer": "lost", "times": 1, "steps": [{"estado": "LQ", "report": False}]})
    await rail.worker.send_order(job)
    rail.set_clocks(_local(12, 0, day=24))
    asked = _counting_inquiries(rail, monkeypatch)
    assert (await rail.worker.inquire_order(rail.ask(job))).outcome == "SETTLED"
    assert [None if day is None else day.isoformat() for day in asked] == [None, "2026-11-18"]


async def test_an_order_that_was_counted_on_the_next_date_is_found_there(rail, monkeypatch):
    job = rail.job()
    rail.clock.set(_local(17, 59))
    rail.simulator.clock_offset += (_local(18, 1) - _local(10, 0)).total_seconds()
    await rail.rule(job, {"answer": "lost", "times": 1, "steps": [{"estado": "LQ", "report": False}]})
    await rail.worker.send_order(job)
    rail.set_clocks(_local(12, 0, day=24))
    asked = _counting_inquiries(rail, monkeypatch)
    assert (await rail.worker.inquire_order(rail.ask(job))).outcome == "SETTLED"
    assert [None if day is None else day.isoformat() for day in asked] == [None, "2026-11-18", "2026-11-19"]


# --- Asking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estado", "causa", "outcome", "reason"),
    [
        ("LQ", None, "SETTLED", "none"),
        ("TLQ", None, "SETTLED", "none"),
        ("D", 1, "RETURNED", "account-unknown"),
        ("D", None, "RETURNED", "scheme-returned"),
        ("CN", None, "CANCELLED", "scheme-cancelled"),
        ("L", None, None, "no-answer"),
        ("ZZ", None, None, "no-answer"),
    ],
)
async def test_an_inquiry_brings_the_state_home(rail, estado, causa, outcome, reason):
    job = rail.job()
    await rail.rule(job, {"steps": [{"estado": estado, "causa": causa, "report": False}]})
    await rail.worker.send_order(job)
    await asyncio.sleep(0.1)
    inquired = await rail.worker.inquire_order(rail.ask(job, 2))
    assert (inquired.outcome, inquired.reason, inquired.inquiries) == (outcome, reason, 3)
    assert not rail.engine.told(job.payment_id)


async def test_what_a_callback_told_is_not_asked_again(rail, eventually, monkeypatch):
    job = rail.job()
    await rail.worker.send_order(job)
    await eventually(lambda: rail.engine.told(job.payment_id))
    asked = _counting_inquiries(rail, monkeypatch)
    assert (await rail.worker.inquire_order(rail.ask(job))).outcome == "SETTLED"
    assert asked == []


async def test_an_inquiry_without_an_answer_is_a_fruitless_round_and_no_failure(rail):
    job = rail.job()
    await rail.rule(job, {"answer": "lost", "times": 1, "steps": [{"estado": "LQ", "report": False}]})
    await rail.worker.send_order(job)
    await rail.http.post(f"{rail.simulator_url}/control/mode", json={"inquiry_limit": 0})
    for round_ in range(3):
        inquired = await rail.worker.inquire_order(rail.ask(job, round_))
        assert (inquired.outcome, inquired.reason, inquired.inquiries) == (None, "no-answer", round_ + 1)
    assert rail.sends(job) == 1


async def test_the_answer_of_an_inquiry_for_another_order_is_not_adopted(rail, monkeypatch):
    job = rail.job()
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    shown = FoundOrder("OTHERKEY", 1, "LQ", OrderState.SETTLED, None, None, Cause(), None)

    async def wrong(*_):
        return shown

    monkeypatch.setattr(rail.stp, "inquire", wrong)
    with pytest.raises(TrackingKeyCollision):
        await rail.worker.inquire_order(rail.ask(job))


async def test_a_payment_without_an_order_cannot_be_asked_for(rail):
    with pytest.raises(LookupError):
        await rail.worker.inquire_order(rail.ask(rail.job()))


# --- The database ---------------------------------------------------------------------------------------------------


async def test_what_was_sent_and_what_was_heard_cannot_be_changed(rail):
    job = rail.job()
    await rail.worker.send_order(job)
    for statement in (
        "UPDATE stp.stp_order SET body = 'x' WHERE payment_id = :p",
        "UPDATE stp.stp_order SET amount = 1 WHERE payment_id = :p",
        "DELETE FROM stp.stp_order WHERE payment_id = :p",
        "UPDATE stp.observation SET word = 'LQ' WHERE payment_id = :p",
        "DELETE FROM stp.observation WHERE payment_id = :p",
        "TRUNCATE stp.observation",
    ):
        with pytest.raises(Exception, match=r"never|only added"):
            await rail.rows(statement, **({"p": job.payment_id} if ":p" in statement else {}))


async def test_a_database_that_is_away_sends_nothing(rail):
    job = rail.job()
    async with open_statements("postgresql+psycopg://nobody@127.0.0.1:1/none") as away:
        rail.worker._orders._database = away
        with pytest.raises(Unavailable, match="database"):
            await rail.worker.send_order(job)
    assert rail.sends(job) == 0


# --- The careless connector -----------------------------------------------------------------------------------------


async def test_the_pretend_stp_catches_a_connector_that_sends_again_with_a_new_key(rail):
    """A connector that answers a time-out with a fresh order pays twice, and the book shows it."""
    job = rail.job()
    await rail.rule(job, {"answer": "lost", "times": 1})
    first = await rail.worker._new_order(job, rail.worker._profiles.of(job.tenant_id))
    assert (await rail.stp.register(first.body)).outcome is SendOutcome.UNKNOWN
    careless = job.model_copy(update={"payment_id": PaymentId(str(uuid.uuid4()))})
    second = await rail.worker._new_order(careless, rail.worker._profiles.of(job.tenant_id))
    assert (await rail.stp.register(second.body)).outcome is SendOutcome.ACCEPTED
    assert len(rail.at_stp(job)) + len(rail.at_stp(careless)) == 2


async def test_the_pretend_stp_catches_a_connector_that_takes_a_blind_resend_for_a_refusal(rail):
    """The same bytes sent again are answered -1: whoever reads that as a refusal releases money that is gone."""
    job = rail.job()
    await rail.rule(job, {"answer": "lost", "times": 1, "steps": [{"estado": "LQ", "report": False}]})
    new = await rail.worker._new_order(job, rail.worker._profiles.of(job.tenant_id))
    assert (await rail.stp.register(new.body)).outcome is SendOutcome.UNKNOWN
    again = await rail.stp.register(new.body)
    assert (again.outcome, again.error_id) == (SendOutcome.ALREADY_REGISTERED, -1)
    assert [order.clave for order in rail.at_stp(job)] == [rail.key(job)]


async def test_a_disbursement_is_paid_by_the_tenant_itself_and_its_late_return_says_so(rail):  # L38
    job = rail.job(payer=None, purpose="disbursement")
    await rail.rule(job, "settle")
    await rail.worker.send_order(job)
    [order] = rail.at_stp(job)
    assert (order.fields["nombreOrdenante"], order.fields["cuentaOrdenante"]) == (
        rail.settings.company, rail.settings.payer_account,
    )  # fmt: skip
    assert "rfcCurpOrdenante" not in order.fields or order.fields["rfcCurpOrdenante"] == "ND"
    for estado in ("LQ", "D"):
        told = {"id": order.id, "empresa": rail.settings.company, "claveRastreo": rail.key(job), "estado": estado}
        await rail.post_status(told | {"causaDevolucion": 1})
    assert [late.purpose for late in rail.engine.late(job.payment_id)] == ["disbursement"]


def test_a_payment_without_a_payer_is_a_mistake_and_no_disbursement(rail):
    given = rail.job().model_dump()
    del given["payer"]
    with pytest.raises(ValueError, match="payer"):
        SendOrder.model_validate(given)
