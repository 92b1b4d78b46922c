"""Merchants are told their reports, signed and for three days, and may read them again (L56)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url
from standardwebhooks.webhooks import Webhook

from connectors.disbursement.notices import NoticeStore, ReportAddress, open_notices
from connectors.disbursement.reports_api import router
from connectors.disbursement.settings import DisbursementSettings
from hub.addresses import BadAddress
from hub.api import build_app
from hub.migrations import migrate
from hub.settings import TokenSettings
from hub.statements import Statements, open_statements
from hub.tokens import JWKS_FILE, LocalIssuer, TokenVerifier
from hub.webhook import DeliveryState
from ledger.disbursement.balances import Balances
from ledger.disbursement.model import Outcome, Trigger
from ledger.disbursement.refusals import MerchantUnknown
from ledger.disbursement.report import Report, Reports
from ledger.disbursement.transfers import Transfers
from ledger.seed import Seed, seed
from ledger.settings import APP_ROLE

BANK = "lender"
SECRET = "whsec_dGVzdC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcyE="
QUICK = DisbursementSettings(notice_look_every=0.02, notice_first_pause=0.05)


@dataclass
class Receiver:
    """A merchant's application: answers with these statuses in turn, then with 204."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        self.heard.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(f"HTTP/1.1 {self.answers.pop(0) if self.answers else 204} X\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@dataclass
class Merchant:
    """A merchant with one store, and the parts that tell it."""

    id: str
    statements: Statements
    url: str

    @property
    def notices(self) -> NoticeStore:
        return NoticeStore(self.statements)

    def sql(self, statement: str, *values: object) -> list[Any]:
        plain = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    async def told_at(self, url: str | None) -> None:
        address = ReportAddress(url, SECRET if url else None, (url,) if url else ())
        await self.notices.set_address(BANK, self.id, address, actor="treasury-1")

    async def paid(self, outcome: Outcome = Outcome.SETTLED) -> list[Report]:
        """A credit is delivered, paid and reported."""
        credit, transfer = f"c{uuid.uuid4().hex[:8]}", str(uuid.uuid4())
        self.sql(
            "INSERT INTO disbursement.credit (tenant_id, id, store_id, amount, commission, signed_at) "
            "VALUES (%s, %s, %s, 100000, 3550, now())",
            *(BANK, credit, self.id),
        )
        await Balances(self.statements).contribute(BANK, credit, operation=credit, actor="partner")
        transfers = Transfers(self.statements)
        await transfers.collect(BANK, self.id, transfer, Trigger.DAILY)
        await transfers.record_sent(BANK, transfer)
        await transfers.record_outcome(BANK, transfer, Outcome.SETTLED)
        if outcome is not Outcome.SETTLED:
            await transfers.record_outcome(BANK, transfer, outcome, reason_detail="account closed")
        return list(await Reports(self.statements).make(BANK, transfer))

    @asynccontextmanager
    async def telling(self, settings: DisbursementSettings = QUICK) -> AsyncIterator[None]:
        async with open_notices(self.statements, settings) as notices:
            loop = asyncio.create_task(notices.run())
            try:
                yield
            finally:
                loop.cancel()
                await asyncio.gather(loop, return_exceptions=True)

    async def until(self, transfer: str, state: DeliveryState) -> tuple[int, list[str]]:
        """Attempts and their answers once the telling of a transfer's last report has come this far."""
        async with asyncio.timeout(10):
            while (told := (await self.notices.how_told(BANK, transfer))[-1]).state is not state:
                await asyncio.sleep(0.02)
        return told.attempts, [one.answer for one in told.answers]


@pytest.fixture(scope="module")
def database(new_database: Callable[[], str]) -> str:
    url = new_database()
    migrate("ledger.migrations", url)
    migrate("ledger.disbursement.migrations", url)
    asyncio.run(seed(url, Seed.model_validate({"tenants": [{"id": BANK, "accounts": []}]})))
    return url


@pytest.fixture
async def merchant(database: str) -> AsyncIterator[Merchant]:
    name = f"m{uuid.uuid4().hex[:10]}"
    async with open_statements(database, 8, role=APP_ROLE) as statements:
        made = Merchant(name, statements, database)
        # What other tests left must not be told here.
        made.sql("UPDATE disbursement.report_delivery SET state = 'GIVEN_UP', ended_at = now() WHERE state = 'DUE'")
        made.sql(
            "INSERT INTO disbursement.merchant (tenant_id, id, name, tax_id, partner, validated) "
            "VALUES (%s, %s, 'Muebles', 'MUE010101AAA', %s, true)",
            *(BANK, name, f"partner-{name}"),
        )
        made.sql(
            "INSERT INTO disbursement.store (tenant_id, id, merchant_id, name, frequency, validated) "
            "VALUES (%s, %s, %s, 'Centro', 'DAILY', true)",
            *(BANK, name, name),
        )
        made.sql(
            "INSERT INTO disbursement.bank_account (tenant_id, store_id, clabe, holder_name, tax_id, authenticated_at, "
            "authenticated_by) VALUES (%s, %s, '646180110400000007', 'Muebles', 'MUE010101AAA', now(), 't')",
            *(BANK, name),
        )
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    listening = Receiver()
    server = await asyncio.start_server(listening.serve, "127.0.0.1", 0)
    async with server:
        listening.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
        yield listening


# --- Telling ------------------------------------------------------------------------------------------------------


async def test_a_report_is_told_as_it_was_kept_until_it_is_taken(merchant: Merchant, receiver: Receiver) -> None:  # L56
    await merchant.told_at(receiver.url)
    receiver.answers = [500, 500]
    (report,) = await merchant.paid()
    async with merchant.telling():
        assert await merchant.until(report.transfer, DeliveryState.DELIVERED) == (3, ["500", "500", "204"])
    assert {body for _, body in receiver.heard} == {report.body.encode()}
    assert {headers["webhook-id"] for headers, _ in receiver.heard} == {f"{report.transfer}-settlement"}
    for headers, body in receiver.heard:
        assert Webhook(SECRET).verify(body, headers) == report.content


async def test_a_correction_is_told_too(merchant: Merchant, receiver: Receiver) -> None:  # L38
    await merchant.told_at(receiver.url)
    reports = await merchant.paid(Outcome.RETURNED)
    async with merchant.telling():
        await merchant.until(reports[0].transfer, DeliveryState.DELIVERED)
        async with asyncio.timeout(10):
            while len(receiver.heard) < 2:
                await asyncio.sleep(0.02)
    assert sorted(body for _, body in receiver.heard) == sorted(report.body.encode() for report in reports)


async def test_a_report_made_twice_is_told_once(merchant: Merchant, receiver: Receiver) -> None:
    await merchant.told_at(receiver.url)
    (report,) = await merchant.paid()
    await asyncio.gather(*(Reports(merchant.statements).make(BANK, report.transfer) for _ in range(4)))
    async with merchant.telling(), merchant.telling():
        await merchant.until(report.transfer, DeliveryState.DELIVERED)
        await asyncio.sleep(0.2)
    assert len(receiver.heard) == 1


async def test_a_mended_address_takes_effect_on_what_is_still_due(merchant: Merchant, receiver: Receiver) -> None:
    await merchant.told_at("http://127.0.0.1:1/hooks")
    (report,) = await merchant.paid()
    async with merchant.telling():
        async with asyncio.timeout(10):
            while not (await merchant.notices.how_told(BANK, report.transfer))[0].answers:
                await asyncio.sleep(0.02)
        await merchant.told_at(receiver.url)
        _, answers = await merchant.until(report.transfer, DeliveryState.DELIVERED)
    assert answers[0] == "ConnectError"
    assert answers[-1] == "204"


async def test_a_merchant_that_takes_its_address_back_is_told_no_more(
    merchant: Merchant, receiver: Receiver
) -> None:  # L56
    await merchant.told_at(receiver.url)
    (report,) = await merchant.paid()
    await merchant.told_at(None)
    async with merchant.telling():
        await merchant.until(report.transfer, DeliveryState.REFUSED)
    assert receiver.heard == []


async def test_without_an_address_there_is_nothing_to_tell_and_a_report_all_the_same(merchant: Merchant) -> None:
    (report,) = await merchant.paid()
    assert await merchant.notices.how_told(BANK, report.transfer) == []


async def test_what_a_process_that_died_had_in_hand_is_told_by_the_next(merchant: Merchant, receiver: Receiver) -> None:
    await merchant.told_at(receiver.url)
    (report,) = await merchant.paid()
    (leased,) = await merchant.notices.lease(10, 30, [])  # and here it dies
    assert leased.transfer == report.transfer
    assert await merchant.notices.lease(10, 30, []) == []
    merchant.sql(
        "UPDATE disbursement.report_delivery SET next_attempt_at = now() WHERE report_number = %s", report.number
    )
    async with merchant.telling():
        assert await merchant.until(report.transfer, DeliveryState.DELIVERED) == (2, ["204"])


async def test_after_three_days_it_is_given_up_and_stays_to_be_read(merchant: Merchant, receiver: Receiver) -> None:
    await merchant.told_at(receiver.url)
    receiver.answers = [500] * 9
    (report,) = await merchant.paid()
    merchant.sql(
        "UPDATE disbursement.report_delivery SET created_at = created_at - interval '3 days' WHERE report_number = %s",
        report.number,
    )
    async with merchant.telling():
        await merchant.until(report.transfer, DeliveryState.GIVEN_UP)
    assert await Reports(merchant.statements).find(BANK, report.transfer) == [report]


async def test_a_busy_merchant_is_left_out_and_its_neighbour_is_not(merchant: Merchant) -> None:
    await merchant.told_at("http://127.0.0.1:1/hooks")
    await merchant.paid()
    assert await merchant.notices.lease(10, 30, [f"{BANK}/{merchant.id}"]) == []
    assert len(await merchant.notices.lease(10, 30, [f"{BANK}/another"])) == 1


async def test_an_address_off_its_own_list_is_refused_and_nothing_is_kept(merchant: Merchant) -> None:
    with pytest.raises(BadAddress):
        ReportAddress("https://merchant.example.evil.com/", SECRET, ("https://merchant.example",))
    with pytest.raises(BadAddress):
        ReportAddress("https://merchant.example/", None, ("https://merchant.example",))
    with pytest.raises(MerchantUnknown):
        await merchant.notices.set_address(BANK, "nobody", ReportAddress(None, None), actor="t")
    assert (await merchant.notices.address(BANK, merchant.id)).url is None


# --- Over HTTP ----------------------------------------------------------------------------------------------------


@dataclass
class Api:
    client: httpx.AsyncClient
    issuer: LocalIssuer

    async def get(self, path: str, role: str, subject: str = "x", tenant: str = BANK, **headers: str) -> httpx.Response:
        token = self.issuer.mint(role, tenant, subject)
        return await self.client.get(path, headers={"Authorization": f"Bearer {token}", **headers})

    async def put(self, path: str, role: str, body: object) -> httpx.Response:
        token = self.issuer.mint(role, BANK, "treasury-7")
        return await self.client.put(path, json=body, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
async def api(merchant: Merchant, tmp_path: Path) -> AsyncIterator[Api]:
    issuer = LocalIssuer.open(tmp_path)
    app = build_app("disbursement", verifier=TokenVerifier(TokenSettings(jwks_file=tmp_path / JWKS_FILE)))
    app.state.statements = merchant.statements
    app.include_router(router)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://disbursement") as client:
        yield Api(client, issuer)


async def test_a_report_is_read_in_the_form_that_is_asked_for(merchant: Merchant, api: Api) -> None:
    (report,) = await merchant.paid()
    path = f"/transfers/{report.transfer}/report"
    plain = await api.get(path, "treasury")
    assert (plain.text, plain.headers["content-type"]) == (report.body, "application/json")
    for suffix, accept, kind in (
        ("", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("", "text/csv", "text/csv"),
        ("", "text/*;q=0.5, application/json;q=0.1", "text/csv"),
        (".html", "application/json", "text/html"),
        (".csv", "*/*", "text/csv"),
        (".json", "text/html", "application/json"),
    ):
        answer = await api.get(path + suffix, "auditor", Accept=accept)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].partition(";")[0] == kind, (suffix, accept)
        assert "964.50" in answer.text
    page = await api.get(f"{path}.html", "operator")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert (await api.get(path, "operator", Accept="image/png")).json()["code"] == "not-acceptable"
    assert (await api.get(f"{path}?kind=CORRECTION", "operator")).status_code == 404
    assert (await api.get(f"{path}?form=json", "operator")).status_code == 422


async def test_a_partner_reads_its_own_and_nobody_elses(merchant: Merchant, api: Api) -> None:
    (report,) = await merchant.paid()
    path = f"/transfers/{report.transfer}/report"
    assert (await api.get(path, "partner", f"partner-{merchant.id}")).text == report.body
    for role, subject, tenant, status in (
        ("partner", "another", BANK, 404),
        ("treasury", "x", "another-lender", 404),
        ("viewer", "x", BANK, 403),
        ("channel", f"partner-{merchant.id}", BANK, 403),
    ):
        answer = await api.get(path, role, subject, tenant)
        assert (answer.status_code, report.transfer in answer.text) == (status, False), role
    assert (await api.get(f"{path}/deliveries", "partner", f"partner-{merchant.id}")).status_code == 403


async def test_treasury_says_where_a_merchant_is_told_and_the_secret_is_never_shown(
    merchant: Merchant, api: Api, receiver: Receiver
) -> None:
    path = f"/merchants/{merchant.id}/report-address"
    body = {"url": receiver.url, "secret": SECRET, "allowList": [receiver.url]}
    assert (await api.put(path, "operator", body)).status_code == 403
    assert (await api.put("/merchants/nobody/report-address", "treasury", body)).status_code == 404
    faults: list[dict[str, object]] = [
        {"allowList": []},
        {"secret": "whsec_short"},
        {"url": "ftp://x"},
        {"secret": None},
        {"more": 1},
    ]
    for wrong in faults:
        refused = await api.put(path, "treasury", body | wrong)
        assert (refused.status_code, SECRET in refused.text) == (422, False), wrong
    shown = {"url": receiver.url, "allowList": [receiver.url]}
    assert (await api.put(path, "treasury", body)).json() == shown
    assert (await api.get(path, "auditor")).json() == shown
    assert merchant.sql("SELECT actor FROM disbursement.report_address WHERE merchant_id = %s", merchant.id) == [
        ("treasury-7",)
    ]
    (report,) = await merchant.paid()
    async with merchant.telling():
        await merchant.until(report.transfer, DeliveryState.DELIVERED)
    told = await api.get(f"/transfers/{report.transfer}/report/deliveries", "treasury")
    (delivery,) = json.loads(told.text)["deliveries"]
    assert (delivery["state"], delivery["attempts"], delivery["answers"][0]["answer"]) == ("DELIVERED", 1, "204")
