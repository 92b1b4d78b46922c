"""Handing a payment in: accepted once, however often it is sent, or refused with the place named."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import pytest

from connectors.channel.api import new_payment_id
from hub.statements import open_statements


async def test_a_payment_is_accepted_and_committed(channel) -> None:
    answer = await channel.send(key="rent/2026-11")
    assert answer.status_code == 202
    assert set(answer.json()) == {"transactionId"}
    assert "idempotent-replayed" not in answer.headers
    [row] = await channel.rows(
        "SELECT idempotency_key, amount, currency, concept, client_ref_id, payee FROM channel.payment"
        " WHERE id = %(id)s",
        id=answer.json()["transactionId"],
    )
    assert row[:5] == ("rent/2026-11", 85_000, "MXN", "Rent November", "order-7")
    assert row[5] == {"id_type": "CLABE", "identifier": "012180001183597198", "name": "Luis Vega", "tax_id": None}


async def test_the_message_carries_what_was_asked_in_our_words(running) -> None:
    body = running.body(
        customData=[{"key": "referenceNumber", "value": 77}, {"key": "payeeTaxId", "value": "VELU800101AB1"}]
    )
    answer = await running.send(body)
    [message] = await running.published(1)
    assert message.variables() == {
        "payment_id": answer.json()["transactionId"],
        "tenant_id": running.tenant,
        "amount": 85_000,
        "currency": "MXN",
        "payer": {"id_type": "MSISDN", "identifier": "525511110001", "name": "Ana Torres", "tax_id": None},
        "payee": {
            "id_type": "CLABE",
            "identifier": "012180001183597198",
            "name": "Luis Vega",
            "tax_id": "VELU800101AB1",
        },
        "concept": "Rent November",
        "reference_number": 77,
    }
    assert message.correlation_key == message.message_id == answer.json()["transactionId"]


async def test_the_same_request_again_gives_the_same_answer(channel) -> None:
    first, again = await channel.send(key="k"), await channel.send(key="k")
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    [count] = await channel.rows("SELECT count(*) FROM channel.payment WHERE tenant_id = %(t)s", t=channel.tenant)
    assert count == (1,)


async def test_blanks_and_the_order_of_fields_do_not_make_another_request(channel) -> None:
    first = await channel.send(key="k")
    turned = dict(reversed(list(channel.body().items())))
    again = await channel.send(json.dumps(turned, indent=4).encode(), key="k")
    assert again.json() == first.json()


@pytest.mark.parametrize(
    "change",
    [{"amount": {"amount": "850.01", "currency": "MXN"}}, {"note": "Rent December"}, {"clientRefId": "order-8"}],
)
async def test_another_request_under_the_same_key_is_refused(channel, change: dict[str, Any]) -> None:
    await channel.send(key="k")
    answer = await channel.send(channel.body(**change), key="k")
    assert (answer.status_code, answer.json()["code"]) == (422, "key-reused")


async def test_two_tenants_may_use_the_same_key(open_channel) -> None:  # H16
    async with open_channel() as one, open_channel() as other:
        first, second = await one.send(key="k"), await other.send(key="k")
        assert first.status_code == second.status_code == 202
        assert first.json() != second.json()


async def test_fifty_identical_requests_at_once_make_one_payment(running) -> None:
    answers = await asyncio.gather(*(running.send(key="k") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["transactionId"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    await running.published(1)
    await asyncio.sleep(0.2)
    assert running.engine.asked == 1


async def test_a_repeat_while_the_first_has_not_ended_is_told_so(channel) -> None:
    await channel.send(key="first")
    async with channel.database.connection() as stuck, stuck.transaction(force_rollback=True):
        await stuck.execute(
            """INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, amount, currency, payer,
                payee, concept, publish_after) SELECT gen_random_uuid(), tenant_id, 'k', request_hash, amount, currency,
                payer, payee, concept, 'infinity' FROM channel.payment WHERE tenant_id = %(t)s""",
            {"t": channel.tenant},
        )
        answer = await channel.send(key="k")
        assert (answer.status_code, answer.json()["code"]) == (409, "still-running")
        assert answer.headers["retry-after"] == "1"
    assert (await channel.send(key="k")).status_code == 202


def _party(**changes: Any) -> dict[str, Any]:
    return {"partyIdInfo": {"partyIdType": "MSISDN", "partyIdentifier": "525511110001", **changes}}


def _identified(kind: str, identifier: str) -> dict[str, Any]:
    return _party(partyIdType=kind, partyIdentifier=identifier)


def _amount(amount: Any, currency: Any = "MXN") -> dict[str, Any]:
    return {"amount": {"amount": amount, "currency": currency}}


REFUSED = {
    "an amount of zero": (_amount("0.00"), "/amount/amount", "not-positive"),
    "a negative amount": (_amount("-1.00"), "/amount/amount", "bad-amount"),
    "an over-precise amount": (_amount("1.005"), "/amount/amount", "bad-amount"),
    "decimals of a currency without": (_amount("1.5", "JPY"), "/amount/amount", "bad-amount"),
    "an exponent": (_amount("1e3"), "/amount/amount", "bad-amount"),
    "digits of another script": (_amount("١٢"), "/amount/amount", "bad-amount"),
    "an amount beyond 64 bits": (_amount("92233720368547758.08"), "/amount/amount", "bad-amount"),
    "an amount as an integer": (_amount(12), "/amount/amount", "not-text"),
    "an amount as a fraction": (_amount(12.5), "/amount/amount", "not-text"),
    "no amount in the amount": ({"amount": {"currency": "MXN"}}, "/amount/amount", "missing"),
    "an unknown currency": (_amount("1.00", "XYZ"), "/amount/currency", "unknown-currency"),
    "a currency in small letters": (_amount("1.00", "mxn"), "/amount/currency", "unknown-currency"),
    "a currency that is no text": (_amount("1.00", 484), "/amount/currency", "wrong-type"),
    "the same parties": ({"payee": _party()}, "/payee", "same-parties"),
    "the same parties, spelt otherwise": ({"payee": _party(partyIdentifier="+525511110001")}, "/payee", "same-parties"),
    "a CLABE with a wrong check digit": (
        {"payee": _identified("CLABE", "012180001183597199")},
        "/payee/partyIdInfo/partyIdentifier",
        "bad-check-digit",
    ),
    "a CLABE of 17 digits": (
        {"payer": _identified("CLABE", "01218000118359719")},
        "/payer/partyIdInfo/partyIdentifier",
        "bad-format",
    ),
    "a card that fails Luhn": (
        {"payee": _identified("CARD", "4111111111111112")},
        "/payee/partyIdInfo/partyIdentifier",
        "bad-check-digit",
    ),
    "an unknown identifier type": (
        {"payee": _identified("PASSPORT", "G1234567")},
        "/payee/partyIdInfo/partyIdType",
        "not-allowed",
    ),
    "no identifier": (
        {"payee": {"partyIdInfo": {"partyIdType": "CLABE"}}},
        "/payee/partyIdInfo/partyIdentifier",
        "missing",
    ),
    "an empty identifier": ({"payee": _party(partyIdentifier="")}, "/payee/partyIdInfo/partyIdentifier", "too-short"),
    "a note that is too long": ({"note": "a" * 141}, "/note", "too-long"),
    "a note with a null character": ({"note": "a\u0000b"}, "/note", "control-characters"),
    "a name that is too long": ({"payee": {**_party(), "name": "n" * 141}}, "/payee/name", "too-long"),
    "a reference that is too long": ({"clientRefId": "r" * 65}, "/clientRefId", "too-long"),
    "an unknown field": ({"ammount": "1.00"}, "/ammount", "unknown-field"),
    "an unknown field inside": ({"payee": {**_party(), "nam/e": "x"}}, "/payee/nam~1e", "unknown-field"),
    "an unknown amount type": ({"amountType": "BOTH"}, "/amountType", "not-allowed"),
    "custom data that is no list": ({"customData": {}}, "/customData", "wrong-type"),
    "custom data with a fraction": ({"customData": [{"key": "a", "value": 1.5}]}, "/customData/0/value", "wrong-type"),
    "a tax id that is none": (
        {"customData": [{"key": "a", "value": "b"}, {"key": "payerTaxId", "value": "nobody"}]},
        "/customData/1/value",
        "bad-format",
    ),
    "a reference number of eight digits": (
        {"customData": [{"key": "referenceNumber", "value": 12345678}]},
        "/customData/0/value",
        "bad-format",
    ),
}


@pytest.mark.parametrize(("change", "pointer", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_cannot_be_paid_is_refused_with_its_place(
    channel, change: dict[str, Any], pointer: str, code: str
) -> None:
    answer = await channel.send(channel.body(**change), key="k")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "not-valid")
    assert answer.headers["content-type"] == "application/problem+json"
    assert [(fault["pointer"], fault["code"]) for fault in problem["errors"]] == [(pointer, code)]
    assert problem["errors"][0]["detail"]
    assert (await channel.send(key="k")).status_code == 202, "a refused request does not use its key up"


@pytest.mark.parametrize("field", ["payer", "payee", "amount"])
async def test_a_missing_field_is_named(channel, field: str) -> None:
    body = channel.body()
    del body[field]
    [fault] = (await channel.send(body)).json()["errors"]
    assert (fault["pointer"], fault["code"]) == (f"/{field}", "missing")


async def test_every_fault_is_told_at_once(channel) -> None:
    body = channel.body(amount={"amount": "0", "currency": "MXN"}, note=7)
    faults = (await channel.send(body)).json()["errors"]
    assert {fault["pointer"] for fault in faults} == {"/amount/amount", "/note"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"amount": }', b"\xff\xfe", b'"\xc3\x28"', b'{"note": "\\ud800"}', b"[" * 5000, b"{'a': 1}"],
)
async def test_what_is_no_json_is_refused(channel, body: bytes) -> None:
    answer = await channel.send(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-json")


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"text"'])
async def test_json_that_is_no_object_is_refused(channel, body: bytes) -> None:
    answer = await channel.send(body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "")


async def test_a_body_over_one_megabyte_is_refused(channel) -> None:
    answer = await channel.send(channel.body(note="n" * 1_000_000))
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


async def test_a_body_that_is_not_called_json_is_refused(channel) -> None:
    answer = await channel.send(**{"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")


async def test_everything_that_payment_hub_ee_may_send_is_taken(channel) -> None:
    body = {
        "clientRefId": "123",
        "payer": {
            "partyIdInfo": {
                "partyIdType": "MSISDN",
                "partyIdentifier": "27713803912",
                "partySubIdOrType": "PERSONAL",
                "fspId": "payerfsp",
            },
            "merchantClassificationCode": "1234",
            "personalInfo": {
                "complexName": {"firstName": "Ana", "middleName": "M", "lastName": "Torres"},
                "dateOfBirth": "1990-01-01",
            },
        },
        "payee": {"partyIdInfo": {"partyIdType": "MSISDN", "partyIdentifier": "27713803910"}, "name": None},
        "amountType": "SEND",
        "amount": {"amount": "230", "currency": "TZS"},
        "transactionType": {
            "scenario": "TRANSFER",
            "subScenario": "LOCAL",
            "initiator": "PAYER",
            "initiatorType": "CONSUMER",
            "refundInfo": {"originalTransactionId": "1", "refundReason": "none"},
            "balanceOfPayments": "123",
        },
        "geoCode": {"latitude": "1.0", "longitude": "2.0"},
        "note": "lunch",
        "expiration": "2026-12-31T00:00:00Z",
        "extensionList": {"extension": [{"key": "k", "value": "v"}]},
        "customData": [{"key": "k", "value": "v"}, {"key": "n", "value": 1}, {"key": "none", "value": None}],
    }
    answer = await channel.send(body)
    assert answer.status_code == 202, answer.text
    [row] = await channel.rows(
        "SELECT payer ->> 'name' FROM channel.payment WHERE id = %(id)s", id=answer.json()["transactionId"]
    )
    assert row == ("Ana M Torres",)


@pytest.mark.parametrize(
    ("changes", "status", "header", "code"),
    [
        ({"X-CorrelationID": None}, 400, "X-CorrelationID", "header-missing"),
        ({"X-CorrelationID": "  "}, 400, "X-CorrelationID", "header-missing"),
        ({"X-CorrelationID": "k" * 256}, 422, "X-CorrelationID", "not-valid"),
        ({"X-CorrelationID": "ключ".encode()}, 422, "X-CorrelationID", "not-valid"),
        ({"Platform-TenantId": None}, 400, "Platform-TenantId", "header-missing"),
        ({"X-CallbackURL": "https://elsewhere.example/hooks"}, 422, "X-CallbackURL", "not-valid"),
        ({"X-CallbackURL": "not a url"}, 422, "X-CallbackURL", "not-valid"),
    ],
)
async def test_a_header_that_is_missing_or_wrong_is_named(
    channel, changes: dict[str, Any], status: int, header: str, code: str
) -> None:
    headers = {**channel.headers(), **changes}
    answer = await channel.client.post(
        "/channel/transfer", json=channel.body(), headers={k: v for k, v in headers.items() if v is not None}
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["errors"][0]["header"] == header


async def test_a_token_of_one_tenant_cannot_speak_for_another(open_channel) -> None:  # H16
    async with open_channel() as one, open_channel() as other:
        answer = await one.send(**{"Platform-TenantId": other.tenant})
        assert (answer.status_code, answer.json()["code"]) == (403, "tenant-mismatch")


async def test_a_tenant_that_is_not_ours_is_refused(channel) -> None:
    answer = await channel.client.post(
        "/channel/transfer", json=channel.body(), headers=channel.headers(tenant="nobody")
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant-unknown")


@pytest.mark.parametrize("path", ["transfer/0198f0c0-0000-7000-8000-000000000000", "txnState/k"])
async def test_asking_needs_a_token_too(channel, path: str) -> None:
    answer = await channel.client.get(f"/channel/{path}", headers={"Platform-TenantId": channel.tenant})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_another_role_may_not_pay(channel) -> None:
    answer = await channel.send(Authorization=f"Bearer {channel.token(role='viewer')}")
    assert (answer.status_code, answer.json()["code"]) == (403, "role-missing")


async def test_nothing_is_read_of_a_request_without_a_token(channel) -> None:
    answer = await channel.client.post("/channel/transfer", content=b"{")
    assert answer.status_code == 401


async def test_without_its_database_the_channel_says_when_to_come_back(channel) -> None:
    async with open_statements("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as away:
        channel.store._statements = away
        answer = await channel.send()
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_payment_id_is_a_uuid_of_version_7_that_grows_with_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid.UUID(new_payment_id()) for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {found.version for found in ids} == {7}
    assert {found.variant for found in ids} == {uuid.RFC_4122}
    assert all(before <= found.int >> 80 <= before + 10_000 for found in ids)
