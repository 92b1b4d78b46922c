"""What a merchant is told about a transfer sums to it, to the cent, and never changes (L56)."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from hub.money import Money
from hub.statements import Statements, open_statements
from ledger.disbursement.balances import Balances
from ledger.disbursement.model import BankTransfer, Collected, Outcome, TransferUnknown, Trigger, UpdateType
from ledger.disbursement.report import (
    Change,
    DoesNotAddUp,
    Line,
    Paid,
    Report,
    ReportKind,
    Reports,
    content_of,
)
from ledger.disbursement.report_forms import COLUMNS, as_csv, as_html
from ledger.disbursement.transfers import Transfers
from ledger.seed import Seed, seed
from ledger.settings import APP_ROLE

BANK = "lender"
HAND = "treasury-1"


@pytest.fixture(scope="module")
def url(stores_url: str) -> str:
    asyncio.run(seed(stores_url, Seed.model_validate({"tenants": [{"id": BANK}]})))
    return stores_url


@dataclass
class Shop:
    """A validated store of a merchant of its own."""

    id: str
    statements: Statements
    url: str

    @property
    def balances(self) -> Balances:
        return Balances(self.statements)

    @property
    def transfers(self) -> Transfers:
        return Transfers(self.statements)

    @property
    def reports(self) -> Reports:
        return Reports(self.statements)

    def sql(self, statement: str, *values: object) -> list[Any]:
        """As the owner of the tables, who may do what no process may."""
        plain = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    async def sells(self, credit: str, amount: str, commission: str) -> str:
        """A credit is signed and delivered; returns its id."""
        name = f"{self.id}-{credit}"
        minor = [Money.parse(text, "MXN").minor for text in (amount, commission)]
        self.sql(
            "INSERT INTO disbursement.credit (tenant_id, id, store_id, amount, commission, signed_at) "
            "VALUES (%s, %s, %s, %s, %s, now())",
            *(BANK, name, self.id, *minor),
        )
        await self.balances.contribute(BANK, name, operation=f"deliver:{name}", actor="partner")
        return name

    async def cancels(self, name: str) -> None:
        await self.balances.cancel_credit(
            BANK, name, operation=f"cancel:{name}", reason="=HYPERLINK()", actor="partner"
        )

    async def collects(self) -> BankTransfer:
        found = await self.transfers.collect(BANK, self.id, str(uuid.uuid4()), Trigger.DAILY)
        assert isinstance(found, Collected), found
        return found.transfer

    async def paid(self) -> BankTransfer:
        transfer = await self.collects()
        await self.transfers.record_sent(BANK, transfer.id)
        await self.ends(transfer, Outcome.SETTLED)
        return transfer

    async def ends(self, transfer: BankTransfer, outcome: Outcome, at: datetime | None = None) -> None:
        await self.transfers.record_outcome(
            BANK, transfer.id, outcome, reason="11", reason_detail="account closed", at=at
        )


@pytest.fixture
async def shop(url: str) -> AsyncIterator[Shop]:
    name = f"s{uuid.uuid4().hex[:10]}"
    async with open_statements(url, 8, role=APP_ROLE) as statements:
        opened = Shop(name, statements, url)
        opened.sql(
            "INSERT INTO disbursement.merchant (tenant_id, id, name, tax_id, partner, validated) "
            "VALUES (%s, %s, '<b>Muebles & Más</b>', 'MMA010101AB1', 'p-1', true)",
            *(BANK, name),
        )
        opened.sql(
            "INSERT INTO disbursement.store (tenant_id, id, merchant_id, name, frequency, validated) "
            "VALUES (%s, %s, %s, 'Centro', 'DAILY', true)",
            *(BANK, name, name),
        )
        opened.sql(
            "INSERT INTO disbursement.bank_account (tenant_id, store_id, clabe, holder_name, tax_id, authenticated_at, "
            "authenticated_by) VALUES (%s, %s, '012180001183597198', 'Muebles', 'MMA010101AB1', now(), 't')",
            *(BANK, name),
        )
        yield opened


def nets(report: Report) -> list[tuple[str, str, str, str]]:
    return [(line["section"], line["amount"], line["commission"], line["net"]) for line in report.content["lines"]]


async def test_a_settled_transfer_is_told_credit_by_credit(shop: Shop) -> None:  # L56
    kept = await shop.sells("a", "1000.00", "35.50")
    gone = await shop.sells("b", "500.00", "20.00")
    other = await shop.sells("c", "300.00", "0.00")
    await shop.cancels(gone)
    changed = (Money.parse("250.00", "MXN"), Money.parse("10.00", "MXN"))
    await shop.balances.change_amount(BANK, other, *changed, operation=f"change-{other}", actor=HAND)
    await shop.balances.adjust(
        BANK, shop.id, Money(-450, "MXN"), operation=f"adjust:{shop.id}", reason="a fee", actor=HAND
    )
    transfer = await shop.paid()
    (report,) = await shop.reports.make(BANK, transfer.id)
    content = report.content
    assert nets(report) == [
        ("contributions", "1000.00", "35.50", "964.50"),
        ("contributions", "500.00", "20.00", "480.00"),
        ("contributions", "300.00", "0.00", "300.00"),
        ("cancellations", "-500.00", "-20.00", "-480.00"),
        ("changes", "-300.00", "0.00", "-300.00"),
        ("changes", "250.00", "10.00", "240.00"),
        ("adjustments", "-4.50", "0.00", "-4.50"),
    ]
    assert [line["creditId"] for line in content["lines"]] == [kept, gone, other, gone, other, other, None]
    before = {"amountBefore": "300.00", "commissionBefore": "0.00", "amount": "250.00", "commission": "10.00"}
    assert [line["change"] for line in content["lines"]][4:6] == [before, before]
    assert (report.kind, content["type"], report.partner) == ("SETTLEMENT", "disbursement.settlement", "p-1")
    assert content["amount"] == transfer.amount.decimal() == content["totals"]["all"]["net"] == "1200.00"
    assert sum(Decimal(content["totals"][name]["net"]) for name in content["totals"] if name != "all") == 1200
    assert content["accountEndsWith"] == "7198"
    assert "012180001183597198" not in report.body


async def test_a_report_tells_the_commission_that_was_booked_whatever_becomes_of_the_credit(shop: Shop) -> None:  # L7
    credit = await shop.sells("a", "1000.00", "35.00")
    transfer = await shop.paid()
    changed = (Money.parse("800.00", "MXN"), Money.parse("99.00", "MXN"))
    await shop.balances.change_amount(BANK, credit, *changed, operation=f"change-{credit}", actor=HAND)
    (report,) = await shop.reports.make(BANK, transfer.id)
    assert nets(report) == [("contributions", "1000.00", "35.00", "965.00")]


async def test_made_again_or_by_several_at_once_it_is_one_report_with_the_same_text(shop: Shop) -> None:  # L56
    await shop.sells("a", "1000.00", "35.00")
    transfer = await shop.paid()
    made = await asyncio.gather(*(shop.reports.make(BANK, transfer.id) for _ in range(5)))
    assert {(len(reports), reports[0].number, reports[0].body) for reports in made} == {
        (1, made[0][0].number, made[0][0].body)
    }
    assert shop.sql("SELECT count(*) FROM disbursement.report WHERE transfer_id = %s", transfer.id) == [(1,)]


async def test_what_comes_back_after_it_settled_is_corrected_to_nothing(shop: Shop) -> None:  # L38
    await shop.sells("a", "1000.00", "35.00")
    transfer = await shop.paid()
    (first,) = await shop.reports.make(BANK, transfer.id)
    await shop.ends(transfer, Outcome.RETURNED, at=datetime(2026, 6, 1, 12, tzinfo=UTC))
    again, correction = await shop.reports.make(BANK, transfer.id)
    assert again == first
    assert (correction.kind, correction.content["returnReason"]) == ("CORRECTION", "account closed")
    assert correction.content["returnedAt"] == "2026-06-01T12:00:00.000Z"  # the provider's moment
    assert nets(correction) == [("contributions", "-1000.00", "-35.00", "-965.00")]
    assert Decimal(first.content["amount"]) + Decimal(correction.content["amount"]) == 0
    # L39: and what is owed again is told with the transfer that pays it
    (next_one,) = await shop.reports.make(BANK, (await shop.paid()).id)
    assert nets(next_one) == nets(first)


async def test_both_are_made_when_the_return_is_known_before_the_report_was(shop: Shop) -> None:  # L38, L56
    await shop.sells("a", "10.00", "0.00")
    transfer = await shop.paid()
    await shop.ends(transfer, Outcome.RETURNED)
    made = await shop.reports.make(BANK, transfer.id)
    assert [(one.kind, one.content["amount"]) for one in made] == [("SETTLEMENT", "10.00"), ("CORRECTION", "-10.00")]


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.RETURNED, Outcome.REJECTED, None])
async def test_a_transfer_that_never_settled_has_no_report(
    shop: Shop, outcome: Outcome | None
) -> None:  # L36, L37, L44
    await shop.sells("a", "10.00", "0.00")
    transfer = await shop.collects()
    if outcome not in (None, Outcome.REJECTED):
        await shop.transfers.record_sent(BANK, transfer.id)
    if outcome is not None:
        await shop.ends(transfer, outcome)
    assert await shop.reports.make(BANK, transfer.id) == []


async def test_another_tenants_transfer_is_not_known(shop: Shop) -> None:
    await shop.sells("a", "10.00", "0.00")
    transfer = await shop.paid()
    with pytest.raises(TransferUnknown):
        await shop.reports.make("another", transfer.id)
    await shop.reports.make(BANK, transfer.id)
    assert await shop.reports.find("another", transfer.id) == []


async def test_a_transfer_that_its_lines_do_not_sum_to_is_not_reported(shop: Shop) -> None:  # L56
    await shop.sells("a", "10.00", "1.00")
    transfer = await shop.paid()
    shop.sql("UPDATE disbursement.bank_transfer SET amount = amount + 1 WHERE id = %s", transfer.id)
    with pytest.raises(DoesNotAddUp):
        await shop.reports.make(BANK, transfer.id)
    assert await shop.reports.find(BANK, transfer.id) == []
    with pytest.raises(psycopg.errors.CheckViolation, match="report_adds_up"):
        shop.sql(
            "INSERT INTO disbursement.report (tenant_id, transfer_id, kind, merchant_id, amount, lines_total, body) "
            "VALUES (%s, %s, 'SETTLEMENT', %s, 2, 1, '')",
            *(BANK, transfer.id, shop.id),
        )


@pytest.mark.parametrize("change", ["UPDATE disbursement.report SET body = '{}'", "DELETE FROM disbursement.report"])
async def test_a_kept_report_cannot_be_changed_even_by_the_owner(shop: Shop, change: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shop.sql(change)


# --- Pure ---------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)


def paid(amount: int) -> Paid:
    return Paid("t", "m", "M", "RFC", "s", "S", amount, "MXN", "DAILY", "012180001183597198", NOW, NOW, NOW, "closed")


@st.composite
def lines(draw: st.DrawFn) -> Line:
    amount = draw(st.integers(1, 10**11))
    commission = draw(st.integers(0, amount))
    change = Change(1, None, 2, 3) if draw(st.booleans()) else None
    line = Line(1, UpdateType.CONTRIBUTION, "c", amount, commission, amount - commission, NOW, change=change)
    kind = draw(st.sampled_from(["contribution", "cancellation", "adjustment"]))
    if kind == "cancellation":
        return Line(1, UpdateType.CREDIT_CANCELLATION, "c", -amount, -commission, commission - amount, NOW)
    if kind == "adjustment":
        effect = draw(st.sampled_from([amount, -amount]))
        return Line(1, UpdateType.BALANCE_ADJUSTMENT, None, effect, 0, effect, NOW, "a reason")
    return line


@settings(max_examples=60, deadline=None)
@given(st.lists(lines(), min_size=1, max_size=30), st.sampled_from(ReportKind), st.integers(-2, 2))
def test_the_lines_sections_and_amount_agree_to_the_cent_or_there_is_no_report(  # L56
    found: list[Line], kind: ReportKind, off: int
) -> None:
    total = sum(line.net for line in found)
    told = [line.reversed() for line in found] if kind is ReportKind.CORRECTION else found
    if off:
        with pytest.raises(DoesNotAddUp):
            content_of(paid(total + off), told, kind)
        return
    content = json.loads(json.dumps(content_of(paid(total), told, kind)))
    sign = 1 if kind is ReportKind.SETTLEMENT else -1
    assert Decimal(content["amount"]) * 100 == sign * total
    assert sum(Decimal(line["net"]) for line in content["lines"]) == Decimal(content["amount"])
    sections = [sums for name, sums in content["totals"].items() if name != "all"]
    for column in ("amount", "commission", "net", "lines"):
        assert sum(Decimal(one[column]) for one in sections) == Decimal(content["totals"]["all"][column])
    rows = list(csv.DictReader(io.StringIO(as_csv(content))))
    assert sum(Decimal(row["net"]) for row in rows[:-1]) == Decimal(rows[-1]["net"]) == Decimal(content["amount"])
    assert content["amount"] in as_html(content)


def test_a_line_whose_commission_does_not_fit_is_refused() -> None:  # L56
    with pytest.raises(DoesNotAddUp):
        content_of(paid(100), [Line(1, UpdateType.CONTRIBUTION, "c", 120, 19, 100, NOW)], ReportKind.SETTLEMENT)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_cell_of_the_csv_begins_a_formula(text: str) -> None:
    line = Line(1, UpdateType.BALANCE_ADJUSTMENT, None, 100, 0, 100, NOW, text)
    (row, _) = csv.DictReader(io.StringIO(as_csv(content_of(paid(100), [line], ReportKind.SETTLEMENT))))
    assert row["reason"] == f"'{text}"
    assert set(row) == set(COLUMNS)


def test_the_page_escapes_what_people_typed_and_loads_nothing() -> None:
    line = Line(1, UpdateType.BALANCE_ADJUSTMENT, None, 100, 0, 100, NOW, "<script>alert(1)</script>")
    page = as_html(content_of(paid(-100), [line.reversed().reversed().reversed()], ReportKind.SETTLEMENT))
    assert "&lt;script&gt;" in page
    assert "@media print" in page
    for foreign in ("<script", "src=", "href=", "@import", "url(", "http:", "https:", "//"):
        assert foreign not in page, foreign
