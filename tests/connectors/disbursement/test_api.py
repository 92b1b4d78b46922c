"""Stores, credits, balances and transfers over HTTP: who may do what, what is refused, and what a repeat does."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import BaseModel

from connectors.disbursement import (
    balances_wire,
    credits_wire,
    merchants_wire,
    options_wire,
    reports_api,
    runs_wire,
    transfers_wire,
    wire,
)
from connectors.disbursement.api import disbursement_app
from connectors.disbursement.transfers_wire import TransfersPage
from hub.migrations import migrate
from hub.settings import TokenSettings
from hub.statements import Statements, open_statements
from hub.tokens import LocalIssuer, TokenVerifier
from ledger.disbursement.model import Collected, Outcome, Trigger
from ledger.disbursement.transfers import Transfers
from ledger.seed import Seed, seed
from ledger.settings import APP_ROLE

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTNER, STRANGER = "muebles-app", "someone-else-app"
ACCOUNT = {"clabe": "646180157000000017", "holderName": "Muebles Ñandú SA", "taxId": "MUE010101AAA"}
MERCHANT = {"id": "muebles", "name": "Muebles Ñandú", "taxId": "MUE010101AAA", "partner": PARTNER}
STORE = {"id": "centro", "merchantId": "muebles", "name": "Centro", "frequency": "DAILY", "bankAccount": ACCOUNT}
OPTION = {
    "id": "six",
    "storeId": "centro",
    "code": "6MSI",
    "type": "INTEREST_FREE",
    "active": True,
    "payments": 6,
    "startsAt": "2026-01-01T00:00:00-06:00",
    "endsAt": "2036-01-01T00:00:00-06:00",
    "priority": 1,
    "minAmount": "100.00",
    "maxAmount": "20000.00",
    "merchantCommission": "5.25",
}
DELIVERED = "2026-03-11T12:00:00-06:00"


@pytest.fixture(scope="module")
def database(new_database: Callable[[], str]) -> str:
    url = new_database()
    migrate("ledger.migrations", url)
    migrate("ledger.disbursement.migrations", url)
    return url


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> LocalIssuer:
    return LocalIssuer.open(tmp_path_factory.mktemp("issuer"))


@dataclass
class Lender:
    """A tenant and whoever calls for it. `ask` asserts the status it is told and answers the body."""

    name: str
    statements: Statements
    client: httpx.AsyncClient
    issuer: LocalIssuer

    async def raw(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        role: str = "operator",
        subject: str = "someone",
        tenant: str | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.issuer.mint(role, tenant or self.name, subject)}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        return await self.client.request(method, path, json=body, headers=headers)

    async def ask(self, method: str, path: str, body: object = None, *, status: int = 200, **who: Any) -> Any:
        answer = await self.raw(method, path, body, **who)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def deliver(self, credit: str, key: str, *, status: int = 201, **who: Any) -> Any:
        body = {"creditId": credit, "deliveredAt": DELIVERED}
        who = {"role": "partner", "subject": PARTNER, **who}
        return await self.ask("POST", "/deliveries", body, status=status, key=key, **who)

    async def open(self) -> None:
        """A merchant with a store that may be paid."""
        await self.ask("POST", "/merchants", MERCHANT, status=201)
        added = await self.ask("POST", "/stores", STORE, status=201)
        await self.ask("POST", "/options", OPTION, status=201)
        account = added["bankAccount"]["id"]
        await self.ask("POST", f"/stores/centro/bank-accounts/{account}/authentication", role="treasury")
        for what in ("options/six", "stores/centro", "merchants/muebles"):
            await self.ask("POST", f"/{what}/validation", role="treasury")

    async def sign(self, credit: str, amount: str = "1000.00") -> Any:
        body = {"id": credit, "storeId": "centro", "amount": amount, "payments": 6}
        return await self.ask("POST", "/credits", body, status=201)

    async def collected(self) -> str:
        made = await Transfers(self.statements).collect(self.name, "centro", str(uuid.uuid4()), Trigger.DAILY)
        assert isinstance(made, Collected)
        return made.transfer.id


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(database, issuer, tmp_path_factory) -> AsyncIterator[tuple[Statements, httpx.AsyncClient]]:
    """One application for all tests, since describing sixty routes takes a while."""
    keys = tmp_path_factory.mktemp("keys") / "jwks.json"
    keys.write_text(json.dumps(issuer.jwks()))
    async with open_statements(database, 8, role=APP_ROLE) as statements:
        app = disbursement_app(statements, TokenVerifier(TokenSettings(jwks_file=keys)), {})
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://disbursement") as client:
            yield statements, client


@pytest_asyncio.fixture(loop_scope="module")
async def bare(database, issuer, served) -> Lender:
    """A lender without merchants."""
    name = f"lender-{uuid.uuid4().hex[:8]}"
    await seed(database, Seed.model_validate({"tenants": [{"id": name}]}))
    statements, client = served
    return Lender(name, statements, client, issuer)


@pytest_asyncio.fixture(loop_scope="module")
async def lender(bare):
    """A lender whose one store may be paid."""
    await bare.open()
    return bare


# --- Deliveries ---------------------------------------------------------------------------------------------------


async def test_a_delivery_makes_a_contribution_net_of_the_commission(lender):  # L6, L7
    signed = await lender.sign("c1")
    assert (signed["commission"], signed["net"], signed["approved"]) == ("52.50", "947.50", True)
    booked = await lender.deliver("c1", "k1")
    assert (booked["type"], booked["effect"], booked["newBalance"]) == ("CONTRIBUTION", "947.50", "947.50")
    balance = await lender.ask("GET", "/stores/centro/balance", role="partner", subject=PARTNER)
    assert (balance["balance"], balance["pending"], balance["pendingUpdates"]) == ("947.50", "947.50", 1)
    assert isinstance(booked["updateId"], str)


async def test_the_same_key_and_body_are_done_once_and_answered_the_same(lender):  # L6
    await lender.sign("c1")
    body = {"creditId": "c1", "deliveredAt": DELIVERED}
    answers = [
        await lender.raw("POST", "/deliveries", body, role="partner", subject=PARTNER, key="k1") for _ in range(3)
    ]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true", "true"]
    assert (await lender.ask("GET", "/stores/centro/balance"))["balance"] == "947.50"


async def test_ten_at_once_under_one_key_make_one_contribution(lender):  # L6, L31
    await lender.sign("c1")
    answers = await asyncio.gather(*(lender.deliver("c1", "k1") for _ in range(10)))
    assert len({answer["updateId"] for answer in answers}) == 1
    assert len((await lender.ask("GET", "/stores/centro/updates"))["updates"]) == 1


async def test_a_key_with_another_body_is_refused_and_a_second_key_for_the_credit_too(lender):  # L6
    await lender.sign("c1")
    await lender.sign("c2")
    await lender.deliver("c1", "k1")
    assert (await lender.deliver("c2", "k1", status=422))["code"] == "key-reused"
    twice = await lender.deliver("c1", "k2", status=409)
    assert twice["code"] == "already-contributed"
    assert "nothing is to be done" in twice["detail"]
    assert (await lender.ask("GET", "/stores/centro/balance"))["balance"] == "947.50"
    await lender.deliver("c2", "k1", subject="backoffice", role="operator")  # a key belongs to its caller


async def test_every_notification_is_logged_before_it_is_handled(lender):  # L34
    await lender.sign("c1")
    await lender.deliver("c1", "k1")
    await lender.deliver("c1", "k1")
    await lender.deliver("c1", "k2", status=409)
    await lender.deliver("c9", "k3", status=404)
    reason = {"reason": "goods came back"}
    for _ in range(2):
        await lender.ask("POST", "/credits/c1/cancellation", reason, status=201, subject="ana", key="k4")
    rows = await lender.statements.rows(
        "SELECT e.event_id, e.payload ->> 'by', o.outcome FROM disbursement.event_log e "
        "JOIN disbursement.event_outcome o ON o.event_id = e.id WHERE e.tenant_id = %(tenant)s ORDER BY e.id",
        {"tenant": lender.name},
    )
    assert rows == [
        ("c1", PARTNER, "handled"),
        ("c1", PARTNER, "repeated"),
        ("c1", PARTNER, "refused"),
        ("c9", PARTNER, "refused"),
        ("c1", "ana", "handled"),
        ("c1", "ana", "repeated"),
    ]


async def test_a_credit_of_somebody_else_looks_like_one_that_never_was(lender):
    await lender.sign("c1")
    stranger = await lender.deliver("c1", "k1", status=404, subject=STRANGER)
    nobody = await lender.deliver("c9", "k2", status=404)
    assert stranger == nobody
    assert (await lender.deliver("c1", "k3", status=404, tenant="another"))["code"] == "credit-unknown"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"creditId": "c1"}, {"pointer": "/deliveredAt", "code": "missing"}),
        ({"creditId": "c1", "deliveredAt": "yesterday"}, {"pointer": "/deliveredAt"}),
        ({"creditId": "c1", "deliveredAt": "2026-03-11T12:00:00"}, {"pointer": "/deliveredAt"}),
        ({"creditId": "c1", "deliveredAt": "2199-03-11T12:00:00Z"}, {"pointer": "/deliveredAt"}),
        ({"creditId": "../c1", "deliveredAt": DELIVERED}, {"pointer": "/creditId", "code": "not-valid"}),
        ({"creditId": "c1", "deliveredAt": DELIVERED, "amount": "1"}, {"pointer": "/amount", "code": "unknown-field"}),
    ],
)
async def test_a_delivery_that_says_too_little_or_nonsense_names_the_field(lender, body, fault):
    problem = await lender.ask("POST", "/deliveries", body, status=422, role="partner", subject=PARTNER, key="k")
    assert fault.items() <= problem["errors"][0].items()
    missing = await lender.ask("POST", "/deliveries", body, status=422, role="partner", subject=PARTNER)
    assert {"header": "Idempotency-Key"}.items() <= missing["errors"][0].items()


# --- Who may do what ----------------------------------------------------------------------------------------------

WRITES = {
    ("POST", "/merchants"): {"operator", "treasury"},
    ("PATCH", "/merchants/muebles"): {"operator", "treasury"},
    ("PUT", "/merchants/muebles/automation"): {"operator", "treasury"},
    ("PUT", "/merchants/muebles/standard-commission"): {"operator", "treasury"},
    ("POST", "/merchants/muebles/validation"): {"treasury"},
    ("POST", "/stores"): {"operator", "treasury"},
    ("PATCH", "/stores/centro"): {"operator", "treasury"},
    ("POST", "/stores/centro/validation"): {"treasury"},
    ("POST", "/stores/centro/bank-accounts"): {"operator", "treasury"},
    ("POST", "/stores/centro/bank-accounts/1/authentication"): {"operator", "treasury"},
    ("PUT", "/stores/centro/standard-commission"): {"operator", "treasury"},
    ("POST", "/stores/centro/adjustments"): {"treasury"},  # L11
    ("POST", "/options"): {"operator", "treasury"},
    ("PATCH", "/options/six"): {"operator", "treasury"},
    ("POST", "/options/six/validation"): {"treasury"},
    ("PUT", "/commission-schedule"): {"treasury"},
    ("POST", "/credits"): {"operator", "treasury"},
    ("POST", "/credits/c1/cancellation"): {"operator", "partner"},
    ("PUT", "/credits/c1/amount"): {"operator", "treasury"},
    ("POST", "/deliveries"): {"operator", "partner"},
    ("POST", "/transfers/0/confirmation"): {"treasury"},  # L23
    ("POST", "/transfers/0/cancellation"): {"treasury"},
    ("PUT", "/schedules/DAILY"): {"treasury"},
    ("POST", "/runs"): {"operator", "treasury"},
    ("PUT", "/merchants/muebles/report-address"): {"treasury"},
}


async def test_each_write_is_open_to_its_roles_and_to_no_other(bare):  # L52, L57
    for (method, path), roles in WRITES.items():
        for role in ("partner", "auditor", "operator", "treasury"):
            answer = await bare.raw(method, path, {}, role=role)
            refused = answer.status_code == 403
            assert refused is (role not in roles), (method, path, role, answer.text)
    assert (await bare.client.post("/deliveries", json={})).status_code == 401
    described = (await bare.ask("GET", "/openapi.json", role="partner"))["paths"]
    writes = {(verb.upper(), path) for path, verbs in described.items() for verb in verbs if verb != "get"}
    assert len(writes) == len(WRITES), "a write that the table above does not name"


READS = (
    "/merchants/muebles",
    "/merchants/muebles/stores",
    "/stores/centro",
    "/stores/centro/options",
    "/stores/centro/offers?amount=500.00",
    "/stores/centro/credits",
    "/stores/centro/balance",
    "/stores/centro/updates",
    "/stores/centro/verdict",
    "/options/six",
    "/credits/c1",
    "/credits/c1/updates",
    "/transfers?store=centro",
    "/transfers?merchant=muebles",
)
FOR_STAFF = (
    "/merchants/muebles/edits",
    "/stores/centro/edits",
    "/options/six/edits",
    "/credits/c1/computations",
    "/commission-schedule",
    "/verdicts",
    "/schedules",
    "/runs",
)


async def test_a_partner_reads_its_own_and_finds_nothing_of_another_partner_or_tenant(lender):
    await lender.sign("c1")
    await lender.deliver("c1", "k1")
    transfer = await lender.collected()
    for path in (*READS, *(f"/transfers/{transfer}{part}" for part in ("", "/items", "/history"))):
        await lender.ask("GET", path, role="partner", subject=PARTNER)
        await lender.ask("GET", path, role="viewer")
        await lender.ask("GET", path, role="partner", subject=STRANGER, status=404)
        await lender.ask("GET", path, role="treasury", tenant="another", status=404)
        await lender.ask("GET", path, role="channel", status=403)
    for path in (*FOR_STAFF, f"/transfers/{transfer}/events"):
        await lender.ask("GET", path, role="auditor")
        await lender.ask("GET", path, role="partner", subject=PARTNER, status=403)
    mine = await lender.ask("GET", "/merchants", role="partner", subject=PARTNER)
    assert [one["id"] for one in mine["merchants"]] == ["muebles"]
    assert (await lender.ask("GET", "/merchants", role="partner", subject=STRANGER))["merchants"] == []
    for subject, stores in ((PARTNER, ["centro"]), (STRANGER, [])):
        found = await lender.ask("GET", "/stores?frequency=DAILY", role="partner", subject=subject)
        assert [one["id"] for one in found["stores"]] == stores
    assert (await lender.ask("GET", "/stores?frequency=WEEKLY", role="viewer"))["stores"] == []
    nameless = await lender.ask("GET", "/transfers", role="partner", subject=PARTNER, status=422)
    assert nameless["errors"][0]["parameter"] == "merchant"


async def test_who_is_staff_elsewhere_is_still_a_partner_where_partners_act(lender):
    await lender.sign("c1")
    body = {"creditId": "c1", "deliveredAt": DELIVERED}
    token = lender.issuer.mint(["partner", "viewer"], lender.name, STRANGER)
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
    assert (await lender.client.post("/deliveries", json=body, headers=headers)).status_code == 404


# --- Merchants, stores, options -------------------------------------------------------------------------------------


async def test_validation_over_http_goes_up_the_chain_and_an_edit_takes_it_back(lender):  # L52, L53
    assert (await lender.ask("GET", "/merchants/muebles"))["validated"]
    edited = await lender.ask("PATCH", "/options/six", {"priority": 2})
    assert (edited["priority"], edited["validated"], edited["payments"]) == (2, False, 6)
    assert not (await lender.ask("GET", "/stores/centro"))["validated"]
    assert not (await lender.ask("GET", "/merchants/muebles"))["validated"]
    early = await lender.ask("POST", "/merchants/muebles/validation", role="treasury", status=409)
    assert early["code"] == "nothing-validated-below"
    edits = (await lender.ask("GET", "/options/six/edits"))["edits"]
    assert (edits[0]["before"]["priority"], edits[0]["after"]["priority"]) == (1, 2)
    refused = await lender.ask("POST", "/credits", {"id": "c1", "storeId": "centro", "amount": "500.00"}, status=409)
    assert refused["code"] == "not-validated"  # L54
    assert (await lender.ask("GET", "/stores/centro/offers?amount=500.00"))["options"] == []


async def test_a_list_of_stores_shows_each_with_its_newest_account(lender):  # L55
    await lender.ask("POST", "/stores", {**STORE, "id": "norte"}, status=201)
    other = {**ACCOUNT, "clabe": "012180001183597198"}
    await lender.ask("POST", "/stores/centro/bank-accounts", other, status=201)
    listed = (await lender.ask("GET", "/stores"))["stores"]
    assert listed == [await lender.ask("GET", f"/stores/{name}") for name in ("centro", "norte")]
    assert [one["bankAccount"]["clabe"] for one in listed] == [other["clabe"], ACCOUNT["clabe"]]


async def test_adding_the_same_again_changes_nothing_and_something_else_is_refused(lender):  # L51
    for path, body in (("/merchants", MERCHANT), ("/stores", STORE), ("/options", OPTION)):
        again = await lender.raw("POST", path, body)
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
        assert again.json()["validated"]
        changed = {**body, **({"name": "Other"} if "name" in body else {"payments": 3})}
        assert (await lender.ask("POST", path, changed, status=409))["code"] == "already-exists"


@pytest.mark.parametrize(
    ("path", "changes", "pointer"),
    [
        ("/merchants", {"id": "m 2"}, "/id"),
        ("/merchants", {"id": "m2", "name": "=SUM(A1)"}, "/name"),
        ("/merchants", {"id": "m2", "taxId": "short"}, "/taxId"),
        ("/stores", {"id": "s2", "bankAccount": {**ACCOUNT, "clabe": "646180157000000018"}}, "/bankAccount/clabe"),
        ("/stores", {"id": "s2", "bankAccount": None}, "/bankAccount"),
        ("/stores", {"id": "s2", "frequency": "YEARLY"}, "/frequency"),
        ("/stores", {"id": "s2", "minimumAmount": 10.5}, "/minimumAmount"),
        ("/options", {"id": "o2", "merchantCommission": "100.01"}, "/merchantCommission"),
        ("/options", {"id": "o2", "rates": {"d4": "1.00"}}, "/rates/d4/[key]"),
        ("/options", {"id": "o2", "endsAt": "2025-01-01T00:00:00Z"}, ""),
        ("/options", {"id": "o2", "trial": True}, ""),
    ],
)
async def test_what_cannot_be_is_refused_with_the_field_named(bare, path, changes, pointer):
    bodies: dict[str, dict[str, Any]] = {"/merchants": MERCHANT, "/stores": STORE, "/options": OPTION}
    body = bodies[path]
    problem = await bare.ask("POST", path, {**body, **changes}, status=422)
    assert pointer in [fault["pointer"] for fault in problem["errors"]], problem


async def test_an_edit_that_contradicts_itself_is_refused(lender):
    assert (await lender.ask("PATCH", "/options/six", {"minAmount": "30000.00"}, status=422))["code"] == "not-valid"
    assert (await lender.ask("GET", "/options/six"))["validated"]


async def test_standards_and_steps_are_set_and_told(lender):  # L46
    steps = {"steps": [{"of": "ORIGINATION", "atLeast": "1000.00", "change": "-0.50"}]}
    assert await lender.ask("PUT", "/commission-schedule", steps, role="treasury") == steps
    assert await lender.ask("GET", "/commission-schedule") == steps
    await lender.ask("PUT", "/merchants/muebles/standard-commission", {"rate": "4.75"}, status=204)
    await lender.ask("PUT", "/stores/centro/standard-commission", {"rate": "4.50"}, status=204)
    (edit, *_) = (await lender.ask("GET", "/stores/centro/edits"))["edits"][1:]
    assert edit["after"] == {"standard": 450}
    bad = {"steps": [{"of": "PAYMENTS", "atLeast": "1.5", "change": "1"}]}
    await lender.ask("PUT", "/commission-schedule", bad, role="treasury", status=422)


async def test_credits_say_how_their_commission_came_about(lender):  # L57
    await lender.sign("c1")
    (made,) = (await lender.ask("GET", "/credits/c1/computations"))["computations"]
    assert (made["kind"], made["result"]["basis_points"], made["result"]["amount"]) == ("SIGNATURE", 525, 5250)


# --- Balances and transfers ---------------------------------------------------------------------------------------


async def test_a_cancellation_may_drive_the_balance_below_zero(lender):  # L10
    await lender.sign("c1")
    await lender.deliver("c1", "k1")
    await Transfers(lender.statements).record_sent(lender.name, paid := await lender.collected())
    await Transfers(lender.statements).record_outcome(lender.name, paid, Outcome.SETTLED)
    reason = {"reason": "goods came back"}
    for _ in range(2):
        booked = await lender.ask(
            "POST", "/credits/c1/cancellation", reason, status=201, role="partner", subject=PARTNER, key="k2"
        )
        assert (booked["effect"], booked["newBalance"]) == ("-947.50", "-947.50")
    verdict = await lender.ask("GET", "/stores/centro/verdict")
    assert (verdict["verdict"], verdict["total"]) == ("NEGATIVE_TOTAL", "-947.50")  # L29
    assert "later contributions" in verdict["explanation"]
    again = await lender.ask("POST", "/credits/c1/cancellation", reason, status=409, key="k3")
    assert again["code"] == "already-overwritten"


async def test_another_amount_undoes_the_contribution_and_makes_a_new_one(lender):  # L17
    await lender.sign("c1")
    await lender.deliver("c1", "k1")
    changed = await lender.ask("PUT", "/credits/c1/amount", {"amount": "800.00"}, key="k2")
    assert (changed["commission"], changed["cancellation"]["effect"], changed["contribution"]["effect"]) == (
        "42.00",
        "-947.50",
        "758.00",
    )
    assert await lender.ask("PUT", "/credits/c1/amount", {"amount": "800.00"}, key="k2") == changed
    credit = await lender.ask("GET", "/credits/c1")
    assert (credit["amount"], credit["net"], credit["contributed"]) == ("800.00", "758.00", True)


@pytest.mark.parametrize("effect", ["0", "1.234", "-", "1e3", 5, "99999999999999999999"])
async def test_an_adjustment_that_is_no_amount_is_refused(lender, effect):  # L11
    body = {"effect": effect, "reason": "ticket"}
    problem = await lender.ask("POST", "/stores/centro/adjustments", body, role="treasury", key="k", status=422)
    assert problem["errors"][0]["pointer"] == "/effect"


async def test_treasury_adjusts_with_a_reason_once_per_key(lender):  # L11
    for reason in ("", "   ", "a\nb"):
        body = {"effect": "-5.00", "reason": reason}
        problem = await lender.ask("POST", "/stores/centro/adjustments", body, role="treasury", key="k", status=422)
        assert problem["errors"][0]["pointer"] == "/reason"
    body = {"effect": "-5.00", "reason": "ticket 7"}
    for _ in range(2):
        booked = await lender.ask("POST", "/stores/centro/adjustments", body, role="treasury", key="k1", status=201)
        assert (booked["effect"], booked["newBalance"]) == ("-5.00", "-5.00")
    (update,) = (await lender.ask("GET", "/stores/centro/updates"))["updates"]
    assert (update["reason"], update["actor"], update["type"]) == ("ticket 7", "someone", "BALANCE_ADJUSTMENT")
    history = await lender.ask("GET", f"/updates/{update['id']}/history")
    assert [one["status"] for one in history["statuses"]] == ["PENDING"]


async def test_treasury_confirms_or_cancels_what_waits(lender):  # L23
    await lender.ask("PATCH", "/stores/centro", {"manualConfirmation": True})
    for what in ("stores/centro", "merchants/muebles"):
        await lender.ask("POST", f"/{what}/validation", role="treasury")
    await lender.sign("c1")
    await lender.deliver("c1", "k1")
    first = await lender.collected()
    shown = await lender.ask("GET", f"/transfers/{first}")
    assert (shown["status"], shown["mustWait"], shown["amount"]) == ("WAITING_FOR_CONFIRMATION", True, "947.50")
    open_ = await lender.ask("PATCH", "/stores/centro", {"name": "Sur"}, status=409)
    assert open_["code"] == "transfer-open"
    await lender.ask("POST", f"/transfers/{first}/cancellation", {}, role="treasury", status=422)
    for _ in range(2):
        body = {"reason": "wrong account"}
        stopped = await lender.ask("POST", f"/transfers/{first}/cancellation", body, role="treasury")
        assert (stopped["status"], stopped["mustWait"]) == ("CANCELLED", False)
    second = await lender.collected()
    done = await lender.ask("POST", f"/transfers/{second}/confirmation", role="treasury", subject="ana")
    assert (done["confirmedBy"], done["mustWait"]) == ("ana", False)
    late = await lender.ask("POST", f"/transfers/{first}/confirmation", role="treasury", status=409)
    assert late["code"] == "transition-refused"
    items = await lender.ask("GET", f"/transfers/{first}/items")
    assert items["items"][0]["releasedAt"] is not None  # L19
    history = await lender.ask("GET", f"/transfers/{first}/history")
    assert [one["status"] for one in history["statuses"]] == ["WAITING_FOR_CONFIRMATION", "CANCELLED"]  # L13
    await lender.ask("POST", f"/transfers/{uuid.uuid4()}/confirmation", role="treasury", status=404)


async def test_automation_is_switched_off_and_on_over_http(lender):  # L30
    await lender.sign("c1")
    await lender.deliver("c1", "k1")
    await lender.ask("PUT", "/merchants/muebles/automation", {"enabled": False})
    (off,) = (await lender.ask("GET", "/verdicts?frequency=DAILY"))["verdicts"]
    assert off["verdict"] == "AUTOMATION_OFF"
    await lender.ask("PUT", "/merchants/muebles/automation", {"enabled": True})
    assert (await lender.ask("GET", "/stores/centro/verdict"))["verdict"] == "PAY"
    await lender.ask("PUT", "/merchants/muebles/automation", {"enabled": "no"}, status=422)


async def test_a_run_is_asked_for_and_read(lender):  # L26
    asked = await lender.ask("POST", "/runs", {"frequency": "DAILY"}, status=202, subject="ana")
    assert asked["requestedBy"] == "ana"
    listed = (await lender.ask("GET", "/runs"))["runs"]
    assert [one["id"] for one in listed] == [asked["id"]]
    found = await lender.ask("GET", f"/runs/{asked['id']}")
    assert (found["closedAt"], found["verdicts"], found["asked"]) == (None, {}, "0.00")
    assert (await lender.ask("GET", f"/runs/{asked['id']}/stores"))["stores"] == []
    await lender.ask("GET", f"/runs/{asked['id']}", tenant="another", status=404)
    line = {"cron": "15 7 * * *", "timeZone": "America/Tijuana"}
    set_now = await lender.ask("PUT", "/schedules/DAILY", line, role="treasury")
    assert set_now["setBy"] == "someone"
    schedules = (await lender.ask("GET", "/schedules"))["schedules"]
    assert {one["frequency"]: one["cron"] for one in schedules}["DAILY"] == "15 7 * * *"
    bad = await lender.ask("PUT", "/schedules/DAILY", {**line, "cron": "often"}, role="treasury", status=422)
    assert bad["code"] == "schedule-not-allowed"


# --- Pages and description ------------------------------------------------------------------------------------------


async def walked(lender: Lender, path: str, name: str, read: Callable[[Any], Any]) -> list[Any]:
    found, cursor = [], ""
    while True:
        page = await lender.ask("GET", f"{path}?limit=2{cursor}")
        found += [read(one) for one in page[name]]
        if not page["nextCursor"]:
            return found
        cursor = f"&cursor={page['nextCursor']}"


async def test_lists_are_read_on_page_by_page(lender):
    for number in range(5):
        await lender.sign(f"c{number}")
        await lender.deliver(f"c{number}", f"k{number}")
    assert await walked(lender, "/stores/centro/credits", "credits", lambda one: one["id"]) == [
        f"c{number}" for number in range(5)
    ]
    assert await walked(lender, "/stores/centro/updates", "updates", lambda one: one["sequence"]) == [5, 4, 3, 2, 1]
    transfer = await lender.collected()
    path = f"/transfers/{transfer}/items"
    assert await walked(lender, path, "items", lambda one: one["creditId"]) == [f"c{number}" for number in range(5)]
    page = await lender.ask("GET", "/stores/centro/credits?limit=2")
    for wrong in (
        f"/stores/centro/options?cursor={page['nextCursor']}",
        "/stores/centro/credits?cursor=AAAA",
        "/stores/centro/credits?limit=0",
        "/stores/centro/credits?offset=3",
    ):
        assert (await lender.ask("GET", wrong, status=422))["errors"][0]["parameter"]


async def test_every_operation_is_described_with_examples(bare):
    await bare.ask("GET", "/stores?offset=3", status=422)  # a list looks at the description for what it knows
    description = await bare.ask("GET", "/openapi.json", role="partner")
    schemas = description["components"]["schemas"]
    for path, verbs in description["paths"].items():
        for verb, operation in verbs.items():
            assert operation.get("summary"), (verb, path)
            body = operation.get("requestBody")
            if body:
                name = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
                assert "example" in schemas[name] or "examples" in schemas[name], (verb, path, name)
            for status, answer in operation["responses"].items():
                for kind, content in answer.get("content", {}).items():
                    named = content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
                    shown = content.keys() & {"example", "examples"} or schemas.get(named, {}).keys() & {"example"}
                    assert shown or path == "/openapi.json", (verb, path, status)
                    assert (kind == "application/problem+json") is (status >= "400"), (verb, path, status)
            answers = operation["responses"].values()
            contents = [content for answer in answers for content in answer.get("content", {}).values()]
            codes = {code for content in contents for code in content.get("examples", {})}
            assert {"token-missing", "role-missing"} <= codes, (verb, path)
    delivery = description["paths"]["/deliveries"]["post"]["responses"]
    assert {"201", "400", "401", "403", "404", "409", "413", "422", "503"} == set(delivery)
    assert {"already-contributed", "no-commission"} <= set(
        delivery["409"]["content"]["application/problem+json"]["examples"]
    )
    assert "key-reused" in delivery["422"]["content"]["application/problem+json"]["examples"]
    page = description["paths"]["/transfers"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    assert TransfersPage.model_validate(page).transfers[0].amount == "1184.38"
    modules = (balances_wire, credits_wire, merchants_wire, options_wire, reports_api, runs_wire, transfers_wire, wire)
    named = [each for module in modules for each in vars(module).values()]
    for model in {each for each in named if isinstance(each, type) and issubclass(each, BaseModel)}:
        extra = model.model_config.get("json_schema_extra")
        example = extra.get("example") if isinstance(extra, dict) else None
        if example is not None:
            assert model.model_validate(example), model  # an example that would be refused misleads
