"""The book and the payouts to stores as operators see them."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from hub.money import Money
from hub.statements import open_statements
from ledger.book import Ledger
from ledger.disbursement.balances import Balances
from ledger.disbursement.model import Collected, Frequency, Outcome, Trigger
from ledger.disbursement.runs import Runs
from ledger.disbursement.transfers import Transfers
from ledger.model import STP_SETTLEMENT, AccountRef
from ledger.seed import Seed, seed
from ledger.settings import APP_ROLE

ANA, ACCOUNT = AccountRef.customer("ana"), "/balances/accounts/customer-deposit:ana"


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


@pytest.fixture
async def paid(desk) -> str:
    """Ana had 100.00; 11.00 of it went out with a payment, whose id this is, and 21.00 are held for another."""
    ana = {"id": "ana", "currency": "MXN", "opening_balance": "100.00", "holder_name": "Ana Prueba",
           "identifiers": [{"type": "CLABE", "value": "646180157000000017"}]}  # fmt: skip
    await seed(desk.url, Seed.model_validate({"tenants": [{"id": desk.tenant, "accounts": [ana]}]}))
    payment = str(uuid.uuid4())
    async with open_statements(desk.url, 2, role=APP_ROLE) as statements:
        book = Ledger(statements)
        await book.hold(desk.tenant, "h1", ANA, mxn("10"), mxn("1"), reference=payment)
        await book.capture(desk.tenant, "h1", "h1:capture", STP_SETTLEMENT)
        await book.hold(desk.tenant, "h2", ANA, mxn("20"), mxn("1"), reference="by hand")
    return payment


async def test_an_account_is_shown_with_its_balance_holds_and_lines_that_name_payments(desk, paid):
    found = await desk.ok(
        "GET", "/balances/accounts", query={"identifierType": "CLABE", "identifier": "646180157000000017"}
    )
    assert (found["account"], found["holderName"]) == ("customer-deposit:ana", "A*** P***")
    (now,) = (await desk.ok("GET", ACCOUNT))["balances"]
    assert [now[name]["amount"] for name in ("booked", "held", "available")] == ["89.00", "21.00", "68.00"]
    (hold,) = (await desk.ok("GET", f"{ACCOUNT}/holds"))["holds"]
    assert (hold["amount"]["amount"], hold["reference"], hold["paymentId"]) == ("21.00", "by hand", None)
    assert (await desk.ok("GET", "/balances/holds"))["holds"] == [hold]
    first = await desk.ok("GET", f"{ACCOUNT}/statement", query={"currency": "MXN", "limit": 2})
    assert {line["paymentId"] for line in first["lines"]} == {paid}
    query = {"currency": "MXN", "limit": 2, "cursor": first["nextCursor"]}
    rest = await desk.ok("GET", f"{ACCOUNT}/statement", query=query)
    assert [line["balanceAfter"]["amount"] for line in first["lines"] + rest["lines"]] == ["89.00", "90.00", "100.00"]
    other = await desk.ask("GET", f"{ACCOUNT}/statement", query=query | {"currency": "USD"})
    assert other.status_code in {400, 404}


async def test_a_balance_is_asked_for_as_it_was(desk, paid):
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    (then,) = (await desk.ok("GET", ACCOUNT, query={"at": before}))["balances"]
    assert then["booked"] == {"amount": "0.00", "currency": "MXN"}
    after = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    (later,) = (await desk.ok("GET", ACCOUNT, query={"at": after, "axis": "effective"}))["balances"]
    assert later["booked"]["amount"] == "89.00"
    period = await desk.ok("GET", f"{ACCOUNT}/statement", query={"currency": "MXN", "from": before, "to": after})
    assert (period["opening"]["amount"], period["closing"]["amount"]) == ("0.00", "89.00")


async def test_the_trial_balance_has_no_difference(desk, paid):
    found = await desk.ok("GET", "/balances/trial-balance", "treasury")
    assert found["balanced"] is True
    assert [one["difference"] for one in found["totals"]] == [{"amount": "0.00", "currency": "MXN"}]
    assert {line["kind"] for line in found["lines"]} >= {"customer-deposit", "stp-settlement", "fee-income"}


async def test_another_tenants_accounts_are_not_found(desk, paid):  # H16
    for path in (ACCOUNT, f"{ACCOUNT}/holds", f"{ACCOUNT}/statement?currency=MXN", "/balances/accounts/no-such:kind"):
        answer = await desk.ask("GET", path, tenant="another-bank")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    for path in ("/balances/trial-balance", "/disbursements/stores"):
        assert (await desk.ask("GET", path, "partner")).status_code == 403
    assert (await desk.ask("GET", "/balances/trial-balance", "viewer")).status_code == 403
    assert (await desk.ask("GET", f"{ACCOUNT}?currencyy=MXN")).status_code == 422


WHOM = {"payee.identifier": "646180110400000007", "payee.name": "Muebles SA", "payee.taxId": "MUE010101AAA"}


@pytest.fixture
async def stores(desk) -> Transfers:
    """A merchant with two stores: s1 has 90.00 to get, s2 has no account."""
    await seed(desk.url, Seed.model_validate({"tenants": [{"id": desk.tenant, "accounts": []}]}))
    given = {"t": desk.tenant}
    for statement in (
        (
            "INSERT INTO disbursement.merchant (tenant_id, id, name, tax_id, validated) "
            "VALUES (%(t)s, 'm1', 'Muebles', 'MUE010101AAA', true)"
        ),
        (
            "INSERT INTO disbursement.store (tenant_id, id, merchant_id, name, frequency, validated) "
            "VALUES (%(t)s, 's1', 'm1', 'Centro', 'DAILY', true), (%(t)s, 's2', 'm1', 'Norte', 'DAILY', true)"
        ),
        (
            "INSERT INTO disbursement.bank_account (tenant_id, store_id, clabe, holder_name, tax_id, authenticated_at, "
            "authenticated_by) VALUES (%(t)s, 's1', '646180110400000007', 'Muebles SA', 'MUE010101AAA', now(), 'ana')"
        ),
        (
            "INSERT INTO disbursement.credit (tenant_id, id, store_id, amount, commission, signed_at) "
            "VALUES (%(t)s, 'c1', 's1', 10000, 1000, now())"
        ),
    ):
        await desk.owner.rows(statement, given)
    await Balances(desk.owner).contribute(desk.tenant, "c1", operation="c1:delivered", actor="partner")
    return Transfers(desk.owner)


async def test_a_store_is_shown_with_its_balance_and_why_it_is_not_paid(desk, stores):  # L28 L29
    verdicts = (await desk.ok("GET", "/disbursements/stores"))["stores"]
    assert [(one["store"], one["verdict"]) for one in verdicts] == [("s1", "PAY"), ("s2", "NO_BANK_ACCOUNT")]
    assert verdicts[1]["why"] == "The store has no bank account; add one."
    one = await desk.ok("GET", "/disbursements/stores/s1")
    assert (one["balance"]["amount"], one["pending"]["amount"], one["inTransit"]["amount"]) == (
        "90.00",
        "90.00",
        "0.00",
    )
    assert (one["ifDue"]["verdict"], one["account"]["clabe"]) == ("PAY", "**************0007")
    (update,) = (await desk.ok("GET", "/disbursements/stores/s1/updates"))["updates"]
    assert (update["type"], update["status"], update["new"]["amount"]) == ("CONTRIBUTION", "PENDING", "90.00")
    for path in ("/disbursements/stores/s1", "/disbursements/stores/s1/updates"):
        assert (await desk.ask("GET", path, tenant="another-bank")).status_code == 404


async def test_a_payout_is_shown_with_everything_that_became_of_it(desk, stores):  # L13 L19 L20
    payment = str(uuid.uuid4())
    made = await stores.collect(desk.tenant, "s1", payment, Trigger.DAILY)
    assert isinstance(made, Collected)
    await stores.record_sent(desk.tenant, payment)
    await stores.record_outcome(desk.tenant, payment, Outcome.SETTLED)
    (listed,) = (await desk.ok("GET", "/disbursements/transfers", query={"status": "APPLIED"}))["transfers"]
    found = await desk.ok("GET", f"/disbursements/transfers/{payment}")
    assert found["transfer"] == listed
    assert [one["status"] for one in found["history"]] == ["WAITING_FOR_CONFIRMATION", "IN_TRANSIT", "APPLIED"]
    assert [one["update"]["credit"] for one in found["items"]] == ["c1"]
    assert "Muebles SA" not in json.dumps(found)
    assert (await desk.ask("GET", f"/disbursements/transfers/{payment}", tenant="another-bank")).status_code == 404
    asked = {"fields": [*WHOM, "payer.name"], "reasonCode": "a", "reason": "b"}
    shown = await desk.ok("POST", f"/transfers/{payment}/reveal", "treasury", body=asked)
    assert shown["values"] == {"payer.name": None, **WHOM}
    assert await desk.acts(action="pii.reveal", payment_id=payment) == ["done"]


async def test_a_run_tells_of_each_store_why_it_was_paid_or_not(desk, stores):
    runs = Runs(desk.owner)
    made = await runs.request(desk.tenant, Frequency.DAILY, "ana")
    await runs.select(made.id)
    (listed,) = (await desk.ok("GET", "/disbursements/runs"))["runs"]
    found = await desk.ok("GET", f"/disbursements/runs/{made.id}")
    assert (found["run"], found["tally"]) == (listed, {"PAY": 1, "NO_BANK_ACCOUNT": 1})
    assert [one["verdict"]["verdict"] for one in found["stores"]] == ["PAY", "NO_BANK_ACCOUNT"]
    assert (found["asked"]["amount"], found["stores"][1]["transferId"]) == ("90.00", None)
    unpaid = await desk.ok("GET", f"/disbursements/runs/{made.id}", query={"verdict": "NO_BANK_ACCOUNT"})
    assert [one["verdict"]["store"] for one in unpaid["stores"]] == ["s2"]
    assert (await desk.ask("GET", f"/disbursements/runs/{made.id}", tenant="another-bank")).status_code == 404
