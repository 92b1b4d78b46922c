"""Fineract when it does not answer, answers oddly or is asked twice: nothing is done twice, and nothing is guessed."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from connectors.ams.connector import CONNECTOR
from connectors.ams.fineract_client import Refused, open_fineract
from connectors.ams.fineract_wire import Transfer, error_code, read_account, read_body, read_fee, transfer_code
from connectors.ams.model import (
    AccountClosed,
    AccountFrozen,
    AccountSystemConflict,
    AccountUnknown,
    InsufficientFunds,
)
from connectors.ams.settings import AmsSettings, FineractSettings
from connectors.ams.worker import AmsWorker
from hub.errors import Unavailable, Uncertain
from hub.money import Money
from hub.settings import SettingsError, read
from hub.testing import FakeEngine
from hub.transfer import IdentifierType, Party, PaymentId

FREE = Money(0, "MXN")
ENDS = {
    "hold": ("100.00", "60.00"),
    "capture": ("40.00", "0.00"),
    "release": ("100.00", "0.00"),
    "book": ("40.00", "0.00"),
    "credit": ("160.00", "0.00"),
    "reverse": ("100.00", "0.00"),
}
"""What is booked and held on Ana's account after 60.00 of her 100.00 went through a step."""


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


@pytest.fixture
async def bank(fineract):
    await fineract.open(
        {"id": "ana", "opening_balance": "100.00", "identifiers": [{"type": "MSISDN", "value": "1"}]},
        {"id": "bruno", "identifiers": [{"type": "MSISDN", "value": "2"}]},
        {"id": "cold", "opening_balance": "10.00", "status": "frozen"},
        {"id": "no-credits", "blocked": "credits"},
        {"id": "blocked", "opening_balance": "10.00", "blocked": "all"},
    )
    return fineract


@pytest.fixture
def payment() -> PaymentId:
    return PaymentId(str(uuid.uuid4()))


async def booked_and_held(bank, account: str = "ana") -> tuple[str, str]:
    found = await bank.accounts.balance(bank.tenant, account, "MXN")
    return found.booked.decimal(), found.held.decimal()


def effects(bank, payment: PaymentId) -> list[str]:
    """What the pretend Fineract really did for a payment."""
    return [
        one["operation"]
        for one in bank.simulator.requests
        if one["came_to"] == "done" and (one["transferCode"] or "").startswith(payment)
    ]


@pytest.mark.parametrize("do", ["lose-answer", "error-after", "garbage"])
@pytest.mark.parametrize("step", ["hold", "capture", "release", "book", "credit", "reverse"])
async def test_an_answer_that_is_missing_is_looked_up_before_anything_is_repeated(bank, payment, step, do):  # H3
    account = bank.accounts
    if step not in ("hold", "credit"):
        await account.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    if step == "reverse":
        await account.capture(bank.tenant, payment)
    asked = {
        "hold": lambda: account.hold(bank.tenant, payment, "ana", mxn("60"), FREE),
        "capture": lambda: account.capture(bank.tenant, payment),
        "release": lambda: account.release(bank.tenant, payment),
        "book": lambda: account.book(bank.tenant, payment, "bruno"),
        "credit": lambda: account.credit(bank.tenant, payment, "ana", mxn("60")),
        "reverse": lambda: account.reverse(bank.tenant, payment, reason="scheme-returned"),
    }[step]
    bank.rule({"hold": "PREPARE", "release": "RELEASE"}.get(step, "CREATE"), do)
    before = effects(bank, payment)
    with pytest.raises(Uncertain):
        await asked()
    bank.simulator.requests.clear()
    await asked()
    if step == "book":  # the payee's side was done, and found; the payer's remained
        assert bank.asked("savings", "PREPARE", "CREATE", "RELEASE")[-1] == "CREATE"
    else:
        assert bank.asked("savings", "PREPARE", "CREATE", "RELEASE") == ["savings"]
    assert before.count("CREATE") + effects(bank, payment).count("CREATE") <= 1
    assert await booked_and_held(bank) == ENDS[step]
    if step == "book":
        assert await booked_and_held(bank, "bruno") == ("60.00", "0.00")


@pytest.mark.parametrize("do", ["lose-request", "error"])
async def test_a_request_that_was_lost_is_sent_again_after_looking(bank, payment, do):
    bank.rule("PREPARE", do)
    with pytest.raises(Uncertain):
        await bank.accounts.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    bank.simulator.requests.clear()
    await bank.accounts.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    assert bank.asked("savings", "PREPARE") == ["savings", "PREPARE"]
    assert await booked_and_held(bank) == ("100.00", "60.00")


class Died(BaseException):
    """As when the process is killed: nothing after it runs."""


DEATHS = (
    ("hold", "ams.fineract.prepare.before-http"),
    ("hold", "ams.fineract.prepare.after-http"),
    ("hold", "ams.fineract.hold.before-done"),
    ("capture", "ams.fineract.create.before-http"),
    ("capture", "ams.fineract.create.after-http"),
    ("capture", "ams.fineract.capture.before-done"),
    ("release", "ams.fineract.release.before-http"),
    ("release", "ams.fineract.release.after-http"),
    ("release", "ams.fineract.release.before-done"),
    ("book", "ams.fineract.create.before-http"),
    ("book", "ams.fineract.create.after-http"),
    ("book", "ams.fineract.credit.before-done"),
    ("book", "ams.fineract.book.between"),
    ("book", "ams.fineract.book.before-done"),
    ("credit", "ams.fineract.create.before-http"),
    ("credit", "ams.fineract.create.after-http"),
    ("credit", "ams.fineract.credit.before-done"),
    ("reverse", "ams.fineract.create.before-http"),
    ("reverse", "ams.fineract.create.after-http"),
    ("reverse", "ams.fineract.reverse.before-done"),
)


@pytest.mark.parametrize(("step", "point"), DEATHS)
async def test_after_a_death_anywhere_another_process_finishes_once(bank, payment, monkeypatch, step, point):
    async def done_by(accounts) -> None:
        arguments = {
            "hold": ("ana", mxn("60"), FREE),
            "book": ("bruno",),
            "credit": ("ana", mxn("60")),
        }.get(step, ())
        named = {"reason": "scheme-returned"} if step == "reverse" else {}
        await getattr(accounts, step)(bank.tenant, payment, *arguments, **named)

    def dies(name: str) -> None:
        if name == point:
            raise Died

    if step not in ("hold", "credit"):
        await bank.accounts.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    if step == "reverse":
        await bank.accounts.capture(bank.tenant, payment)
    with monkeypatch.context() as patch:
        patch.setattr("connectors.ams.fineract_client.failpoint", dies)
        patch.setattr("connectors.ams.fineract_backend.failpoint", dies)
        with pytest.raises(Died):
            await done_by(bank.accounts)
    async with bank.opened() as another:
        await done_by(another)
        await done_by(another)
    assert await booked_and_held(bank) == ENDS[step]
    if step == "book":
        assert await booked_and_held(bank, "bruno") == ("60.00", "0.00")
    made = Counter(effects(bank, payment))
    assert made["CREATE"] == {"hold": 0, "release": 0, "capture": 1, "credit": 1}.get(step, 2)


async def test_a_hold_that_takes_the_last_money_is_not_refused_when_it_is_repeated(bank, payment):
    """Fineract looks at the balance first: the repeat would be refused for want of what the first one holds."""
    bank.rule("PREPARE", "slow", seconds=0.9)
    async with bank.opened(read_timeout=0.3) as hasty:
        with pytest.raises(Uncertain):
            await asyncio.wait_for(hasty.hold(bank.tenant, payment, "ana", mxn("100"), FREE), 5)
    bank.rule("PREPARE", "slow", seconds=1.2)  # the repeat arrives when the first one has been done
    async with bank.opened(read_timeout=8) as patient:
        await patient.hold(bank.tenant, payment, "ana", mxn("100"), FREE)
    assert await booked_and_held(bank) == ("100.00", "100.00")


async def test_two_attempts_at_once_make_one_hold_and_one_payment(bank, payment):
    async with bank.opened() as other:
        holds = (one.hold(bank.tenant, payment, "ana", mxn("60"), FREE) for one in (bank.accounts, other) * 3)
        ended = await asyncio.gather(*holds, return_exceptions=True)
        assert not [one for one in ended if one is not None]
        captures = (one.capture(bank.tenant, payment) for one in (bank.accounts, other) * 3)
        assert set(await asyncio.gather(*captures)) == {None}
    assert sorted(effects(bank, payment)) == ["CREATE", "PREPARE"]
    assert await booked_and_held(bank) == ("40.00", "0.00")


async def test_what_was_released_is_never_paid_though_fineract_would(bank, payment):
    await bank.accounts.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    await bank.accounts.release(bank.tenant, payment)
    with pytest.raises(AccountSystemConflict):
        await bank.accounts.capture(bank.tenant, payment)
    assert effects(bank, payment) == ["PREPARE", "RELEASE"]


async def test_a_hold_that_somebody_released_in_fineract_by_hand_is_an_operators_matter(bank, payment):
    await bank.accounts.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    account = bank.simulator.tenants[bank.tenant].account("ana")
    account.transactions.remove(account.find("AMOUNT_HOLD", payment))
    with pytest.raises(AccountSystemConflict, match="onhold"):
        await bank.accounts.capture(bank.tenant, payment)


async def test_a_refused_booking_may_be_released_although_it_was_claimed(bank, payment):
    await bank.accounts.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    for payee, refusal in (("no-credits", AccountFrozen), ("blocked", AccountFrozen), ("nobody", AccountUnknown)):
        with pytest.raises(refusal):
            await bank.accounts.book(bank.tenant, payment, payee)
    await bank.accounts.release(bank.tenant, payment)
    assert await booked_and_held(bank) == ("100.00", "0.00")


async def test_blocked_debits_are_seen_though_fineract_would_hold(bank, payment):  # L85
    for account in ("cold", "blocked"):
        with pytest.raises(AccountFrozen):
            await bank.accounts.hold(bank.tenant, payment, account, mxn("1"), FREE)
    assert effects(bank, payment) == []


async def test_a_fineract_that_is_not_there_is_unavailable_and_nothing_was_done(bank, payment):
    async with bank.opened(base_url="http://127.0.0.1:1/fineract-provider/api/v1") as away:
        with pytest.raises(Unavailable):
            await away.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
        with pytest.raises(Unavailable):
            await away.ping()
    await bank.accounts.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    assert effects(bank, payment) == ["PREPARE"]


@pytest.mark.parametrize("do", ["lose-answer", "garbage", "error"])
async def test_a_question_without_an_answer_is_unavailable_because_nothing_was_done(bank, do):
    bank.rule("account", do)
    with pytest.raises(Unavailable):
        await bank.accounts.balance(bank.tenant, "ana", "MXN")


async def test_a_conflict_of_versions_is_tried_again(bank, payment):
    bank.rule("PREPARE", "conflict")
    with pytest.raises(Unavailable):
        await bank.accounts.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    await bank.accounts.hold(bank.tenant, payment, "ana", mxn("60"), FREE)
    assert await booked_and_held(bank) == ("100.00", "60.00")


async def test_wrong_credentials_are_an_outage_not_a_refusal(bank):
    wrong = bank.settings.model_copy(update={"password": SecretStr("wrong")})
    async with open_fineract(wrong) as fineract:
        with pytest.raises(Unavailable, match="401"):
            await fineract.account(bank.tenant, "ana")
        with pytest.raises(Unavailable):
            await fineract.ping()


async def test_a_quote_refuses_what_the_balance_does_not_cover(bank):
    one, other = (Party(id_type=IdentifierType.MSISDN, identifier=number) for number in "12")
    with pytest.raises(InsufficientFunds):
        await bank.accounts.quote(bank.tenant, one, other, mxn("100.01"))


async def test_the_worker_learns_of_every_refusal_by_its_name(bank, payment):
    await bank.close("bruno")
    with pytest.raises(AccountClosed):
        await bank.accounts.credit(bank.tenant, payment, "bruno", mxn("1"))


async def test_the_pretend_fineract_has_the_real_ones_swapped_codes(bank, payment):
    """So that a connector which believes the codes is found out."""
    async with open_fineract(bank.settings) as fineract:
        transfer = Transfer(payment, str(payment), "PAYER", "ana", mxn("10"), FREE, "test")
        await fineract.transfer(bank.tenant, "PREPARE", transfer)
        with pytest.raises(Refused, match=r"already\.committed"):
            await fineract.transfer(bank.tenant, "PREPARE", transfer)
        await fineract.transfer(bank.tenant, "CREATE", transfer)
        with pytest.raises(Refused, match=r"already\.on\.hold"):
            await fineract.transfer(bank.tenant, "CREATE", transfer)


async def test_the_pretend_fineract_is_told_over_http_what_to_do(bank):
    root = bank.settings.base_url.removesuffix("/fineract-provider/api/v1")
    async with httpx.AsyncClient(base_url=root) as http:
        opened = {"tenant": bank.tenant, "accounts": [{"id": "new", "currency": "MXN", "opening_balance": "7.00"}]}
        assert (await http.post("/control/accounts", json=opened)).status_code == 200
        assert await booked_and_held(bank, "new") == ("7.00", "0.00")
        assert (await http.post("/control/rules", json={"match": {}, "do": "error"})).status_code == 200
        with pytest.raises(Unavailable):
            await booked_and_held(bank)
        await http.delete("/control/rules")
        asked = (await http.get("/control/requests")).json()["requests"]
        assert [one["operation"] for one in asked] == ["account", "account"]


def test_amounts_are_read_without_floats_and_fees_are_rounded_half_to_even():  # L87
    exact = read_body(
        b'{"accountId":"a","currency":"MXN","accountBalance":90071992547409.930000,'
        b'"availableBalance":1E+2,"status":"ACTIVE"}'
    )
    assert (read_account(exact).booked.minor, read_account(exact).available.minor) == (9007199254740993, 10000)
    assert read_account(exact).sub_status == "NONE"
    fees = [read_body(b'{"fspFee":{"amount":%s}}' % fee) for fee in (b"1.015", b"1.025", b"0E-6")]
    assert [read_fee(fee, "MXN").minor for fee in fees] == [102, 102, 0]


def test_an_error_without_a_code_has_an_empty_one():
    answers: list[Any] = [None, [], {}, {"errors": []}, {"errors": [{}]}]
    assert [error_code(answer) for answer in answers] == [""] * 5


def test_a_transfer_code_that_fineract_would_cut_is_refused():
    assert transfer_code(PaymentId("0" * 36), ":c").endswith(":c")
    with pytest.raises(ValueError, match="50"):
        transfer_code(PaymentId("0" * 51))


async def test_the_connector_opens_fineract_from_its_settings_and_probes_it(bank, ams_url, monkeypatch):
    for name, value in {
        "PAYHUB_AMS_BACKEND": "fineract",
        "PAYHUB_AMS_FINERACT_BASE_URL": bank.settings.base_url,
        "PAYHUB_AMS_FINERACT_USER": "mifos",
        "PAYHUB_AMS_FINERACT_PASSWORD": "password",
        "PAYHUB_AMS_FINERACT_TENANTS": f'{{"{bank.tenant}": "{bank.tenant}"}}',
        "PAYHUB_DATABASE_URL": ams_url,
    }.items():
        monkeypatch.setenv(name, value)
    async with CONNECTOR.open_work(FakeEngine()) as work:
        assert [type(worker) for worker in work.workers] == [AmsWorker]
        await work.probes["fineract"]()
    assert read(AmsSettings).backend == "fineract"
    assert "'password'" not in repr(read(FineractSettings))


def test_fineract_needs_an_address_and_a_user(monkeypatch):
    with pytest.raises(SettingsError, match="PAYHUB_AMS_FINERACT_BASE_URL"):
        read(FineractSettings)
    monkeypatch.setenv("PAYHUB_AMS_FINERACT_BASE_URL", "bank.example")
    with pytest.raises(SettingsError, match="PAYHUB_AMS_FINERACT_BASE_URL"):
        read(FineractSettings)


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_fails_and_however_often_no_money_appears_or_disappears(fineract, monkeypatch, seed):
    """Sixteen payments at once on one account that cannot pay all of them, while one call in three goes wrong."""
    chance = random.Random(seed)
    await fineract.open(
        {"id": "ana", "opening_balance": "200.00"}, {"id": "bruno"}, fees=[{"currency": "MXN", "fixed": "1.00"}]
    )
    faults = ("lose-answer", "lose-request", "error", "error-after", "garbage", "conflict")

    def misfortune(_operation: str, _code: str | None) -> dict[str, str]:
        return {"do": chance.choice(faults)} if chance.random() < 1 / 3 else {}

    monkeypatch.setattr(fineract.simulator, "rule", misfortune)
    accounts, tenant = fineract.accounts, fineract.tenant
    anas, brunos = 20_000, 0

    async def patiently(step: Callable[..., Awaitable[None]], *arguments: Any, **named: Any) -> None:
        for _ in range(200):
            try:
                return await step(tenant, *arguments, **named)
            except (Unavailable, Uncertain):
                await asyncio.sleep(0)
        raise AssertionError("never done")

    async def pay(number: int) -> None:
        nonlocal anas, brunos
        payment, amount = PaymentId(f"walk-{seed}-{number}-{tenant}"), Money(chance.randint(500, 4000), "MXN")
        path = chance.choice(["capture", "release", "book", "credit", "capture-reverse", "book-reverse"])
        if path == "credit":
            await patiently(accounts.credit, payment, "ana", amount)
            anas += amount.minor
            return
        try:
            await patiently(accounts.hold, payment, "ana", amount, mxn("1"))
        except InsufficientFunds:
            return
        end, _, reversal = path.partition("-")
        await patiently(getattr(accounts, end), payment, *(("bruno",) if end == "book" else ()))
        if reversal:
            await patiently(accounts.reverse, payment, reason="operator")
        elif end != "release":
            anas -= amount.minor + 100
            brunos += amount.minor if end == "book" else 0

    await asyncio.gather(*(pay(number) for number in range(16)))
    monkeypatch.undo()
    assert await booked_and_held(fineract) == (Money(anas, "MXN").decimal(), "0.00")
    assert await booked_and_held(fineract, "bruno") == (Money(brunos, "MXN").decimal(), "0.00")
