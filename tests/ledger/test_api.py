"""Questions to the book over HTTP, with tokens of the built-in issuer."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import httpx
import pytest

from hub.money import Money
from hub.settings import TokenSettings
from hub.statements import open_statements
from hub.testing import FakeEngine
from hub.tokens import LocalIssuer, TokenVerifier
from ledger import views
from ledger.api import ledger_app
from ledger.model import STP_SETTLEMENT, AccountKind, AccountRef, Leg
from ledger.service import open_ledger_service
from ledger.settings import APP_ROLE

ANA, BRUNO = AccountRef.customer("ana"), AccountRef.customer("bruno")


def mxn(amount: str) -> Money:
    return Money.parse(amount, "MXN")


def cursor_of(*values: object) -> str:
    return urlsafe_b64encode(json.dumps(values).encode()).decode()


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
    async with (
        open_statements(bank.url, 4, role=APP_ROLE) as statements,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(ledger_app(statements, TokenVerifier(token_settings), {})),
            base_url="http://ledger",
        ) as client,
    ):

        async def get(
            path: str, tenant: str | None = bank.name, role: str = "auditor", **query: str | int
        ) -> httpx.Response:
            headers = {}
            if tenant is not None:
                headers = {"Authorization": f"Bearer {issuer.mint(role, tenant)}"}
            asked = {name.rstrip("_"): value for name, value in query.items()}
            return await client.get(path, params=asked or None, headers=headers)

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


SPAN = "from=2020-01-01T00:00:00Z&to=2190-01-01T00:00:00Z"
YEAR = "from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z"
ROUTES = (
    "/ledger/identifiers/CLABE/646180157000000017",
    "/ledger/accounts/customer-deposit:ana/balances",
    "/ledger/accounts/customer-deposit:ana/holds",
    "/ledger/accounts/customer-deposit:ana/statement?currency=MXN",
    "/ledger/accounts/customer-deposit:ana/past-balances?at=2190-01-01T00:00:00Z",
    f"/ledger/accounts/customer-deposit:ana/turnover?currency=MXN&{YEAR}",
    f"/ledger/accounts/customer-deposit:ana/statement.csv?currency=MXN&{SPAN}",
    "/ledger/payments/p1/transactions",
)
OF_THE_BOOK = ("/ledger/trial-balance", f"/ledger/turnover?{SPAN}", f"/ledger/postings.csv?{SPAN}", "/ledger/holds")


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
    rest = (await ask("/ledger/accounts/customer-deposit:ana/holds", cursor=page["next_cursor"])).json()
    assert [hold["reference"] for hold in rest["holds"]] == ["p3"]
    assert rest["next_cursor"] is None
    everyones = (await ask("/ledger/holds")).json()["holds"]
    assert [(hold["account"], hold["reference"]) for hold in everyones] == [
        ("customer-deposit:ana", "p2"),
        ("customer-deposit:ana", "p3"),
    ]


async def test_a_statement_is_paged_to_its_end(busy, ask):
    await busy.ledger.post(busy.name, "t1", [Leg(STP_SETTLEMENT, ANA, mxn("1"))])
    seen: list[tuple[int, str, str, str]] = []
    on: dict[str, str] = {}
    while True:
        answer = await ask("/ledger/accounts/customer-deposit:ana/statement", currency="MXN", limit=3, **on)
        page = answer.json()
        seen += [(line["sequence"], line["side"], line["amount"], line["balance_after"]) for line in page["entries"]]
        if page["next_cursor"] is None:
            break
        on = {"cursor": page["next_cursor"]}
    assert seen == [
        (4, "C", "1.00", "90.00"),
        (3, "D", "1.00", "89.00"),
        (2, "D", "10.00", "90.00"),
        (1, "C", "100.00", "100.00"),
    ]


async def test_a_cursor_belongs_to_its_question(busy, ask):
    page = (await ask("/ledger/accounts/customer-deposit:ana/statement", currency="MXN", limit=1)).json()
    on = page["next_cursor"]
    assert (await ask("/ledger/accounts/customer-deposit:ana/statement", currency="MXN", cursor=on)).status_code == 200
    assert (await ask("/ledger/accounts/customer-deposit:ana/holds", cursor=on)).status_code == 422
    asked = {"currency": "MXN", "axis": "effective", "cursor": on}
    assert (await ask("/ledger/accounts/customer-deposit:ana/statement", **asked)).status_code == 422


async def test_a_payments_history_is_paged(busy, ask):
    seen: list[str] = []
    on: dict[str, str] = {}
    while True:
        page = (await ask("/ledger/payments/p1/transactions", limit=1, **on)).json()
        seen += [transaction["operation"] for transaction in page["transactions"]]
        if page["next_cursor"] is None:
            break
        on = {"cursor": page["next_cursor"]}
    assert seen == ["p1:hold", "p1:capture"]


async def test_past_balances_are_told_on_either_date(busy, ask):
    long_ago = datetime(2026, 2, 1, tzinfo=UTC)
    await busy.ledger.post(busy.name, "t1", [Leg(STP_SETTLEMENT, ANA, mxn("7"))], effective_at=long_ago)
    route = "/ledger/accounts/customer-deposit:ana/past-balances"

    async def booked(at: str, axis: str) -> str:
        return str((await ask(route, at=at, axis=axis)).json()["balances"][0]["booked"])

    assert await booked("2026-02-01T00:00:00Z", "effective") == "7.00"
    assert await booked("2026-01-31T23:59:59.999999Z", "effective") == "0.00"
    assert await booked("2026-02-01T00:00:00Z", "booked") == "0.00"
    assert (
        await booked("2190-01-01T00:00:00Z", "booked") == await booked("2190-01-01T00:00:00Z", "effective") == "96.00"
    )


async def test_a_statement_of_a_span_lies_between_two_balances(busy, ask):
    await busy.ledger.post(
        busy.name, "t1", [Leg(STP_SETTLEMENT, ANA, mxn("7"))], effective_at=datetime(2026, 2, 1, tzinfo=UTC)
    )
    asked = {"currency": "MXN", "axis": "effective", "from_": "2026-02-02T00:00:00Z", "to": "2190-01-01T00:00:00Z"}
    route = "/ledger/accounts/customer-deposit:ana/statement"
    whole = (await ask(route, **asked)).json()
    assert (whole["opening_balance"], whole["closing_balance"]) == ("7.00", "96.00")
    assert [(entry["sequence"], entry["amount"]) for entry in whole["entries"]] == [
        (3, "1.00"),
        (2, "10.00"),
        (1, "100.00"),
    ]
    first = (await ask(route, limit=2, **asked)).json()
    rest = (await ask(route, limit=2, cursor=first["next_cursor"], **asked)).json()
    assert [*first["entries"], *rest["entries"]] == whole["entries"]
    other = {"axis": "effective", "to": "2026-02-02T00:00:00Z"}
    (only,) = (await ask(route, currency="MXN", **other)).json()["entries"]
    assert (only["operation"], only["amount"]) == ("t1", "7.00")


async def test_a_trial_balance_balances_also_beyond_what_one_account_holds(busy, ask):
    most = Money(2**63 - 1 - 10_000_000, "MXN")
    await busy.ledger.post(busy.name, "t1", [Leg(AccountRef(AccountKind.OPENING_EQUITY), STP_SETTLEMENT, most)])
    await busy.ledger.post(busy.name, "t2", [Leg(AccountRef(AccountKind.SUSPENSE), STP_SETTLEMENT, mxn("1"))])
    for query in ({}, {"at": "2190-01-01T00:00:00Z"}, {"at": "2190-01-01T00:00:00Z", "axis": "effective"}):
        told = (await ask("/ledger/trial-balance", **query)).json()
        (total,) = told["totals"]
        assert total["balanced"] is True
        assert total["debits"] == total["credits"] == "92233720368447870.07"
        lines = {line["kind"]: line for line in told["lines"]}
        assert (lines["customer-deposit"]["balance"], lines["customer-deposit"]["accounts"]) == ("89.00", 3)
        assert lines["fee-income"]["credits"] == "1.00"
    assert (await ask("/ledger/trial-balance", at="2026-01-01T00:00:00Z")).json()["lines"] == []


async def test_turnover_is_told_by_account_and_by_period(busy, ask):  # L86
    seen: list[tuple[str, str, str, str]] = []
    on: dict[str, str] = {}
    span = {"from_": "2020-01-01T00:00:00Z", "to": "2190-01-01T00:00:00Z"}
    while True:
        page = (await ask("/ledger/turnover", limit=2, **span, **on)).json()
        seen += [(one["account"], one["debits"], one["credits"], one["net"]) for one in page["turnovers"]]
        if page["next_cursor"] is None:
            break
        on = {"cursor": page["next_cursor"]}
    assert seen == [
        ("stp-settlement", "0.00", "10.00", "-10.00"),
        ("fee-income", "0.00", "1.00", "1.00"),
        ("opening-equity", "100.00", "0.00", "-100.00"),
        ("customer-deposit:ana", "11.00", "100.00", "89.00"),
    ]
    effective = (await ask("/ledger/turnover", axis="effective", **span)).json()["turnovers"]
    assert [one["account"] for one in effective] == [row[0] for row in seen]
    on_new_years_eve = datetime(2026, 1, 1, 3, tzinfo=UTC)
    await busy.ledger.post(busy.name, "t1", [Leg(STP_SETTLEMENT, ANA, mxn("7"))], effective_at=on_new_years_eve)
    route, axis = "/ledger/accounts/customer-deposit:ana/turnover", "effective"
    asked = {"from_": "2025-12-01T00:00:00Z", "to": "2026-02-01T00:00:00Z", "currency": "MXN", "axis": axis}
    for zone, month in (("UTC", "2026-01-01T00:00:00Z"), ("America/Mexico_City", "2025-12-01T06:00:00Z")):
        ((period),) = (await ask(route, zone=zone, **asked)).json()["periods"]
        assert (period["begins"], period["net"], period["entries"]) == (month, "7.00", 1)
    days = (await ask(route, period="day", zone="America/Mexico_City", **asked)).json()["periods"]
    assert [day["begins"] for day in days] == ["2025-12-31T06:00:00Z"]


async def test_the_service_describes_itself_and_its_examples_are_true(busy, ask):
    described = (await ask("/ledger/openapi.json", role="viewer")).json()
    assert "/ledger/accounts/{account}/past-balances" in described["paths"]
    for name, schema in described["components"]["schemas"].items():
        if "example" in schema:
            getattr(views, name).model_validate(schema["example"])
    shown = [name for name, schema in described["components"]["schemas"].items() if "example" in schema]
    assert len(shown) >= 11
    assert (await ask("/ledger/openapi.json", tenant=None)).status_code == 401


async def test_everything_booked_for_a_payment_is_told_in_order(busy, ask):
    hold, capture = (await ask("/ledger/payments/p1/transactions")).json()["transactions"]
    assert (hold["kind"], hold["postings"], capture["kind"]) == ("hold", [], "capture")
    assert [(leg["debit"], leg["credit"], leg["amount"]) for leg in capture["postings"]] == [
        ("customer-deposit:ana", "stp-settlement", "10.00"),
        ("customer-deposit:ana", "fee-income", "1.00"),
    ]


async def test_another_tenants_objects_are_not_found(busy, ask):  # H16
    for route in ROUTES:
        assert (await ask(route)).status_code == 200
        answer = await ask(route, tenant=f"{busy.name}-other")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found"), route


async def test_of_another_tenants_book_nothing_is_seen(busy, ask):  # H16
    for route in OF_THE_BOOK:
        answer = await ask(route, tenant=f"{busy.name}-other")
        assert answer.status_code == 200
        assert "ana" not in answer.text
        assert "100" not in answer.text


async def test_roles_decide_who_may_ask(busy, ask):
    for route in (*ROUTES, *OF_THE_BOOK):
        whole = ".csv" in route or "trial" in route or (route in OF_THE_BOOK and "holds" not in route)
        expected = {"channel": 403, "viewer": 403 if whole else 200, "operator": 403 if whole else 200, "treasury": 200}
        assert {role: (await ask(route, role=role)).status_code for role in expected} == expected, route


async def test_nobody_is_answered_without_a_token(busy, ask):
    for route in (*ROUTES, *OF_THE_BOOK):
        answer = await ask(route, tenant=None)
        assert (answer.status_code, answer.json()["code"]) == (401, "token-missing"), route


CANNOT_BE_ASKED = (
    ("/ledger/identifiers/FAX/1", 422),
    ("/ledger/identifiers/CLABE/1", 404),
    ("/ledger/accounts/petty-cash:1/balances", 404),
    ("/ledger/accounts/customer-deposit:nobody/balances", 404),
    ("/ledger/accounts/customer-deposit:ana/statement", 422),
    ("/ledger/accounts/customer-deposit:ana/statement?currency=pesos", 422),
    ("/ledger/accounts/customer-deposit:ana/statement?currency=USD", 404),
    ("/ledger/accounts/customer-deposit:ana/statement?currency=MXN&limit=501", 422),
    ("/ledger/accounts/customer-deposit:ana/statement?currency=MXN&cursor=x", 422),
    ("/ledger/accounts/customer-deposit:ana/statement?currency=MXN&cursor=%F0%9F%92%B6", 422),
    (f"/ledger/accounts/customer-deposit:ana/statement?currency=MXN&cursor={cursor_of('?', 2**63)}", 422),
    ("/ledger/accounts/customer-deposit:ana/holds?cursor=" + "W" * 200, 422),
    ("/ledger/accounts/customer-deposit:ana/holds?cursor=" + "A" * 201, 422),
    ("/ledger/accounts/customer-deposit:ana/holds?after=1", 422),
    ("/ledger/accounts/customer-deposit:ana/holds?limit=1&limit=2", 422),
    ("/ledger/accounts/customer-deposit:ana/balances?at=2026-01-01T00:00:00Z", 422),
    ("/ledger/accounts/customer-deposit:ana/past-balances", 422),
    ("/ledger/accounts/customer-deposit:ana/past-balances?at=2026-01-01", 422),
    ("/ledger/accounts/customer-deposit:ana/past-balances?at=2026-01-01T00:00:00", 422),
    ("/ledger/accounts/customer-deposit:ana/past-balances?at=0001-01-01T00:00:00%2B23:59", 422),
    ("/ledger/accounts/customer-deposit:ana/past-balances?at=9999-12-31T23:59:59.999999Z", 422),
    ("/ledger/accounts/customer-deposit:ana/past-balances?at=2026-01-01T00:00:00Z&axis=known", 422),
    ("/ledger/accounts/customer-deposit:ana/turnover?currency=MXN", 422),
    (f"/ledger/accounts/customer-deposit:ana/turnover?currency=MXN&{SPAN}", 422),
    (f"/ledger/accounts/customer-deposit:ana/turnover?currency=MXN&{YEAR}&zone=Mars/Olympus", 422),
    (f"/ledger/accounts/customer-deposit:ana/turnover?currency=MXN&{YEAR}&period=hour", 422),
    (f"/ledger/accounts/customer-deposit:ana/turnover?currency=USD&{YEAR}", 404),
    (f"/ledger/accounts/customer-deposit:ana/statement.csv?currency=USD&{SPAN}", 404),
    (
        "/ledger/accounts/customer-deposit:ana/statement?currency=MXN&from=2027-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        422,
    ),
    ("/ledger/turnover?from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", 422),
    ("/ledger/postings.csv?from=2026-01-01T00:00:00Z", 422),
    ("/ledger/nothing", 404),
    ("/ledger/accounts/customer-deposit:a%00b/balances", 422),
    ("/ledger/payments/p%00/transactions", 422),
    ("/ledger/payments/p9/transactions", 404),
)


async def test_what_cannot_be_asked_is_a_problem_and_never_a_defect(busy, ask):
    for route, status in CANNOT_BE_ASKED:
        answer = await ask(route)
        assert answer.status_code == status, route
        assert answer.headers["content-type"] == "application/problem+json"


async def test_the_service_opens_from_its_settings_and_is_ready(ledger_url, token_settings, monkeypatch):
    monkeypatch.setenv("PAYHUB_LEDGER_DATABASE_URL", ledger_url)
    monkeypatch.setenv("PAYHUB_TOKEN_JWKS_FILE", str(token_settings.jwks_file))
    async with open_ledger_service(FakeEngine()) as service:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger") as client:
            assert (await client.get("/health/ready")).json() == {"status": "ready", "checks": {"database": "ok"}}
        assert len(service.loops) == 3  # expiry, chain, snapshots; Kafka is told only where there is one
    monkeypatch.setenv("PAYHUB_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    async with open_ledger_service(FakeEngine()) as service:
        assert len(service.loops) == 4
