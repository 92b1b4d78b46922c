"""Ledger = scheme book = engine = views: what agrees is told to agree, and each disagreement is found."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from hub.local import migrate_all
from hub.statements import Statements, open_statements
from ledger.payments import Booked
from operations_app.truth import Facts, Order, Truth, compare
from operations_app.views import open_views

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)
SETTLED = Facts(
    payment_id="p",
    tenant_id="acme",
    kind="payment",
    amount=100,
    currency="MXN",
    outcome="SETTLED",
    since=NOW - timedelta(minutes=5),
    order=Order("SETTLED", "ACCEPTED", 100),
    booked=Booked(moved=100, settled=100, held=0),
    view={"amount": 100, "outcome": "SETTLED", "tenantId": "acme"},
)
REFUSED = replace(
    SETTLED,
    outcome="REJECTED",
    order=Order("PENDING", "REJECTED", 100),
    booked=Booked(0, 0, 0),
    view={"amount": 100, "outcome": "REJECTED", "tenantId": "acme"},
)
ON_US = replace(SETTLED, order=None, booked=Booked(100, 0, 0))
DEPOSIT = replace(SETTLED, kind="deposit", order=None, booked=Booked(100, -100, 0))
DISBURSED = replace(SETTLED, kind="disbursement")
CAME_BACK = replace(  # L38
    DISBURSED, outcome="RETURNED", order=Order("RETURNED", "ACCEPTED", 100), booked=Booked(moved=200, settled=0, held=0)
)
UNDER_WAY = replace(SETTLED, outcome=None, order=Order("PENDING", "ACCEPTED", 100), booked=Booked(0, 0, 100), view=None)


@pytest.mark.parametrize(
    "facts", [SETTLED, REFUSED, ON_US, DEPOSIT, DISBURSED, CAME_BACK, UNDER_WAY, replace(UNDER_WAY, outcome="UNKNOWN")]
)
def test_what_agrees_has_no_difference(facts: Facts):
    assert list(compare(facts, NOW)) == []


@pytest.mark.parametrize(
    ("facts", "between"),
    [
        (replace(SETTLED, order=Order("RETURNED", "ACCEPTED", 100)), "engine/scheme"),
        (replace(SETTLED, order=Order("SETTLED", "ACCEPTED", 99)), "engine/scheme"),
        (replace(REFUSED, order=Order("PENDING", "ACCEPTED", 100)), "engine/scheme"),
        (replace(REFUSED, order=Order("SETTLED", "ACCEPTED", 100)), "engine/scheme"),
        (replace(SETTLED, booked=Booked(0, 0, 0)), "engine/ledger"),
        (replace(SETTLED, booked=Booked(100, 0, 0)), "scheme/ledger"),
        (replace(REFUSED, booked=Booked(0, 0, 100)), "engine/ledger"),
        (replace(UNDER_WAY, booked=Booked(50, 50, 50)), "engine/ledger"),
        (replace(DEPOSIT, booked=Booked(0, 0, 0)), "engine/ledger"),
        (replace(CAME_BACK, booked=Booked(100, 100, 0)), "engine/ledger"),
        (replace(DISBURSED, order=None), "engine/scheme"),
        (replace(SETTLED, view=None), "engine/view"),
        (replace(SETTLED, view={"amount": 100, "outcome": "SETTLED", "tenantId": "globex"}), "engine/view"),
        (replace(SETTLED, view={"amount": 100, "outcome": "UNKNOWN", "tenantId": "acme"}), "engine/view"),
    ],
)
def test_each_disagreement_is_found_with_the_payment_and_who_disagrees(facts: Facts, between: str):
    found = list(compare(facts, NOW))
    assert between in {one.between for one in found}
    assert {one.payment_id for one in found} == {"p"}


def test_a_view_that_is_a_moment_behind_is_under_way_and_no_difference():  # H15
    assert list(compare(replace(SETTLED, view=None, since=NOW - timedelta(seconds=3)), NOW)) == []


@pytest_asyncio.fixture
async def tables(new_database: Callable[[], str]) -> AsyncIterator[Statements]:
    url = new_database()
    migrate_all(url, url)
    async with open_statements(url) as opened:
        yield opened


async def test_a_period_is_compared_with_what_the_databases_hold(tables: Statements):
    payments = [str(uuid.uuid4()) for _ in range(3)]
    for payment, outcome in zip(payments, ("SETTLED", "REJECTED", None), strict=True):
        await tables.rows(
            "INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, amount, currency, payer, payee,"
            " concept, publish_after, outcome, completed_at)"
            " VALUES (%(id)s::uuid, 'acme', %(id)s::text, '', 100, 'MXN', '{}', '{}', '', now(), %(outcome)s, now())",
            {"id": payment, "outcome": outcome},
        )
    alone = str(uuid.uuid4())
    await tables.rows(
        "INSERT INTO stp.stp_order (payment_id, tenant_id, company, tracking_key, amount, payee_account, body, "
        "joined_sha256, operation_date) VALUES (%(id)s::uuid, 'acme', 'X', 'k', 100, '', '', '', current_date)",
        {"id": alone},
    )
    now = datetime.now(UTC)
    truth = Truth(tables, tables, None)
    report = await truth.check(now - timedelta(hours=1), now + timedelta(hours=1))
    assert report.payments == {"payment": 3}
    assert report.under_way == [payments[2]]
    assert {(one.payment_id, one.between) for one in report.differences} == {
        (payments[0], "engine/ledger"),  # settled, and nothing was booked
        (alone, "scheme/engine"),
    }
    assert not report.agree
    empty = await truth.check(now - timedelta(hours=3), now - timedelta(hours=2))
    assert empty.agree
    assert empty.payments == {}


async def test_a_document_that_tells_something_else_than_the_engine_is_found(
    tables: Statements, told: Any, elasticsearch_url: str
):
    """Payments as the real folds show them, beside rows that say the same but for one."""
    ended = {id_: body for id_, body in told.transfers.items() if body.get("outcome") not in {None, "UNKNOWN"}}
    wrong = next(iter(ended))
    for id_, body in ended.items():
        await tables.rows(
            "INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, amount, currency, payer, payee,"
            " concept, publish_after, outcome, accepted_at, completed_at) VALUES (%(id)s::uuid, %(tenant)s,"
            " %(id)s::text, '', %(amount)s, 'MXN', '{}', '{}', '', now(), %(outcome)s, %(at)s, %(at)s)",
            {
                "id": id_,
                "tenant": body["tenantId"],
                "amount": body["amount"] + (id_ == wrong),
                "outcome": body["outcome"],
                "at": NOW,
            },
        )
    missing = str(uuid.uuid4())
    await tables.rows(
        "INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, amount, currency, payer, payee,"
        " concept, publish_after, outcome, accepted_at, completed_at) VALUES (%(id)s::uuid, 'acme', 'k', '', 1, 'MXN',"
        " '{}', '{}', '', now(), 'REJECTED', %(at)s, %(at)s)",
        {"id": missing, "at": NOW},
    )
    async with open_views(elasticsearch_url, told.prefix) as views:
        report = await Truth(tables, None, views).check(NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    assert {one.payment_id for one in report.differences} == {wrong, missing}
    assert {one.between for one in report.differences} == {"engine/view"}
    assert report.payments == {"payment": len(ended) + 1}
