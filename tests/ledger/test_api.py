"""Questions to the book over HTTP, with tokens of the built-in issuer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from hub.money import Money
from hub.settings import TokenSettings
from hub.testing import FakeEngine
from hub.tokens import LocalIssuer, TokenVerifier
from ledger.api import ledger_app
from ledger.model import STP_SETTLEMENT, AccountRef, Leg
from ledger.service import open_ledger_service

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> LocalIssuer:
    return LocalIssuer.open(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def token_settings(issuer, tmp_path) -> TokenSettings:
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps(issuer.jwks()))
    return TokenSettings(jwks_file=keys)


@pytest.fixture
async def ask(bank, issuer, token_settings) -> AsyncIterator[Callable[..., object]]:
    app = ledger_app(bank.queries, TokenVerifier(token_settings), {})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ledger") as client:

        async def get(path: str, tenant: str | None = bank.name, **query: str | int) -> httpx.Response:
            headers = {}
            if tenant is not None:
                token = issuer.mint("viewer", tenant)
                headers = {"Authorization": f"Bearer {token}"}
            return await client.get(path, params=query or None, headers=headers)

        yield get


@pytest.fixture
async def busy(bank):
    await bank.open(
        {
            "id": "ana",
            "opening_balance": "100.00",
            "holder_name": "Ana Prueba",
            "identifiers": [{"type": "CLABE", "value": "646180157000000017"}],
        },
        {"id": "bruno", "status": "frozen", "identifiers": [{"type": "MSISDN", "value": "2"}]},
        {"id": "shut", "status": "closed", "identifiers": [{"type": "MSISDN", "value": "3"}]},
    )
    await bank.ledger.hold(bank.name, "p1:hold", ANA, mxn("10"), mxn("1"), reference="p1")
    await bank.ledger.capture(bank.name, "p1:hold", "p1:capture", STP_SETTLEMENT)
    await bank.ledger.hold(bank.name, "p2:hold", ANA, mxn("20"), mxn("1"), reference="p2")
    return bank


ROUTES = (
    "/ledger/identifiers/CLABE/646180157000000017",
    "/ledger/accounts/customer-deposit:ana/balances",
    "/ledger/accounts/customer-deposit:ana/holds",
    "/ledger/accounts/customer-deposit:ana/statement?currency=MXN",
    "/ledger/payments/p1/transactions",
)


async def test_an_account_is_found_by_its_identifier(busy, ask):
    answer = await ask("/ledger/identifiers/CLABE/646180157000000017")
    assert answer.json() == {
        "account": "customer-deposit:ana",
        "currency": "MXN",
        "holder_name": "Ana Prueba",
        "status": "open",
    }
    statuses = [(await ask(f"/ledger/identifiers/MSISDN/{number}")).json()["status"] for number in "23"]
    assert statuses == ["debits-frozen", "closed"]


async def test_a_balance_is_told_in_decimal_strings(busy, ask):
    answer = await ask("/ledger/accounts/customer-deposit:ana/balances")
    assert answer.json()["balances"] == [
        {"currency": "MXN", "booked": "89.00", "held": "21.00", "available": "68.00", "sequence": 3}
    ]
    assert (await ask("/ledger/accounts/stp-settlement/balances")).json()["balances"][0]["booked"] == "-10.00"


async def test_open_holds_are_listed_and_read_on(busy, ask):
    await busy.ledger.hold(busy.name, "p3:hold", ANA, mxn("1"), reference="p3")
    page = (await ask("/ledger/accounts/customer-deposit:ana/holds", limit=1)).json()
    assert [(hold["reference"], hold["amount"], hold["fee"]) for hold in page["holds"]] == [("p2", "21.00", "1.00")]
    rest = (await ask("/ledger/accounts/customer-deposit:ana/holds", after=page["next_after"])).json()
    assert [hold["reference"] for hold in rest["holds"]] == ["p3"]
    assert rest["next_after"] is None


async def test_a_statement_is_paged_to_its_end(busy, ask):
    await busy.ledger.post(busy.name, "t1", [Leg(STP_SETTLEMENT, ANA, mxn("1"))])
    seen: list[tuple[int, str, str, str]] = []
    before: dict[str, int] = {}
    while True:
        answer = await ask("/ledger/accounts/customer-deposit:ana/statement", currency="MXN", limit=3, **before)
        page = answer.json()
        seen += [(line["sequence"], line["side"], line["amount"], line["balance_after"]) for line in page["entries"]]
        if page["next_before"] is None:
            break
        before = {"before": page["next_before"]}
    assert seen == [
        (4, "C", "1.00", "90.00"),
        (3, "D", "1.00", "89.00"),
        (2, "D", "10.00", "90.00"),
        (1, "C", "100.00", "100.00"),
    ]


async def test_everything_booked_for_a_payment_is_told_in_order(busy, ask):
    hold, capture = (await ask("/ledger/payments/p1/transactions")).json()["transactions"]
    assert (hold["kind"], hold["postings"], capture["kind"]) == ("hold", [], "capture")
    assert [(leg["debit"], leg["credit"], leg["amount"]) for leg in capture["postings"]] == [
        ("customer-deposit:ana", "stp-settlement", "10.00"),
        ("customer-deposit:ana", "fee-income", "1.00"),
    ]


@pytest.mark.parametrize("route", ROUTES)
async def test_another_tenants_objects_are_not_found(busy, ask, route):  # H16
    assert (await ask(route)).status_code == 200
    answer = await ask(route, tenant=f"{busy.name}-other")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


@pytest.mark.parametrize("route", ROUTES)
async def test_nobody_is_answered_without_a_token(busy, ask, route):
    answer = await ask(route, tenant=None)
    assert (answer.status_code, answer.json()["code"]) == (401, "token-missing")


@pytest.mark.parametrize(
    ("route", "status"),
    [
        ("/ledger/identifiers/FAX/1", 422),
        ("/ledger/identifiers/CLABE/1", 404),
        ("/ledger/accounts/petty-cash:1/balances", 404),
        ("/ledger/accounts/customer-deposit:nobody/balances", 404),
        ("/ledger/accounts/customer-deposit:ana/statement", 422),
        ("/ledger/accounts/customer-deposit:ana/statement?currency=pesos", 422),
        ("/ledger/accounts/customer-deposit:ana/statement?currency=USD", 404),
        ("/ledger/accounts/customer-deposit:ana/statement?currency=MXN&limit=501", 422),
        ("/ledger/accounts/customer-deposit:ana/statement?currency=MXN&before=0", 422),
        (f"/ledger/accounts/customer-deposit:ana/statement?currency=MXN&before={2**63}", 422),
        ("/ledger/accounts/customer-deposit:ana/holds?after=-1", 422),
        ("/ledger/accounts/customer-deposit:a%00b/balances", 422),
        ("/ledger/payments/p%00/transactions", 422),
        ("/ledger/payments/p9/transactions", 404),
    ],
)
async def test_what_cannot_be_asked_is_a_problem_and_never_a_defect(busy, ask, route, status):
    answer = await ask(route)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_service_opens_from_its_settings_and_is_ready(ledger_url, token_settings, monkeypatch):
    monkeypatch.setenv("PAYHUB_LEDGER_DATABASE_URL", ledger_url)
    monkeypatch.setenv("PAYHUB_TOKEN_JWKS_FILE", str(token_settings.jwks_file))
    async with open_ledger_service(FakeEngine()) as service:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger") as client:
            assert (await client.get("/health/ready")).json() == {"status": "ready", "checks": {"database": "ok"}}
        assert len(service.loops) == 1
