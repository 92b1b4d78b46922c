"""The account system's jobs as the engine sees them: variables in, variables or a named refusal out."""

from __future__ import annotations

from datetime import timedelta

import pytest

from connectors.ams.connector import CONNECTOR
from connectors.ams.ledger_backend import REFUSED_AS, LedgerBackend
from connectors.ams.model import BookTransfer, CaptureHold, HoldFunds, QuoteTransfer, ReleaseHold, ReverseTransfer
from connectors.ams.settings import AmsSettings
from connectors.ams.worker import AmsWorker
from hub.settings import SettingsError, read
from hub.statements import open_statements
from hub.testing import Completed, Failed, FakeEngine, Thrown, job_facts, run
from ledger.model import REFUSALS

PAYMENT = {"payment_id": "p1", "tenant_id": "acme"}


@pytest.fixture
async def bank(branch):
    await branch.open(
        {"id": "ana", "opening_balance": "100.00", "identifiers": [{"type": "MSISDN", "value": "1"}]},
        {"id": "bruno", "identifiers": [{"type": "MSISDN", "value": "2"}]},
        {"id": "shut", "status": "closed", "identifiers": [{"type": "MSISDN", "value": "3"}]},
        fees=[{"currency": "MXN", "fixed": "1.00"}],
    )
    return branch


def quote_of(tenant: str, payer: str, payee: str, payee_type: str = "MSISDN", amount: int = 1000) -> QuoteTransfer:
    return QuoteTransfer.model_validate(
        {
            "payment_id": "p1",
            "tenant_id": tenant,
            "amount": amount,
            "currency": "MXN",
            "payer": {"id_type": "MSISDN", "identifier": payer, "name": None, "tax_id": None},
            "payee": {"id_type": payee_type, "identifier": payee, "name": None, "tax_id": None},
        }
    )


async def test_an_on_us_payment_from_quote_to_booking(bank):  # H1
    worker, of = AmsWorker(bank.accounts), {"payment_id": "p1", "tenant_id": bank.tenant}
    quoted = await run(worker, quote_of(bank.tenant, "1", "2"))
    assert isinstance(quoted, Completed)
    assert quoted.variables == {"payer_account": "ana", "payee_account": "bruno", "fee": 100, "on_us": True}
    held = await run(
        worker, HoldFunds.model_validate({**of, "payer_account": "ana", "amount": 1000, "fee": 100, "currency": "MXN"})
    )
    assert isinstance(held, Completed)
    assert held.variables == {}
    booked = await run(worker, BookTransfer.model_validate({**of, "payee_account": "bruno"}))
    assert isinstance(booked, Completed)
    assert booked.variables == {"outcome": "SETTLED", "reason": "none", "reason_detail": None}
    assert (await bank.accounts.balance(bank.tenant, "bruno", "MXN")).booked.decimal() == "10.00"


async def test_a_payment_over_a_rail_is_captured_or_released(bank):
    worker = AmsWorker(bank.accounts)
    for payment, end in (("p1", CaptureHold), ("p2", ReleaseHold)):
        of = {"payment_id": payment, "tenant_id": bank.tenant}
        hold = HoldFunds.model_validate({**of, "payer_account": "ana", "amount": 1000, "fee": 100, "currency": "MXN"})
        assert isinstance(await run(worker, hold), Completed)
        assert isinstance(await run(worker, end.model_validate(of)), Completed)
    balance = await bank.accounts.balance(bank.tenant, "ana", "MXN")
    assert (balance.booked.decimal(), balance.held.decimal()) == ("89.00", "0.00")


async def test_a_payee_elsewhere_is_not_on_us(bank):
    quoted = await run(AmsWorker(bank.accounts), quote_of(bank.tenant, "1", "072691004495711499", "CLABE"))
    assert isinstance(quoted, Completed)
    assert (quoted.variables["on_us"], quoted.variables["payee_account"]) == (False, None)


async def test_a_refusal_is_thrown_with_outcome_and_reason(bank):
    worker = AmsWorker(bank.accounts)
    thrown = await run(worker, quote_of(bank.tenant, "1", "3"))
    assert isinstance(thrown, Thrown)
    assert thrown.code == "account-closed"
    assert (thrown.variables["outcome"], thrown.variables["reason"]) == ("REJECTED", "account-closed")
    hold = {"payment_id": "p1", "tenant_id": bank.tenant, "payer_account": "ana", "amount": 9901, "fee": 100}
    refused = await run(worker, HoldFunds.model_validate({**hold, "currency": "MXN"}))
    assert isinstance(refused, Thrown)
    assert refused.code == "insufficient-funds"


async def captured(bank, payment: str) -> ReverseTransfer:
    """A payment of 10.00 and a fee of 1.00 that was held and captured; the job that gives it back."""
    worker, of = AmsWorker(bank.accounts), {"payment_id": payment, "tenant_id": bank.tenant}
    hold = HoldFunds.model_validate({**of, "payer_account": "ana", "amount": 1000, "fee": 100, "currency": "MXN"})
    assert isinstance(await run(worker, hold), Completed)
    assert isinstance(await run(worker, CaptureHold.model_validate(of)), Completed)
    return ReverseTransfer.model_validate({**of, "reason": "scheme-returned"})


async def test_a_late_return_credits_the_payer_once_with_amount_and_fee(bank):  # L38 L41
    worker, job = AmsWorker(bank.accounts), await captured(bank, "p1")
    for _ in range(3):
        assert isinstance(await run(worker, job), Completed)
    balance = await bank.accounts.balance(bank.tenant, "ana", "MXN")
    assert (balance.booked.decimal(), balance.held.decimal()) == ("100.00", "0.00")


async def test_a_late_return_to_a_closed_account_is_a_named_refusal_and_books_nothing(bank):
    job = await captured(bank, "p1")
    await bank.close("ana")
    refused = await run(AmsWorker(bank.accounts), job)
    assert isinstance(refused, Thrown)
    assert refused.code == "account-closed"
    assert (await bank.accounts.balance(bank.tenant, "ana", "MXN")).booked.decimal() == "89.00"


async def test_a_return_that_overtakes_the_capture_is_tried_again(bank):
    worker, of = AmsWorker(bank.accounts), {"payment_id": "p1", "tenant_id": bank.tenant}
    hold = HoldFunds.model_validate({**of, "payer_account": "ana", "amount": 1000, "fee": 0, "currency": "MXN"})
    assert isinstance(await run(worker, hold), Completed)
    job = ReverseTransfer.model_validate({**of, "reason": "scheme-returned"})
    early = await run(worker, job)
    assert isinstance(early, Failed)
    assert not early.incident
    late = await run(worker, job, job_facts(job, retries=job.attempts - 20))
    assert isinstance(late, Failed)
    assert late.incident, "what is never captured is a person's to look at"
    assert isinstance(await run(worker, CaptureHold.model_validate(of)), Completed)
    assert isinstance(await run(worker, job), Completed)


async def test_what_no_correct_process_asks_is_an_incident_at_once(bank):
    ended = await run(
        AmsWorker(bank.accounts), ReleaseHold.model_validate({"payment_id": "p9", "tenant_id": bank.tenant})
    )
    assert isinstance(ended, Failed)
    assert ended.incident


async def test_a_database_that_is_away_is_tried_again():
    async with open_statements("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as statements:
        worker = AmsWorker(LedgerBackend(statements))
        for job in (
            quote_of("acme", "1", "2"),
            HoldFunds.model_validate({**PAYMENT, "payer_account": "ana", "amount": 1, "fee": 0, "currency": "MXN"}),
            BookTransfer.model_validate({**PAYMENT, "payee_account": "bruno"}),
            CaptureHold.model_validate(PAYMENT),
            ReleaseHold.model_validate(PAYMENT),
        ):
            ended = await run(worker, job)
            assert isinstance(ended, Failed)
            assert not ended.incident
            assert ended.back_off > timedelta(0)


def test_the_refusals_of_the_book_that_a_payment_can_meet_have_names_and_all_others_are_conflicts():
    assert {refusal.code for refusal in REFUSED_AS} == {
        "account-unknown",
        "account-closed",
        "account-frozen",
        "amount-not-allowed",
        "currency-mismatch",
        "insufficient-funds",
        "same-account",
    }
    assert set(REFUSED_AS) <= set(REFUSALS.values())


async def test_the_connector_opens_from_its_settings_and_probes_the_ledger(ams_url, monkeypatch):
    monkeypatch.setenv("PAYHUB_LEDGER_DATABASE_URL", ams_url)
    async with CONNECTOR.open_work(FakeEngine()) as work:
        assert [type(worker) for worker in work.workers] == [AmsWorker]
        await work.probes["ledger"]()


def test_an_account_system_that_does_not_exist_is_refused_by_its_setting(monkeypatch):
    monkeypatch.setenv("PAYHUB_AMS_BACKEND", "abacus")
    with pytest.raises(SettingsError, match="PAYHUB_AMS_BACKEND"):
        read(AmsSettings)
