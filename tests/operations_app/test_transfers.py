"""Payments found and shown: by every filter, page by page, one tenant's only, and never more than a mask."""

from __future__ import annotations

import json
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy.engine import make_url

from exporters.operations import NOTHING_TO_PAY
from hub.money import Money
from ledger.book import Ledger
from ledger.model import AccountRef
from ledger.seed import Seed, seed
from operations_app.transfers.filters import TransferFilter

PAYER, CLABE, MSISDN = "525511110001", "012180001183597198", "525511110002"
PERSONAL = (PAYER, CLABE, MSISDN, "Luis Vega", "Ana Torres", "Bruno", "TOAA800101MDFRNN09")


def ids(page: Any) -> list[str]:
    return [item["paymentId"] for item in page["items"]]


async def everything(operations: Any, path: str, *roles: str, **asked: Any) -> list[Any]:
    """All pages of a list."""
    found: list[Any] = []
    while True:
        page = await operations.ok(path, *roles, **asked)
        found += page["items"]
        if page["nextCursor"] is None:
            return found
        asked["cursor"] = page["nextCursor"]


# --- searching ---


async def test_a_list_shows_every_payment_of_the_tenant_newest_first(operations, told):
    page = await operations.ok("/transfers")
    assert sorted(ids(page)) == sorted(told.where())
    accepted = [item["acceptedAt"] for item in page["items"]]
    assert accepted == sorted(accepted, reverse=True)
    assert page["total"] == {"count": len(told.where()), "exact": True}
    assert page["nextCursor"] is None


def nobody(_: Any) -> bool:
    return False


def everybody(_: Any) -> bool:
    return True


def settled_over_stp(one: Any) -> bool:
    return (one.get("outcome"), one.get("rail")) == ("SETTLED", "rail-stp")


def ended_in_that_half_minute(one: Any) -> bool:
    return "T07:45:00" <= str(one.get("endedAt"))[10:] < "T07:45:30"


FILTERS: Final[list[tuple[dict[str, Any], Callable[[Any], bool]]]] = [
        ({"state": "ABORTED"}, lambda one: one["state"] == "ABORTED"),
        ({"state": ["RETURNED", "PENDING"]}, lambda one: one["state"] in {"RETURNED", "PENDING"}),
        ({"outcome": "SETTLED", "rail": "rail-stp"}, settled_over_stp),
        ({"reason": "scheme-rejected"}, lambda one: one.get("reason") == "scheme-rejected"),
        ({"direction": "INCOMING"}, nobody),
        ({"direction": "OUTGOING"}, everybody),
        ({"payer": PAYER}, everybody),
        ({"payee": CLABE}, lambda one: one["payee"]["idType"] == "CLABE"),
        ({"party": MSISDN}, lambda one: one["payee"]["idType"] == "MSISDN"),
        ({"payee": CLABE[:-1]}, nobody),
        ({"payeeBank": "012"}, lambda one: one["payee"].get("bank") == "012"),
        ({"payerBank": "012"}, nobody),
        ({"amount": "12.00", "currency": "MXN"}, lambda one: one.get("amount") == 1200),
        ({"amountFrom": "11", "amountTo": "20", "currency": "MXN"}, lambda one: 1100 <= one.get("amount", 0) <= 2000),
        ({"amount": "12.00", "currency": "USD"}, nobody),
        ({"acceptedFrom": "2026-11-21T07:45:00Z"}, lambda one: one["acceptedAt"] >= "2026-11-21T07:45"),
        ({"acceptedTo": "2026-11-21T01:45:00-06:00"}, lambda one: one["acceptedAt"] < "2026-11-21T07:45"),
        ({"endedFrom": "2026-11-21T07:45:00Z", "endedTo": "2026-11-21T07:45:30Z"}, ended_in_that_half_minute),
        ({"step": "claim-payment"}, lambda one: "claim-payment" in one["currentSteps"]),
        ({"incident": "true"}, lambda one: bool(one["openIncidents"])),
        ({"incident": "false"}, lambda one: not one["openIncidents"]),
        ({"process": "payer-transfer", "processState": "TERMINATED"}, lambda one: one["processState"] == "TERMINATED"),
        ({"q": "silent"}, lambda one: one["concept"] == "silent"),
        ({"q": "account exist"}, lambda one: "does not exist" in (one.get("reasonDetail") or "")),
        ({"referenceNumber": "7"}, lambda one: one.get("referenceNumber") == "7"),
        ({"q": "*) OR tenantId:(globex"}, nobody),  # words, and no query language
]  # fmt: skip


async def test_every_filter_narrows_as_it_says(operations, told):
    own = {id_: told.transfers[id_] for id_ in told.where()}
    for asked, fits in FILTERS:
        found = sorted(ids(await operations.ok("/transfers", **asked)))
        assert found == sorted(id_ for id_ in own if fits(own[id_])), asked


def test_a_disbursement_that_had_nothing_to_pay_is_listed_only_for_that_reason_or_by_its_id():
    left_out = {"bool": {"must_not": [{"term": {"reason": NOTHING_TO_PAY}}]}}
    assert left_out in TransferFilter.model_validate({}).clauses(None)
    for asked in ({"reason": [NOTHING_TO_PAY]}, {"id": "any"}):
        assert left_out not in TransferFilter.model_validate(asked).clauses(None)


REFUSED: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"payeer": "x"}, "payeer", "unknown-field"),
    ({"tenantId": "globex"}, "tenantId", "unknown-field"),
    ({"sort": ["amount", "-amount"]}, "sort", "not-valid"),
    ({"state": "LOST"}, "state.0", "not-allowed"),
    ({"amount": "12.00"}, "currency", "missing"),
    ({"amount": "12.001", "currency": "MXN"}, "amount", "not-valid"),
    ({"amountFrom": "-1", "currency": "MXN"}, "amountFrom", "bad-format"),
    ({"currency": "XYZ"}, "currency", "not-valid"),
    ({"acceptedFrom": "yesterday"}, "acceptedFrom", "datetime-from-date-parsing"),
    ({"acceptedFrom": "2026-11-21T07:45:00"}, "acceptedFrom", "timezone-aware"),
    ({"limit": "201"}, "limit", "less-than-equal"),
    ({"amountFrom": "2", "amountTo": "1.99", "currency": "MXN"}, "amountTo", "not-valid"),
    ({"endedFrom": "2026-11-21T07:45:00Z", "endedTo": "2026-11-21T07:44:59Z"}, "endedTo", "not-valid"),
    ({"payer": "\x00"}, "payer", "bad-format"),
]


async def test_what_cannot_be_asked_is_refused_and_named(operations):
    for asked, parameter, code in REFUSED:
        answer = await operations.get("/transfers", **asked)
        assert answer.status_code == 422, answer.text
        assert (answer.json()["code"], answer.headers["content-type"]) == ("not-valid", "application/problem+json")
        assert (parameter, code) in [(fault["parameter"], fault["code"]) for fault in answer.json()["errors"]]


async def test_pages_hold_every_payment_once_whatever_the_order(operations, told):
    for sort in ("-acceptedAt", "acceptedAt", "-updatedAt", "-amount", "amount"):
        found = [one["paymentId"] for one in await everything(operations, "/transfers", sort=sort, limit=4)]
        assert sorted(found) == sorted(told.where())  # also those that have no amount
        assert found == ids(await operations.ok("/transfers", sort=sort))


async def test_a_cursor_is_bound_to_its_question_and_to_its_tenant(operations):
    first = await operations.ok("/transfers", limit=3)
    cursor = first["nextCursor"]
    assert ids(await operations.ok("/transfers", limit=200, cursor=cursor))  # how many at once is no other question
    content, _, signature = cursor.partition(".")
    other_content = ("A" if content[3] != "A" else "B").join((content[:3], content[4:]))
    for asked, tenant in (
        ({"cursor": cursor, "state": "ABORTED"}, "acme"),
        ({"cursor": cursor, "sort": "amount"}, "acme"),
        ({"cursor": cursor}, "globex"),
        ({"cursor": f"{other_content}.{signature}"}, "acme"),
        ({"cursor": content}, "acme"),
        ({"cursor": f"{content}."}, "acme"),
        ({"cursor": "ñ.é"}, "acme"),
    ):
        answer = await operations.get("/transfers", tenant=tenant, **asked)
        assert (answer.status_code, answer.json()["code"]) == (400, "cursor-mismatch"), asked
    elsewhere = await operations.get("/incidents", cursor=cursor)
    assert elsewhere.json()["code"] == "cursor-mismatch"


async def test_a_payment_is_found_by_any_of_its_ids(operations, told, kept):
    id_, body = kept, told.transfers[kept]
    step = (await operations.ok(f"/transfers/{id_}/steps"))["items"][3]["elementInstanceKey"]
    correlation = (await operations.ok(f"/transfers/{id_}"))["correlationId"]
    for asked, kind in (
        (id_, "paymentId"),
        (correlation, "correlationId"),
        ("PH" + "7" * 26, "trackingKey"),
        (body["instanceKeys"][-1], "processInstanceKey"),
        (step, "elementInstanceKey"),
    ):
        assert await operations.ok("/lookup", id=asked) == {"items": [{"kind": kind, "paymentId": id_}]}
        assert ids(await operations.ok("/transfers", id=asked)) == [id_]
        assert (await operations.ok("/lookup", tenant="globex", id=asked)) == {"items": []}  # H16
    assert ids(await operations.ok("/transfers", correlationId=correlation, outcome="RETURNED")) == [id_]
    assert ids(await operations.ok("/transfers", correlationId=correlation, outcome="SETTLED")) == []
    for nobody in ("9" * 19, str(uuid.uuid4()), "x' OR '1'='1"):
        assert await operations.ok("/lookup", id=nobody) == {"items": []}


# --- one payment ---


async def test_a_payment_is_shown_as_of_its_etag(operations, kept, told):
    answer = await operations.get(f"/transfers/{kept}")
    shown, etag = answer.json(), answer.headers["etag"]
    assert etag == f'"{told.transfers[kept]["position"]}"'
    assert shown["amount"] == {"amount": "12.00", "currency": "MXN"}
    assert [one["processId"] for one in shown["instances"]] == ["payer-transfer", "rail-stp"]
    assert [one["outcome"] for one in shown["outcomes"]] == ["RETURNED"]
    for seen, status in ((etag, 304), (f'W/{etag}, "1"', 304), ("*", 304), ('"1"', 200)):
        again = await operations.client.get(
            f"/api/v1/transfers/{kept}", headers=operations.headers() | {"If-None-Match": seen}
        )
        assert (again.status_code, again.headers["etag"]) == (status, etag)


async def test_steps_tell_what_happened_in_which_order_and_how_long_it_took(operations, told):
    (stuck,) = told.where(currentSteps=["claim-payment"])
    steps = (await operations.ok(f"/transfers/{stuck}/steps"))["items"]
    assert [step["elementId"] for step in steps] == ["payer-transfer", "payment-accepted", "claim-payment"]
    assert steps[1]["durationMs"] == 0
    claim = steps[2]
    assert (claim["state"], claim["jobType"], claim["durationMs"]) == ("ACTIVE", "channel.claim-payment", None)
    assert claim["attempts"] == 2
    assert "was not accepted here" in claim["errorMessage"]
    assert claim["incidentKey"] in told.transfers[stuck]["openIncidents"]
    assert len(await everything(operations, f"/transfers/{stuck}/steps", limit=2)) == 3


async def test_variables_come_with_their_earlier_values(operations, told):
    (id_,) = told.where(concept="silent")
    variables = await everything(operations, f"/transfers/{id_}/variables")
    outcome = next(one for one in variables if one["name"] == "outcome" and one["processId"] == "payer-transfer")
    assert outcome["value"] == "CANCELLED"
    assert [earlier["value"] for earlier in outcome["history"]] == ["UNKNOWN"]
    assert outcome["changes"] == 2


async def test_incidents_of_a_payment(operations, told):
    (stuck,) = told.where(currentSteps=["claim-payment"])
    found = (await operations.ok(f"/transfers/{stuck}/incidents"))["items"]
    assert [one["state"] for one in found] == ["OPEN", "RESOLVED"]
    assert {one["errorClass"] for one in found} == {"PaymentMissing"}


async def test_messages_tell_what_the_scheme_and_the_channel_were_told(operations, kept):
    shown = await operations.ok(f"/transfers/{kept}/messages")
    (order,) = shown["orders"]
    assert (order["trackingKey"], order["state"], order["payeeAccount"]) == (
        "PH" + "7" * 26,
        "RETURNED",
        "*" * 14 + "7198",
    )
    assert [(one["source"], one["word"]) for one in shown["observations"]] == [("callback", "D")]
    assert [one["result"] for one in shown["schemeCallbacks"]] == ["applied"]
    (callback,) = shown["channelCallbacks"]
    assert (callback["outcome"], callback["url"]) == ("RETURNED", "https://channel.example/hooks")
    assert [one["messageName"] for one in shown["received"]] == ["stp.order-status-changed"]


async def test_the_book_s_entries_of_a_payment(operations, kept, tables):
    await seed(
        tables,
        Seed.model_validate(
            {"tenants": [{"id": "acme", "accounts": [
                {"id": "A-1000017", "currency": "MXN", "opening_balance": "100.00", "identifiers": []}]}]}
        ),
    )  # fmt: skip
    await Ledger(operations.database).hold(
        "acme", f"{kept}:hold", AccountRef.customer("A-1000017"), Money(1200, "MXN"), reference=kept
    )
    await Ledger(operations.database).capture(
        "acme", f"{kept}:hold", f"{kept}:capture", AccountRef.parse("stp-settlement")
    )
    held, captured = (await operations.ok(f"/transfers/{kept}/entries"))["items"]
    assert (held["postings"], held["kind"]) == ([], "hold")
    assert captured["postings"][0] == {
        "debit": "customer-deposit:*****0017",
        "credit": "stp-settlement",
        "amount": {"amount": "12.00", "currency": "MXN"},
    }
    assert len(await everything(operations, f"/transfers/{kept}/entries", limit=1)) == 2


async def test_payments_that_give_another_one_s_money_back_are_linked_both_ways(operations, told):  # H7
    (back,), (original,) = told.where(concept="cancel"), told.where(concept="return")

    async def links(id_: str) -> list[tuple[str, str]]:
        items = (await operations.ok(f"/transfers/{id_}/links"))["items"]
        return [(one["relation"], one["paymentId"]) for one in items]

    assert await links(back) == [("gives-back", original)]
    assert await links(original) == [("given-back-by", back)]


async def test_a_diagram_is_that_of_the_instance_s_own_version(operations, told, kept):
    """A newer version of the same drawing was deployed before: the payment's instance does not run by it."""
    for instance in told.transfers[kept]["instanceKeys"]:
        answer = await operations.get(f"/transfers/{kept}/diagram", instance=instance)
        shown = answer.json()
        drawn = {one.get("id") for one in ET.fromstring(shown["xml"]).iter()}
        assert drawn >= {element["elementId"] for element in shown["elements"]}
        assert drawn >= shown["flows"].keys()
        own = told.transfers[kept]["instances"][instance]
        assert shown["processDefinitionKey"] == own["definitionKey"]
        assert all(element["completed"] + element["terminated"] for element in shown["elements"])
        again = await operations.client.get(
            f"/api/v1/transfers/{kept}/diagram?instance={instance}",
            headers=operations.headers() | {"If-None-Match": answer.headers["etag"]},
        )
        assert again.status_code == 304
    assert (await operations.get(f"/transfers/{kept}/diagram", instance="1")).status_code == 404
    main = await operations.ok(f"/transfers/{kept}/diagram")
    assert [call["processId"] for call in main["calls"]] == ["rail-stp"]


async def test_an_open_incident_is_seen_on_the_diagram(operations, told):
    (stuck,) = told.where(currentSteps=["claim-payment"])
    elements = {one["elementId"]: one for one in (await operations.ok(f"/transfers/{stuck}/diagram"))["elements"]}
    assert elements["claim-payment"] == {
        "elementId": "claim-payment",
        "active": 1,
        "completed": 0,
        "terminated": 0,
        "incidents": 1,
    }


async def test_a_payment_that_the_engine_has_not_begun_is_shown_as_the_channel_took_it_in(operations, tables):
    id_ = str(uuid.uuid4())
    await operations.database.rows(
        "INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, amount, currency, payer, payee, "
        "concept, publish_after) "
        "VALUES (%(id)s::uuid, 'acme', %(id)s::text, '\\x00', 700, 'MXN', '{}', '{}', 'x', now())",
        {"id": id_},
    )
    answer = await operations.get(f"/transfers/{id_}")
    assert (answer.json()["state"], answer.json()["amount"]["amount"]) == ("RECEIVED", "7.00")
    assert "etag" not in answer.headers
    for part in ("steps", "variables", "incidents", "links"):
        assert (await operations.ok(f"/transfers/{id_}/{part}"))["items"] == []
    assert (await operations.get(f"/transfers/{id_}/diagram")).status_code == 404


PARTS = ("", "/steps", "/variables", "/incidents", "/messages", "/entries", "/links", "/diagram")


async def test_another_tenant_s_payment_does_not_exist(operations, told, kept):  # H16
    for part in PARTS:
        other = await operations.get(f"/transfers/{kept}{part}", tenant="globex")
        nobody = await operations.get(f"/transfers/{uuid.uuid4()}{part}", tenant="globex")
        assert other.status_code == nobody.status_code == 404, part
        assert other.json() == nobody.json()
        assert (await operations.get(f"/transfers/{told.foreign}{part}", tenant="globex")).status_code == 200


async def test_a_tenant_sees_its_own_payments_only(operations, told):  # H16
    assert ids(await operations.ok("/transfers", tenant="globex")) == [told.foreign]
    assert ids(await operations.ok("/transfers", tenant="nobody")) == []
    assert ids(await operations.ok("/transfers", id=told.foreign)) == []


async def test_no_answer_holds_what_a_mask_hides(operations, told):
    """Whoever may reveal asks for it, and that is written down; nothing here shows more to anybody."""
    roles = ("viewer", "operator", "auditor", "treasury")
    texts = [json.dumps(await operations.ok("/transfers", *roles)), json.dumps(await operations.ok("/audit", *roles))]
    for id_ in (*told.where(concept="x"), *told.where(outcome="RETURNED")):
        texts += [(await operations.get(f"/transfers/{id_}{part}", *roles)).text for part in PARTS]
    assert [(word, text[:300]) for word in PERSONAL for text in texts if word in text] == []


@pytest.fixture
def kept(told, tables) -> str:
    """A payment that came back from STP, with what PostgreSQL keeps of it."""
    (id_,) = told.where(outcome="RETURNED")
    url = make_url(tables).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT 1 FROM stp.stp_order WHERE payment_id = %s", [id_]).fetchone():
            return str(id_)
        connection.execute(
            "INSERT INTO stp.stp_order (payment_id, tenant_id, company, tracking_key, amount, payee_account, body, "
            "joined_sha256, operation_date, sending, state, settled_at) "
            "VALUES (%s, 'acme', 'PAYHUB', %s, 1200, %s, '{}', '', '2026-11-21', 'ACCEPTED', 'RETURNED', now())",
            [id_, "PH" + "7" * 26, CLABE],
        )
        (number,) = connection.execute(
            "INSERT INTO stp.callback (kind, body, body_sha256, result, payment_id) "
            "VALUES ('order-status', '{}', 'x', 'applied', %s) "
            "RETURNING id",
            [id_],
        ).fetchone()  # type: ignore[misc]
        connection.execute(
            "INSERT INTO stp.observation (payment_id, source, digest, word, state, cause, callback_id) "
            "VALUES (%s, 'callback', 'd', 'D', 'RETURNED', 1, %s)",
            [id_, number],
        )
        connection.execute(
            "INSERT INTO channel.payment_outcome (payment_id, sequence, outcome, reason) "
            "VALUES (%s, 1, 'RETURNED', 'account-unknown')",
            [id_],
        )
        connection.execute(
            "INSERT INTO channel.callback (payment_id, sequence, tenant_id, url) "
            "VALUES (%s, 1, 'acme', 'https://channel.example/hooks?token=secret')",
            [id_],
        )
    return str(id_)
