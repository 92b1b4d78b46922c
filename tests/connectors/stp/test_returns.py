"""A deposit goes back to its sender once: against the pretend STP, under faults, and with a worker that dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from datetime import date, timedelta
from decimal import Decimal

import pytest

from connectors.stp.model import GivenBackAlready, OrderRejected, ReturnDeposit, StpConfigurationError
from connectors.stp.returns import ReturnsWorker, return_key
from connectors.stp.tracking import is_tracking_key, tracking_key
from connectors.stp.transport import NoReply, NotSent
from connectors.stp.wire import Devolucion, classify_return
from hub.errors import Unavailable, Uncertain
from hub.testing import Completed, Failed, Thrown, run
from hub.transfer import PaymentId, TenantId

TODAY = date(2026, 11, 18)
ACCOUNT = "646180110400000007"


@pytest.fixture
def returns(rail):
    return ReturnsWorker(orders=rail.orders, dispatch=rail.dispatch, profiles=rail.worker._profiles, clock=rail.clock)


def _came_in(rail, **changes):
    """Money that came in, and the job that gives it back."""
    key = f"BBVA-{uuid.uuid4().hex[:8]}/01"
    given = {"claveRastreo": key, "monto": "12.50", "cuentaBeneficiario": ACCOUNT, "report": False}
    deposit = rail.simulator.deposits.arrive({**given, **changes})
    institution = rail.simulator.book.incoming(deposit).order.fields["institucionOrdenante"]
    job = ReturnDeposit(
        payment_id=PaymentId(str(uuid.uuid4())), tenant_id=TenantId("greenbank"), amount=1250, currency="MXN",
        sender_institution=institution, deposit_tracking_key=key, operation_date=TODAY,
    )  # fmt: skip
    return deposit, job


def _gone_back(rail, job):
    return rail.simulator.book.orders(return_key(job.payment_id))


async def test_a_deposit_goes_back_once_however_often_it_is_asked_for(rail, returns):
    deposit, job = _came_in(rail)
    for _ in range(3):
        ending = await run(returns, job)
        assert isinstance(ending, Completed)
        assert ending.variables == {"return_tracking_key": return_key(job.payment_id)}
    [order] = _gone_back(rail, job)
    assert order.centavos == 1250
    assert rail.simulator.book.incoming(deposit).order.estado == "D"


async def test_a_deposit_goes_back_once_although_asked_for_at_the_same_time(rail, returns):
    _, job = _came_in(rail)
    endings = await asyncio.gather(*(run(returns, job) for _ in range(6)))
    assert any(isinstance(ending, Completed) for ending in endings)
    assert not any(isinstance(ending, Thrown) or getattr(ending, "incident", False) for ending in endings)
    assert len(_gone_back(rail, job)) == 1


async def test_two_payments_cannot_give_the_same_deposit_back(rail, returns):
    _, job = _came_in(rail)
    await returns.return_deposit(job)
    with pytest.raises(GivenBackAlready):
        await returns.return_deposit(job.model_copy(update={"payment_id": PaymentId(str(uuid.uuid4()))}))
    assert len(_gone_back(rail, job)) == 1


@pytest.mark.parametrize("arrives", [True, False], ids=["answer lost", "request lost"])
async def test_without_an_answer_the_next_attempt_looks_first(rail, returns, monkeypatch, arrives):  # H3
    _, job = _came_in(rail)
    asked = []
    line = rail.stp._orders
    exchange = line.exchange

    async def lost(method, path, body, **limits):
        asked.append(body)
        if arrives:
            await exchange(method, path, body, **limits)
        raise NoReply("time-out")

    monkeypatch.setattr(line, "exchange", lost)
    with pytest.raises(Uncertain):
        await returns.return_deposit(job)
    monkeypatch.setattr(line, "exchange", exchange)
    await returns.return_deposit(job)
    assert len(asked) == 1
    assert len(_gone_back(rail, job)) == 1
    stored = await rail.orders.find(job.payment_id)
    assert (stored.kind, stored.body.encode()) == ("return", asked[0])
    assert stored.sends == (1 if arrives else 2)


async def test_without_a_connection_it_is_tried_again(rail, returns, monkeypatch):
    _, job = _came_in(rail)

    async def away(*_, **__):
        raise NotSent("ConnectionRefusedError")

    with monkeypatch.context() as patch:
        patch.setattr(rail.stp._orders, "exchange", away)
        with pytest.raises(Unavailable):
            await returns.return_deposit(job)
    await returns.return_deposit(job)
    assert len(_gone_back(rail, job)) == 1


async def test_a_deposit_that_stp_does_not_know_takes_the_drawn_path(rail, returns):  # L44
    _, job = _came_in(rail)
    job = job.model_copy(update={"deposit_tracking_key": "NADIE/1"})
    ending = await run(returns, job)
    assert isinstance(ending, Thrown)
    assert (ending.code, ending.variables["outcome"]) == ("scheme-rejected", "REJECTED")
    assert ending.variables["reason_detail"] == "STP -1: there is no such deposit to give back"


async def test_a_refused_return_is_tried_again_when_time_has_passed(rail, returns, monkeypatch):
    """STP may not have shown the deposit yet. Until then a repeat of the job tells the same refusal and asks nobody."""
    _, job = _came_in(rail)
    asked = []
    give_back = rail.simulator.give_back

    def not_yet(given):
        asked.append(given)
        return {"resultado": {"id": -1, "descripcionError": "No se encontro la orden"}}

    monkeypatch.setattr(rail.simulator, "give_back", not_yet)
    for _ in range(2):
        assert isinstance(await run(returns, job), Thrown)
    monkeypatch.setattr(rail.simulator, "give_back", give_back)
    assert isinstance(await run(returns, job), Thrown)
    assert len(asked) == 1
    rail.advance(timedelta(hours=1, seconds=1))
    assert isinstance(await run(returns, job), Completed)
    assert len(_gone_back(rail, job)) == 1


async def test_no_such_deposit_says_nothing_after_an_attempt_in_doubt(rail, returns, monkeypatch):
    """The first attempt may be what took the deposit away."""
    _, job = _came_in(rail)
    job = job.model_copy(update={"deposit_tracking_key": "NADIE/2"})
    assert (await returns._find_or_claim(job))[1]  # as by a worker that died after the claim
    for _ in range(2):
        ending = await run(returns, job)
        assert isinstance(ending, Failed)
        assert not ending.incident
    assert (await rail.orders.find(job.payment_id)).sending == "UNKNOWN"


async def test_a_signature_that_stp_does_not_accept_is_an_incident(rail, returns, monkeypatch):
    _, job = _came_in(rail)
    profile = rail.worker._profiles.of(job.tenant_id)
    object.__setattr__(profile, "sender", profile.sender.__class__("NOBODY", profile.sender.payer_account))
    with pytest.raises(StpConfigurationError):
        await returns.return_deposit(job)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deposit_tracking_key": "A|B"}, "cannot be signed"),
        ({"deposit_tracking_key": "x" * 31}, "cannot be signed"),
        ({"deposit_tracking_key": ""}, "cannot be signed"),
        ({"amount": 0}, "positive"),
        ({"currency": "USD"}, "MXN"),
    ],
)
async def test_what_cannot_go_back_is_refused_before_anything_is_claimed(rail, returns, changes, said):
    _, job = _came_in(rail)
    with pytest.raises(OrderRejected, match=said):
        await returns.return_deposit(job.model_copy(update=changes))
    assert await rail.orders.find(job.payment_id) is None


async def test_another_tenants_return_and_a_payment_are_not_touched(rail, returns):  # H16
    _, job = _came_in(rail)
    await returns.return_deposit(job)
    with pytest.raises(LookupError):
        await returns.return_deposit(job.model_copy(update={"tenant_id": TenantId("bluebank")}))
    paid = rail.job()
    await rail.worker.send_order(paid)
    with pytest.raises(LookupError):
        await returns.return_deposit(job.model_copy(update={"payment_id": paid.payment_id}))


def test_a_return_is_signed_in_stps_order_without_the_company():
    given_back = Devolucion("TAMIZI", TODAY, 40012, "058-25/08/2023/25-300CPWF924", Decimal("12.5"), return_key(P))
    assert given_back.joined() == f"||20261118|40012|058-25/08/2023/25-300CPWF924|12.50|2|{return_key(P)}|3||"
    assert '"empresa":"TAMIZI"' in given_back.body("s")
    assert given_back.body("s") == given_back.body("s")


P = PaymentId("0197a3c4-0000-7000-8000-000000000001")


def test_the_key_of_a_return_is_its_own_and_never_changes():
    assert return_key(P) == return_key(P)
    assert return_key(P) != tracking_key(P)
    assert is_tracking_key(return_key(P, "ABCD"))
    with pytest.raises(ValueError, match="own"):
        Devolucion("T", TODAY, 40012, return_key(P), Decimal(1), return_key(P))


@pytest.mark.parametrize(
    ("body", "outcome", "documented"),
    [
        (b'{"resultado":{"id":9349827}}', "ACCEPTED", True),
        (b'{"resultado":{"id":-1,"descripcionError":"x"}}', "REJECTED", False),
        (b'{"resultado":{"id":-2,"descripcionError":"x"}}', "ALREADY_REGISTERED", True),
        (b'{"resultado":{"id":0,"descripcionError":"Error validando la firma"}}', "CONFIG_ERROR", True),
        (b'{"resultado":{"id":0}}', "UNKNOWN", True),
        (b"", "UNKNOWN", True),
    ],
)
def test_minus_one_means_another_thing_than_for_orders(body, outcome, documented):
    answer = classify_return(200, body)
    assert (answer.outcome, answer.documented) == (outcome, documented)


WORKER = """
import asyncio, sys
from datetime import datetime, timedelta
from connectors.stp.client import open_stp
from connectors.stp.dispatch import Dispatch, Rules
from connectors.stp.model import ReturnDeposit
from connectors.stp.orders import OrderStore
from connectors.stp.returns import ReturnsWorker
from connectors.stp.settings import StpSettings
from connectors.stp.tenants import profiles
from hub.settings import DatabaseSettings, read
from hub.statements import open_statements

async def main():
    settings, job = read(StpSettings), ReturnDeposit.model_validate_json(sys.argv[1])
    moment = datetime.fromisoformat(sys.argv[2])
    known, rules = profiles(settings), Rules(True, timedelta(0), timedelta(0))
    async with open_statements(read(DatabaseSettings).url) as database, open_stp(settings) as stp:
        orders = OrderStore(database)
        dispatch = Dispatch(orders, stp, known, rules, lambda: moment)
        await ReturnsWorker(orders=orders, dispatch=dispatch, profiles=known, clock=lambda: moment).return_deposit(job)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "point",
    [
        "stp.return-deposit.before-claim",
        "stp.return-deposit.after-claim",
        "stp.give-back.after-http",
        "stp.send-order.after-record",
    ],
)
async def test_a_deposit_goes_back_once_wherever_the_worker_died(rail, returns, point):
    _, job = _came_in(rail)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PAYHUB_")},
        "PAYHUB_FAILPOINT": point,
        "PAYHUB_DATABASE_URL": rail.database_url,
        "PAYHUB_STP_BASE_URL": rail.settings.base_url,
        "PAYHUB_STP_COMPANY": rail.settings.company,
        "PAYHUB_STP_PAYER_ACCOUNT": rail.settings.payer_account,
        "PAYHUB_STP_PRIVATE_KEY_FILE": str(rail.settings.private_key_file),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, job.model_dump_json(), rail.clock().isoformat(),
        env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()
    await returns.return_deposit(job)
    assert len(_gone_back(rail, job)) == 1


async def test_what_becomes_of_a_return_tells_no_payments_process(rail, returns, alerts):
    """Nobody waits for its status; and should it come back, that is no late return of a payer's money (L38)."""
    _, job = _came_in(rail)
    back = (await returns.return_deposit(job)).return_tracking_key
    [order] = _gone_back(rail, job)
    for word in ("LQ", "D"):
        body = {"id": order.id, "empresa": order.empresa, "claveRastreo": back, "estado": word, "causaDevolucion": 1}
        assert (await rail.post_status(body)).status_code == 200
    stored = await rail.orders.find(job.payment_id)
    assert stored.state == "RETURNED"
    rail.advance(timedelta(minutes=1))
    await rail.callbacks.sweep()
    assert not [said for said in rail.engine.messages if said.payment_id == job.payment_id]
    assert ("return-failed", {"payment_id": job.payment_id, "state": "RETURNED"}) in alerts
    assert job.payment_id not in {order.payment_id for order in await rail.orders.untold(rail.clock())}
