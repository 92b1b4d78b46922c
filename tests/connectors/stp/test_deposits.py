"""Money that STP says came in, over real HTTP into a real PostgreSQL: credited once, or sent back with a cause."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from connectors.stp.accounts import AccountKind
from connectors.stp.deposit_store import DepositStore, Receiver, deposit_id
from connectors.stp.deposits import DepositWorker
from connectors.stp.model import ClaimDeposit, ConfirmDeposit, DepositArrived, OrderState, RefuseDeposit
from connectors.stp.wire import read_deposit
from hub.jobs import JobFacts
from hub.messages import Message
from hub.statements import open_statements
from hub.testing import Completed, Failed, job_facts, run
from hub.transfer import PaymentId, Reason, TenantId

TENANT, OTHER = TenantId("greenbank"), TenantId("bluebank")
CLABE = "646180157000000017"
KEEP = {"mensaje": "confirmar"}
_numbers = itertools.count(1)


def send_back(cause: int) -> dict[str, Any]:
    return {"mensaje": "devolver", "id": cause}


def incoming(**changes: Any) -> dict[str, Any]:
    """A deposit as STP tells it; another one each time."""
    number = next(_numbers)
    body = {
        "id": 70_000_000 + number, "fechaOperacion": 20261118, "institucionOrdenante": 40012,
        "institucionBeneficiaria": 90646, "claveRastreo": f"058-25/08/2023/{number}-300CPWF", "monto": 125.50,
        "nombreOrdenante": "José Pérez", "tipoCuentaOrdenante": 40, "cuentaOrdenante": "012180001183597198",
        "rfcCurpOrdenante": "ND", "nombreBeneficiario": "Ana", "tipoCuentaBeneficiario": 40,
        "cuentaBeneficiario": CLABE, "rfcCurpBeneficiario": "ND", "conceptoPago": "Renta", "referenciaNumerica": 7,
        "empresa": "TAMIZI", "tipoPago": 1, "tsLiquidacion": "1763481600123",
    }  # fmt: skip
    return {name: value for name, value in (body | changes).items() if value is not ...}


@dataclass
class Bank:
    """The payee's process as it is drawn, on an account system that is a dictionary."""

    worker: DepositWorker
    refuses: dict[str, Reason] = field(default_factory=dict)
    """Account number → why it takes nothing."""
    slow_by: float = 0.0
    credits: list[tuple[str, str, int]] = field(default_factory=list)
    """Tenant, number as the tenant writes it, centavos."""
    given_back: list[int] = field(default_factory=list)
    """The causes of what went back after STP had been answered."""
    instances: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def hear(self, message: Message) -> None:
        if isinstance(message, DepositArrived):
            self.tasks.append(asyncio.ensure_future(self.live(message)))

    async def live(self, arrived: DepositArrived) -> None:
        self.instances += 1
        of: dict[str, Any] = {"payment_id": arrived.payment_id, "tenant_id": arrived.tenant_id}
        if (await self.do(ClaimDeposit(**of), 1000 + self.instances))["duplicate"]:
            return
        await asyncio.sleep(self.slow_by)
        reason = self.refuses.get(arrived.payee.identifier)
        if reason is None:
            self.credits.append((arrived.tenant_id, arrived.payee.identifier, arrived.amount))
            await self.do(ConfirmDeposit(**of))
            return
        refused = await self.do(RefuseDeposit(**of, payee=arrived.payee, reason=reason))
        if refused["give_back"]:
            self.given_back.append(refused["cause"])

    async def do(self, job: Any, instance: int = 1) -> dict[str, Any]:
        ending = await run(self.worker, job, facts_of(job, instance))
        assert isinstance(ending, Completed), ending
        return dict(ending.variables)

    async def rests(self) -> None:
        await asyncio.gather(*self.tasks)


def facts_of(job: Any, instance: int) -> JobFacts:
    facts = job_facts(job)
    return JobFacts(facts.key, instance, facts.process_id, facts.element_id, facts.retries, facts.deadline)


@pytest.fixture
async def bank(rail) -> AsyncIterator[Bank]:
    """greenbank has the CLABEs that begin with 646180157 and one phone, bluebank one account among them."""
    store = rail.deposits._store
    await store.put_receivers([
        Receiver(AccountKind.CLABE, "646180157", TENANT),
        Receiver(AccountKind.CLABE, "646180157000000981", OTHER, "646180157000000981"),
        Receiver(AccountKind.MOBILE, "5511110001", TENANT, "525511110001"),
    ])  # fmt: skip
    bank = Bank(DepositWorker(store))
    rail.engine.heard = bank.hear
    object.__setattr__(rail.callback_settings, "deposit_answer_within", 5)
    yield bank
    await bank.rests()


async def post(rail, body: Any) -> Any:
    url = rail.callback_url.replace("/order-status", "/deposits")
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    return await rail.http.post(url, headers={"X-STP-Secret": "a-secret-for-callbacks-in-tests"}, **content)


def id_of(body: dict[str, Any]) -> PaymentId:
    return deposit_id(read_deposit(json.dumps(body).encode()))


async def kept(rail, body: dict[str, Any]) -> list[tuple[str, int]]:
    raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    rows = await rail.rows("SELECT result, times FROM stp.callback WHERE kind = 'deposit' AND body = :b", b=raw)
    return [tuple(row) for row in rows]


# --- Credited once --------------------------------------------------------------------------------------------------


async def test_a_deposit_is_kept_credited_and_confirmed(rail, bank):  # H2 L34
    body = incoming()
    answer = await post(rail, body)
    assert (answer.status_code, answer.json()) == (200, KEEP)
    assert bank.credits == [(TENANT, CLABE, 12_550)]
    assert await kept(rail, body) == [("taken", 1)]
    [message] = rail.engine.published(DepositArrived)
    assert (message.payment_id, message.message_id, message.correlation_key) == (id_of(body),) * 3
    assert (message.deposit_tracking_key, message.sender_institution) == (body["claveRastreo"], 40012)
    assert message.payer is not None
    assert (message.payer.name, message.payer.tax_id, message.operation_date.isoformat()) == (
        "José Pérez", None, "2026-11-18",
    )  # fmt: skip


async def test_twenty_posts_of_one_deposit_at_once_credit_it_once(rail, bank):  # L41
    body = incoming()
    # STP may word a repeat differently; who sent it, its key and its date make it the same.
    posts = [body | {"tsLiquidacion": str(1763481600123 + place % 4)} for place in range(20)]
    answers = await asyncio.gather(*(post(rail, one) for one in posts))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, '{"mensaje":"confirmar"}')}
    await bank.rests()
    assert len(bank.credits) == 1
    assert len(await rail.rows("SELECT FROM stp.deposit WHERE payment_id = :p", p=id_of(body))) == 1


async def test_a_deposit_told_again_after_the_engine_forgot_it_credits_nothing(rail, bank):  # L41
    body = incoming()
    await post(rail, body)
    rail.engine.forget()
    [message] = rail.engine.published(DepositArrived)
    await rail.engine.publish(message)
    await bank.rests()
    assert bank.instances == 2
    assert len(bank.credits) == 1
    assert (await post(rail, body)).json() == KEEP


async def test_the_same_key_of_another_bank_or_day_is_another_deposit(rail, bank):
    body = incoming()
    for one in (body, body | {"institucionOrdenante": 40014}, body | {"fechaOperacion": 20261119}):
        assert (await post(rail, one)).json() == KEEP
    assert len(bank.credits) == 3


async def test_the_older_form_without_names_is_understood(rail, bank):
    old = {"Clave": 17658976, "FechaOperacion": 20261118, "InstitucionOrdenante": 846, "ClaveRastreo": "OLD/1",
           "Monto": 100.0, "TipoCuentaBeneficiario": 40, "CuentaBeneficiario": CLABE, "Empresa": "TAMIZI"}  # fmt: skip
    assert (await post(rail, old)).json() == KEEP
    assert bank.credits == [(TENANT, CLABE, 10_000)]


async def test_the_longest_prefix_says_whose_account_it_is_and_kinds_are_apart(rail, bank):
    await post(rail, incoming(cuentaBeneficiario="646180157000000981"))
    await post(rail, incoming(cuentaBeneficiario="5511110001", tipoCuentaBeneficiario=10, monto="3"))
    assert bank.credits == [(OTHER, "646180157000000981", 12_550), (TENANT, "525511110001", 300)]
    card = incoming(cuentaBeneficiario="5511110001234567", tipoCuentaBeneficiario=3)
    assert (await post(rail, card)).json() == send_back(1)


async def test_a_number_stays_with_the_tenant_that_had_it_first(rail, bank):
    again = Receiver(AccountKind.MOBILE, "5511110001", OTHER)
    assert await rail.deposits._store.put_receivers([again]) == [again]
    await post(rail, incoming(cuentaBeneficiario="5511110001", tipoCuentaBeneficiario=10))
    assert [tenant for tenant, *_ in bank.credits] == [TENANT]


# --- Refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"cuentaBeneficiario": "012180001183597198"}, 1),
        ({"cuentaBeneficiario": "64618015700000"}, 17),
        ({"tipoCuentaBeneficiario": 3}, 17),
        ({"cuentaBeneficiario": ...}, 14),
    ],
    ids=["nobody's", "no length of an account", "another kind", "missing"],
)
async def test_what_no_account_of_ours_can_take_goes_back_at_once(rail, bank, changes, cause):  # H2
    body = incoming(**changes)
    for _ in range(2):
        answer = await post(rail, body)
        assert (answer.status_code, answer.json()) == (400, send_back(cause))
    assert rail.engine.published(DepositArrived) == []
    assert await kept(rail, body) == [("refused", 2)]


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (Reason.ACCOUNT_UNKNOWN, 1),
        (Reason.ACCOUNT_FROZEN, 2),
        (Reason.ACCOUNT_CLOSED, 3),
        (Reason.CURRENCY_MISMATCH, 5),
        (Reason.AMOUNT_NOT_ALLOWED, 20),
        (Reason.COMPLIANCE, 0),
    ],
)
async def test_a_refusal_is_the_answer_while_stp_waits(rail, bank, reason, cause):  # H2
    bank.refuses[CLABE] = reason
    body = incoming()
    for _ in range(2):
        answer = await post(rail, body)
        assert (answer.status_code, answer.json()) == (400, send_back(cause))
    assert (bank.credits, bank.given_back) == ([], [])


async def test_an_unknown_mobile_has_a_cause_of_its_own(rail, bank):
    bank.refuses["525511110001"] = Reason.ACCOUNT_UNKNOWN
    answer = await post(rail, incoming(cuentaBeneficiario="5511110001", tipoCuentaBeneficiario=10))
    assert answer.json() == send_back(22)


async def test_a_refusal_after_the_answer_is_given_back_by_a_transfer(rail, bank):  # H2
    object.__setattr__(rail.callback_settings, "deposit_answer_within", 0.1)
    bank.refuses[CLABE], bank.slow_by = Reason.ACCOUNT_CLOSED, 0.5
    body = incoming()
    assert (await post(rail, body)).json() == KEEP
    await bank.rests()
    assert (bank.credits, bank.given_back) == ([], [3])
    assert (await post(rail, body)).json() == KEEP, "a repeat hears what the first one heard"


async def test_a_refusal_that_finds_nobody_waiting_is_given_back(rail, bank):
    """The request broke off before its answer. STP, asking again, is told to keep what goes back by a transfer."""
    body = incoming()
    bank.refuses[CLABE] = Reason.ACCOUNT_CLOSED
    raw = json.dumps(body).encode()
    await rail.orders.keep_callback(raw, rail.clock(), "deposit")
    rail.clock.advance(timedelta(seconds=10))
    await rail.deposits.sweep()
    await bank.rests()
    assert bank.given_back == [3]
    assert (await post(rail, body)).json() == KEEP


async def test_a_key_repeated_for_other_money_goes_back_and_is_alerted(rail, bank, alerts):
    body = incoming()
    await post(rail, body)
    for other in (body | {"monto": 125.51}, body | {"cuentaBeneficiario": "646180157000000981"}):
        assert (await post(rail, other)).json() == send_back(30)
    assert len(bank.credits) == 1
    assert [kind for kind, _ in alerts] == ["deposit-key-repeated"] * 2


async def test_one_decision_stands_and_the_other_is_an_incident(rail, bank):
    await post(rail, body := incoming())
    [message] = rail.engine.published(DepositArrived)
    of: dict[str, Any] = {"payment_id": id_of(body), "tenant_id": TENANT}
    refused = await run(bank.worker, RefuseDeposit(**of, payee=message.payee, reason=Reason.ACCOUNT_CLOSED))
    assert isinstance(refused, Failed)
    assert refused.incident
    bank.refuses[CLABE] = Reason.ACCOUNT_CLOSED
    await post(rail, body := incoming())
    confirmed = await run(bank.worker, ConfirmDeposit(payment_id=id_of(body), tenant_id=TENANT))
    assert isinstance(confirmed, Failed)
    assert confirmed.incident


async def test_another_tenants_process_cannot_touch_a_deposit(rail, bank):  # H16
    await post(rail, body := incoming())
    for job in (ClaimDeposit, ConfirmDeposit):
        ending = await run(bank.worker, job(payment_id=id_of(body), tenant_id=OTHER))
        assert isinstance(ending, Failed)
        assert ending.incident


# --- What cannot be read, and who may post --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 20_000]
    + [
        json.dumps(incoming(**changes)).encode()
        for changes in (
            {"claveRastreo": ...},
            {"claveRastreo": "x" * 61},
            {"institucionOrdenante": ...},
            {"monto": ...},
            {"monto": 0},
            {"monto": -1},
            {"monto": "12.345"},
            {"monto": "1e400"},
            {"monto": True},
            {"id": ..., "fechaOperacion": ...},
        )
    ],
)
async def test_a_body_that_cannot_be_read_is_answered_400_and_kept(rail, bank, body):
    answer = await post(rail, body)
    assert answer.status_code == 400
    assert (answer.json()["code"], "mensaje" in answer.json()) == ("malformed-deposit", False)
    rows = await rail.rows("SELECT result FROM stp.callback WHERE kind = 'deposit' AND body = :b", b=body)
    assert [row[0] for row in rows] == ["malformed"]
    assert rail.engine.published(DepositArrived) == []


async def test_without_the_secret_nothing_is_kept(rail, bank):  # L33
    body = incoming()
    url = rail.callback_url.replace("/order-status", "/deposits")
    answer = await rail.http.post(url, headers={"X-STP-Secret": "wrong"}, json=body)
    assert answer.status_code == 401
    assert await kept(rail, body) == []


async def test_an_oversized_deposit_is_refused(rail, bank):
    assert (await post(rail, b"x" * 1_100_000)).status_code == 413


# --- Our own orders that come back ----------------------------------------------------------------------------------


async def sent(rail, **changes):
    job = rail.job(**changes)
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    return job


def back(rail, job, **changes):
    return incoming(claveRastreo=rail.key(job), claveRastreoDevolucion="DEV1", monto=job.amount / 100, tipoPago=0,
                    cuentaBeneficiario="646180110400000007") | changes  # fmt: skip


def told(rail, job):
    return (
        [message.outcome for message in rail.engine.told(job.payment_id)],
        [message.tenant_id for message in rail.engine.late(job.payment_id)],
    )


@pytest.mark.parametrize("order", list(itertools.permutations(["LQ", "D", "incoming"])))
async def test_a_return_that_also_comes_in_as_a_deposit_counts_once(rail, bank, order):  # L38 L41
    job = await sent(rail)
    status = {"id": rail.at_stp(job)[0].id, "empresa": "TAMIZI", "claveRastreo": rail.key(job)}
    for word in order:
        answer = await (
            post(rail, back(rail, job)) if word == "incoming" else rail.post_status(status | {"estado": word})
        )
        assert answer.status_code == 200
    assert (await rail.order(job)).state is OrderState.RETURNED
    assert told(rail, job) == ((["SETTLED"], [TENANT]) if order[0] == "LQ" else (["RETURNED"], []))
    assert bank.credits == []


async def test_a_return_without_its_type_is_known_by_its_account(rail, bank):
    job = await sent(rail)
    assert (await post(rail, back(rail, job, tipoPago=None))).json() == KEEP
    assert told(rail, job) == (["RETURNED"], [])


async def test_a_payment_from_one_customer_of_ours_to_another_is_a_deposit(rail, bank):
    job = await sent(rail)
    arrives = incoming(claveRastreo=rail.key(job), monto=job.amount / 100)
    assert (await post(rail, arrives)).json() == KEEP
    assert (bank.credits, told(rail, job)) == ([(TENANT, CLABE, job.amount)], ([], []))


async def test_a_return_of_another_amount_moves_nothing_and_is_alerted(rail, bank, alerts):
    job = await sent(rail)
    assert (await post(rail, back(rail, job, monto=1))).json() == KEEP
    assert [kind for kind, _ in alerts] == ["return-amount-differs"]
    assert (await rail.order(job)).state is OrderState.PENDING


async def test_money_back_for_an_order_that_is_not_ours_is_kept_and_alerted(rail, bank, alerts):  # H4
    body = incoming(tipoPago=17)
    assert (await post(rail, body)).json() == KEEP
    assert [kind for kind, _ in alerts] == ["return-not-ours"]
    assert await kept(rail, body) == [("unknown-order", 1)]
    assert bank.credits == []


# --- What breaks off ------------------------------------------------------------------------------------------------


async def test_with_the_engine_away_the_money_is_kept_and_credited_later(rail, bank):
    object.__setattr__(rail.callback_settings, "deposit_answer_within", 0.2)
    rail.engine.away = True
    body = incoming()
    assert (await post(rail, body)).json() == KEEP
    rail.engine.away = False
    await rail.deposits.sweep()
    assert bank.credits == [], "the sweep leaves fresh ones to whoever received them"
    rail.clock.advance(timedelta(seconds=10))
    for _ in range(2):
        await rail.deposits.sweep()
        await bank.rests()
    assert len(bank.credits) == 1
    assert bank.instances == 1


async def test_a_process_that_does_not_begin_is_told_again(rail, bank):
    object.__setattr__(rail.callback_settings, "deposit_answer_within", 0.1)
    rail.engine.heard = None
    await post(rail, incoming())
    rail.engine.forget()
    rail.engine.heard = bank.hear
    rail.clock.advance(timedelta(seconds=10))
    await rail.deposits.sweep()
    await bank.rests()
    assert len(bank.credits) == 1


async def test_a_database_that_is_away_is_answered_503_so_that_stp_repeats(rail, bank):
    body, good = incoming(), rail.deposits._store
    async with open_statements("postgresql+psycopg://nobody@127.0.0.1:1/none") as away:
        rail.deposits._store = DepositStore(away)
        assert (await post(rail, body)).status_code == 503
    rail.deposits._store = good
    assert (await post(rail, body)).json() == KEEP
    assert len(bank.credits) == 1


async def test_a_refusal_that_stp_was_never_told_is_alerted(rail, bank, alerts):
    raw = json.dumps(incoming(cuentaBeneficiario="012180001183597198")).encode()
    await rail.orders.keep_callback(raw, rail.clock(), "deposit")
    rail.clock.advance(timedelta(seconds=10))
    await rail.deposits.sweep()
    assert [kind for kind, _ in alerts] == ["deposit-refusal-untold"]


async def test_the_database_itself_keeps_what_arrived_and_what_was_decided(rail, bank):
    await post(rail, body := incoming())
    for change in (
        "UPDATE stp.deposit SET amount = 1 WHERE payment_id = :p",
        "UPDATE stp.deposit SET decision = 'REFUSED' WHERE payment_id = :p",
        "UPDATE stp.deposit SET process_instance_key = 9 WHERE payment_id = :p",
        "DELETE FROM stp.deposit WHERE payment_id = :p",
    ):
        with pytest.raises(Exception, match="never"):
            await rail.rows(change, p=id_of(body))
