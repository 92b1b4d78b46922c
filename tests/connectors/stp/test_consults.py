"""Questions to STP: within the hour's budget, whoever asks, and read rightly whatever oddity comes back."""

from __future__ import annotations

import asyncio
import json
from datetime import date, datetime, time, timedelta

import pytest

from connectors.stp.calendar import MEXICO_CITY
from connectors.stp.consults import RECEIVED, SENT, ConsultBudget, Consults, Patience
from connectors.stp.poller import Pace, Poller
from connectors.stp.wire import AccountBalance, LimitExceeded, NoAnswer, Page, read_balance, read_page
from hub.errors import Unavailable
from hub.statements import open_statements

TODAY = date(2019, 3, 6)
PROMPT = Patience(wait_at_most=timedelta(0), between_pages=timedelta(0))


@pytest.fixture
def clock(clock):
    """A day that no other test's orders are in: the poller looks at all of them."""
    clock.set(datetime.combine(TODAY, time(10), MEXICO_CITY))
    return clock


@pytest.fixture
async def database(migrated_url):
    async with open_statements(migrated_url) as statements:
        yield statements


@pytest.fixture
def company(request):
    """A company with a budget of its own."""
    return f"C{abs(hash(request.node.nodeid)) % 10**12}"


# --- The budget -----------------------------------------------------------------------------------------------------


async def test_all_workers_together_ask_no_more_than_the_hour_allows(database, company):
    budgets = [ConsultBudget(database, 20) for _ in range(3)]
    asked = await asyncio.gather(*(budgets[n % 3].take(company) for n in range(60)))
    assert sum(asked) == 20
    assert await budgets[0].left(company) == 0
    assert await ConsultBudget(database, 20).take(f"{company}B")


async def test_the_budget_comes_back_little_by_little(database, company):
    budget = ConsultBudget(database, 36_000)  # ten a second
    await budget.drain(company)
    assert not await budget.take(company)
    await asyncio.sleep(0.35)
    assert 2 <= sum([await budget.take(company) for _ in range(10)]) < 10


async def test_who_keeps_something_back_leaves_it_to_payments_in_doubt(database, company):
    budget = ConsultBudget(database, 20)
    polled = [await budget.take(company, keep=15) for _ in range(20)]
    assert sum(polled) == 5
    assert sum([await budget.take(company) for _ in range(20)]) == 15


# --- Pages ----------------------------------------------------------------------------------------------------------


async def read_all(consults, signer, kind=SENT, day=TODAY, first=0):
    return [page async for _, page in consults.pages("TAMIZI", kind, day, signer, first)]


@pytest.fixture
def consults(rail, database):
    budget = ConsultBudget(database, 1_000_000)
    return Consults(rail.stp, budget, PROMPT)


@pytest.fixture
def signer(rail):
    return rail.worker._profiles.of(rail.job().tenant_id).signer


async def test_pages_are_read_until_one_is_empty_whatever_the_total_says(rail, consults, signer):
    rail.simulator.consults.page_size = 2
    for _ in range(3):
        await rail.worker.send_order(rail.job())
    pages = await read_all(consults, signer)
    assert [len(page.lines) for page in pages] == [2, 1, 0]
    shown = pages[0].lines[0]
    assert (shown.order.amount, shown.institution) == (1250, 40072)
    assert (await read_all(consults, signer, first=2)) == [Page((), 0)]


async def test_an_empty_date_is_an_empty_page(consults, signer):
    assert await read_all(consults, signer, RECEIVED, date(2019, 3, 5)) == [Page((), 0)]


async def test_a_future_date_is_not_taken_for_an_empty_one(consults, signer):
    with pytest.raises(Unavailable, match="estado 8"):
        await read_all(consults, signer, SENT, date(2099, 1, 5))


async def test_a_limit_of_stps_own_empties_our_budget(rail, database, signer):
    budget = ConsultBudget(database, 50)
    await rail.http.post(f"{rail.simulator_url}/control/mode", json={"inquiry_limit": 0})
    with pytest.raises(Unavailable, match="no more questions"):
        await read_all(Consults(rail.stp, budget, PROMPT), signer)
    assert await budget.left("TAMIZI") == 0
    with pytest.raises(Unavailable, match="used up"):
        await read_all(Consults(rail.stp, budget, PROMPT), signer)
    await database.rows("DELETE FROM stp.consult_budget")


@pytest.mark.parametrize("fault", ["500", "garbage", "lost"])
async def test_a_consult_that_fails_is_put_off(rail, consults, signer, fault):
    await rail.http.post(f"{rail.simulator_url}/control/faults", json={"consults": {fault: 1.0}})
    with pytest.raises(Unavailable):
        await read_all(consults, signer)


async def test_the_balance_is_read_in_decimals(rail, consults, signer):
    await rail.rule(job := rail.job(amount=10_050), "silent")
    await rail.worker.send_order(job)
    found = await consults.balance("TAMIZI", rail.settings.payer_account, signer)
    assert str(found.pending) == "100.50"
    assert found.balance == 10**13
    with pytest.raises(Unavailable):
        await consults.balance("TAMIZI", "646180157000000004", signer)


LINE = {"idEF": 5_000_001, "claveRastreo": "PH1", "estado": "LQ", "monto": 12.50, "cuentaBeneficiario": "0726"}


@pytest.mark.parametrize(
    ("status", "body", "read"),
    [
        (400, {"estado": 6, "mensaje": "", "datos": [], "total": 0}, Page((), 0)),
        (200, {"estado": 0, "datos": [None], "total": 9}, Page((), 0)),
        (200, {"estado": 0, "datos": [{"idEF": "x"}, "y", None]}, Page((), 2)),
        (400, {"estado": 3}, LimitExceeded()),
        (200, {"estado": 0}, NoAnswer("HTTP 200, estado 0")),
        (400, {"estado": 2}, NoAnswer("HTTP 400, estado 2")),
        (502, [], NoAnswer("HTTP 502, estado None")),
    ],
)
def test_a_page_is_read_whatever_it_looks_like(status, body, read):
    assert read_page(status, json.dumps(body).encode()) == read


def test_a_line_keeps_the_receipt_and_takes_only_real_moments():
    more = {"sello": "AB", "urlCEP": "https://x/", "nombreCep": "ANA", "rfcCep": "ND", "tsLiquidacion": 4524,
            "tipoPago": "1"}  # fmt: skip
    page = read_page(200, json.dumps({"estado": 0, "datos": [LINE | more, LINE]}).encode())
    assert isinstance(page, Page)
    first, second = page.lines
    assert first.receipt is not None
    assert (first.receipt.seal, first.receipt.name, first.order.settled_at, first.payment_type) == (
        "AB",
        "ANA",
        None,
        1,
    )
    assert second.receipt is None


@pytest.mark.parametrize("saldo", ["100.00", 100.00, 100])
def test_a_balance_is_read_from_text_and_numbers(saldo):
    body = json.dumps({"estado": 0, "respuesta": {"saldo": saldo, "cargosPendientes": "0.50"}}).encode()
    found = read_balance(200, body)
    assert isinstance(found, AccountBalance)
    assert (str(found.balance)[:3], str(found.pending)) == ("100", "0.50")
    assert isinstance(read_balance(500, b"<soap:Fault/>"), NoAnswer)


# --- Open orders ----------------------------------------------------------------------------------------------------


def poller(rail, database, per_hour=1_000_000, **pace):
    return Poller(
        database=database,
        orders=rail.orders,
        dispatch=rail.dispatch,
        budget=ConsultBudget(database, per_hour),
        pace=Pace(first_after=timedelta(minutes=15), **pace),
        clock=rail.clock,
    )


async def asks(rail, job):
    rows = await rail.rows("SELECT asks FROM stp.poll WHERE payment_id = :p", p=job.payment_id)
    return rows[0][0] if rows else 0


async def test_an_open_order_is_asked_for_ever_more_rarely_and_its_end_is_told(rail, database, eventually):  # H3
    job, asking = rail.job(), poller(rail, database)
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    await asking.poll()
    assert await asks(rail, job) == 0
    for minutes, expected in ((16, 1), (10, 1), (6, 2), (20, 2), (11, 3)):
        rail.advance(timedelta(minutes=minutes))
        await asyncio.gather(*(asking.poll() for _ in range(3)))
        assert await asks(rail, job) == expected
    rail.simulator.book.move(rail.at_stp(job)[0].id, "LQ", None, rail.simulator.moment())
    rail.advance(timedelta(hours=2))
    await asking.poll()
    assert (await rail.order(job)).state == "SETTLED"
    rail.advance(timedelta(minutes=1))
    await rail.callbacks.sweep()
    assert [told.outcome for told in rail.engine.told(job.payment_id)] == ["SETTLED"]


async def test_the_poller_leaves_half_of_the_budget(rail, database):
    job = rail.job()
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    rail.advance(timedelta(hours=1))
    budget = ConsultBudget(database, 20)
    for _ in range(9):
        await budget.take("TAMIZI")
    assert await poller(rail, database, per_hour=20).poll() == 0
    assert await asks(rail, job) == 0
    await database.rows("DELETE FROM stp.consult_budget")


async def test_people_are_told_once_of_an_order_that_stays_open_for_a_day(rail, database, alerts, monkeypatch):
    from connectors.stp import poller as asked_by

    told = []
    monkeypatch.setattr(asked_by, "alert", lambda kind, **facts: told.append((kind, facts["payment_id"])))
    job, asking = rail.job(), poller(rail, database)
    await rail.rule(job, "silent")
    await rail.worker.send_order(job)
    for _ in range(5):
        rail.advance(timedelta(hours=6, minutes=1))
        await asking.poll()
    assert [one for one in told if one[1] == job.payment_id] == [("no-final-state", job.payment_id)]
