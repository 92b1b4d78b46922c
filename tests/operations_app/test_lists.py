"""Incidents, records, drawings, health, exports and Payment Hub EE's routes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import socket
import uuid
import xml.etree.ElementTree as ET
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from exporters.views import VIEWS
from hub.api import build_app, serve
from hub.errors import Unavailable
from operations_app.audit import NEWEST_FIRST
from operations_app.export import cells
from operations_app.incidents import Cause
from operations_app.journal import Journal
from operations_app.transfers.filters import SORTS


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


async def acts(operations: Any) -> list[Any]:
    """What the operator log holds of exports, oldest first."""
    found = await Journal(operations.database).after(0, 1000)
    return [entry for entry in found if entry.action == "list.export"]


# --- incidents ---


async def test_open_incidents_are_grouped_by_place_and_error(operations, told):
    groups = await operations.ok("/incidents/groups", state="RESOLVED")
    assert groups["complete"]
    (group,) = groups["items"]
    found = (await operations.ok("/incidents", state="RESOLVED"))["items"]
    assert group["count"] == len(found) > 1  # several payments, one cause
    assert {one["group"] for one in found} == {group["id"]}
    assert len({one["errorMessage"] for one in found}) > 1
    assert (group["processId"], group["elementId"], group["errorClass"]) == (
        "payer-transfer",
        "claim-payment",
        "PaymentMissing",
    )
    assert group["firstSeen"] == min(one["createdAt"] for one in found)
    assert group["lastSeen"] == max(one["createdAt"] for one in found)
    assert group["samplePaymentId"] in told.where()
    assert (await operations.ok("/incidents/groups", tenant="globex"))["items"] == []  # H16


async def test_incidents_are_found_by_place_message_and_payment(operations, told):
    (stuck,) = told.where(currentSteps=["claim-payment"])
    (one,) = (await operations.ok("/incidents", paymentId=stuck))["items"]
    assert one["state"] == "OPEN"
    for asked, fits in (
        ({"q": "not accepted"}, True),
        ({"q": "accepted elsewhere"}, False),
        ({"element": "claim-payment", "errorType": "JOB_NO_RETRIES"}, True),
        ({"element": "hold-funds"}, False),
        ({"createdTo": "2026-11-21T00:00:00Z"}, False),
    ):
        found = [each["incidentKey"] for each in (await operations.ok("/incidents", **asked))["items"]]
        assert (one["incidentKey"] in found) is fits, asked
    assert (await operations.ok("/incidents", tenant="globex", state="OPEN"))["items"] == []
    both = await operations.ok("/incidents", state=["OPEN", "RESOLVED"])
    assert {each["state"] for each in both["items"]} == {"OPEN", "RESOLVED"}


def test_a_cause_leaves_out_what_differs_from_payment_to_payment():
    def group(message: str) -> str:
        return Cause.of("payer-transfer", "hold-funds", "JOB_NO_RETRIES", message).group

    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    assert group(f"Gone: payment {one} at x.py:37") == group(f"Gone: payment {other} at x.py:38")
    assert group("no order PH0123456789ab") == group("no order PHabc987654321")
    assert group("account *******7198 closed") == group("account *******0001 closed")
    assert group("account closed") != group("account frozen")


# --- records ---


async def test_records_are_searched_by_the_columns_of_the_audit_index(operations, told):
    (stuck,) = told.where(currentSteps=["claim-payment"])
    page = await operations.ok(
        "/audit", "auditor", paymentId=stuck, valueType="INCIDENT", intent=["CREATED", "RESOLVED"]
    )
    assert {one["intent"] for one in page["items"]} == {"CREATED", "RESOLVED"}
    assert {one["paymentId"] for one in page["items"]} == {stuck}
    newest = page["items"][0]
    assert isinstance(newest["value"]["processInstanceKey"], str)
    by_key = await operations.ok("/audit", "auditor", key=newest["key"], elementId="claim-payment")
    assert newest in by_key["items"]
    at = [one["at"] for one in (await operations.ok("/audit", "auditor", limit=200))["items"]]
    assert at == sorted(at, reverse=True)


async def test_pages_of_records_hold_each_once(operations, told):
    (stuck,) = told.where(currentSteps=["claim-payment"])
    found, asked = [], {"paymentId": stuck, "limit": 7}
    while True:
        page = await operations.ok("/audit", "auditor", **asked)
        found += [(one["position"], one["key"]) for one in page["items"]]
        if page["nextCursor"] is None:
            break
        asked["cursor"] = page["nextCursor"]
    assert len(found) == len(set(found)) == page["total"] > 30


async def test_records_of_another_tenant_are_not_seen(operations, told):  # H16
    assert (await operations.ok("/audit", "auditor", paymentId=told.foreign))["items"] == []
    own = await operations.ok("/audit", "auditor", tenant="globex", limit=200)
    assert {one["paymentId"] for one in own["items"]} == {told.foreign}


# --- drawings ---


async def test_drawings_are_listed_and_shown_as_they_were_deployed(operations):
    first = await operations.ok("/processes", limit=3)
    rest = await operations.ok("/processes", limit=200, cursor=first["nextCursor"])
    keys = [one["processDefinitionKey"] for one in (*first["items"], *rest["items"])]
    assert len(set(keys)) == len(keys) >= 5
    (payer,) = (await operations.ok("/processes", process="payer-transfer"))["items"]
    answer = await operations.get(f"/processes/{payer['processDefinitionKey']}/xml")
    assert answer.headers["content-type"] == "application/xml"
    assert ET.fromstring(answer.content).tag.endswith("definitions")
    assert (await operations.get("/processes/1/xml")).status_code == 404


# --- exports ---


async def test_what_somebody_searched_for_is_masked_in_the_log(operations):
    clabe = "012180001183597198"
    assert (await operations.get("/transfers.ndjson", "operator", q=f"to {clabe}", id=clabe)).status_code == 200
    written = (await acts(operations))[-1].after
    assert set(written["filter"]) == {"q", "id"}
    assert clabe not in json.dumps(written)


async def test_an_export_holds_every_row_of_the_search_and_is_written_down_with_their_number(
    operations, told, monkeypatch
):
    monkeypatch.setattr("operations_app.export.PAGE", 3)
    wanted = told.where(state="ABORTED")
    before = len(await acts(operations))
    answer = await operations.get("/transfers.csv", "operator", state="ABORTED", payer="525511110001")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="transfers.csv"'
    assert sorted(row["paymentId"] for row in rows(answer.text)) == sorted(wanted)
    assert {row["payer.identifier"] for row in rows(answer.text)} == {"********0001"}
    begun, done = (await acts(operations))[before:]
    assert [begun.outcome, done.outcome] == ["begun", "done"]
    assert (begun.actor, begun.tenant_id, begun.target) == ("olga", "acme", "transfers.csv")
    assert (begun.after["rows"], done.after["rows"]) == (0, len(wanted))
    assert done.after["filter"]["state"] == ["ABORTED"]
    assert "525511110001" not in json.dumps(done.after)

    lines = (await operations.get("/transfers.ndjson", "operator")).text.splitlines()
    assert [json.loads(line) for line in lines] == (await operations.ok("/transfers"))["items"]
    assert len(rows((await operations.get("/audit.csv", "auditor", paymentId=wanted[0])).text)) > 50
    assert [row["state"] for row in rows((await operations.get("/incidents.csv")).text)] == ["OPEN"]
    assert rows((await operations.get("/transfers.csv", tenant="nobody")).text) == []


async def test_an_export_that_breaks_off_says_so_and_how_far_it_came(operations, told, monkeypatch):
    monkeypatch.setattr("operations_app.export.PAGE", 3)
    search, asked = operations.views.search, 0

    async def breaks(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Unavailable("elasticsearch: away")
        return await search(*args, **kwargs)

    monkeypatch.setattr(operations.views, "search", breaks)
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(serve(operations.app, "127.0.0.1", 0, listening=listening))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            with pytest.raises(httpx.RemoteProtocolError):  # no reader takes it for the whole
                await client.get("/api/v1/transfers.csv", headers=operations.headers())
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    (last,) = (await acts(operations))[-1:]
    assert (last.outcome, last.after["rows"]) == ("broken-off", 6)


def test_no_cell_begins_a_formula():
    row = {
        "a": "=LINK(1)",
        "b": {"c": "+1", "d": "@x"},
        "e": ["-1", "\t2"],
        "f": "\r\n=1",
        "g": None,
        "h": 7,
        "i": "ok",
    }
    shown = cells(row, ("a", "b.c", "b.d", "e", "f", "g", "h", "i", "b.missing"))
    assert shown == ["'=LINK(1)", "'+1", "'@x", "'-1 \t2", "'\r\n=1", "", "7", "ok", ""]


# --- health ---


async def test_health_tells_each_part_as_it_says_of_itself_and_the_lag_of_the_views(operations, told):
    async def broken() -> None:
        raise Unavailable("away")

    exporter = build_app("exporter")
    exporter.router.routes = [route for route in exporter.router.routes if getattr(route, "path", "") != "/metrics"]

    @exporter.get("/metrics")
    async def metrics() -> Response:
        return Response(
            'payhub_export_lag_records{view="audit",topic="zeebe",partition="0"} 3.0\n'
            'payhub_export_lag_records{view="audit",topic="zeebe",partition="1"} 4.0\n'
            'payhub_export_lag_seconds{view="audit"} 1.25\n'
            "payhub_export_waiting 0.0\n"
            'payhub_export_dead_letters_total{view="audit"} 1.0\n'
        )

    parts = {"work-stp": build_app("stp", probes={"database": broken}), "export-audit": exporter}
    addresses, serving = {"serve-channel": "http://127.0.0.1:9"}, []
    for name, app in parts.items():
        listening = socket.create_server(("127.0.0.1", 0))
        addresses[name] = f"http://127.0.0.1:{listening.getsockname()[1]}"
        serving.append(asyncio.create_task(serve(app, "127.0.0.1", 0, listening=listening)))
    operations.app.state.settings = operations.app.state.settings.model_copy(update={"parts": addresses})
    try:
        shown = await operations.ok("/health")
    finally:
        for one in serving:
            one.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
    assert shown["state"] == "not-ready"
    assert [(one["name"], one["state"]) for one in shown["parts"]] == [
        ("export-audit", "ready"),
        ("serve-channel", "away"),
        ("work-stp", "not-ready"),
    ]
    assert "database" in shown["parts"][2]["detail"]
    assert {one["name"]: one["state"] for one in shown["servers"]} == {
        "postgresql": "ready",
        "ledger": "ready",
        "elasticsearch": "ready",
    }
    assert shown["lag"] == [{"view": "audit", "records": 7, "seconds": 1.25, "waiting": False, "deadLetters": 1}]
    newest = max(body["updatedAt"] for body in told.transfers.values())
    assert {one["view"]: one["changedAt"] for one in shown["views"]}["transfers"] == newest


# --- Payment Hub EE ---

CENTURIES, NOWHERE = {"startFrom": "1066-10-14 09:00:00"}, {"currency": "XQZ"}


async def phee(operations: Any, path: str, tenant: str = "acme", **asked: Any) -> Any:
    return await operations.client.get(f"/ph-ee/api/v1{path}", params=asked, headers=operations.headers(tenant=tenant))


async def test_payment_hub_ee_s_transfers_come_by_page_and_size(operations, told):
    pages = [(await phee(operations, "/transfers", page=number, size=5)).json() for number in range(3)]
    assert sorted(one["transactionId"] for page in pages for one in page["content"]) == sorted(told.where())
    assert {(page["totalElements"], page["totalPages"]) for page in pages} == {(13, 3)}
    assert [page["last"] for page in pages] == [False, False, True]
    assert (await phee(operations, "/transfers", page=2000, size=5)).json()["errors"][0]["code"] == "too-deep"
    assert (await phee(operations, "/transfers", tenant="globex")).json()["totalElements"] == 1  # H16


async def test_payment_hub_ee_s_filters_and_words(operations, told):
    async def found(**asked: Any) -> list[str]:
        answer = await phee(operations, "/transfers", size=200, **asked)
        assert answer.status_code == 200, answer.text
        return sorted(one["transactionId"] for one in answer.json()["content"])

    assert await found(status="COMPLETED") == sorted(told.where(outcome="SETTLED"))
    failed = [*told.where(state="ABORTED"), *told.where(state="RETURNED")]  # a failure is never shown as completed
    assert await found(status="FAILED") == sorted(failed)
    assert await found(status="IN_PROGRESS") == sorted(told.where(state="PENDING"))
    assert await found(payeePartyId="012180001183597198", partyIdType="CLABE", payeeDfspId="012") != []
    assert await found(amount="12.00", currency="MXN") == sorted(told.where(amount=1200))
    assert await found(startFrom="2026-11-21 07:45:00", startTo="2026-11-21 07:45:00") == []
    assert await found(payerPartyId="", status="", sortedBy="", sortedOrder="asc") == sorted(told.where())
    (returned,) = told.where(outcome="RETURNED")
    (one,) = (await phee(operations, "/transfers", transactionId=returned)).json()["content"]
    assert (one["status"], one["amount"], one["errorInformation"]) == ("FAILED", "12.00", "account-unknown")
    assert await found(clientCorrelationId=one["clientCorrelationId"]) == [returned]
    for asked in (
        {"startFrom": "yesterday"},
        {"status": "DONE"},
        {"sortBy": "amount"},
        {"amount": "1"},
        CENTURIES,
        NOWHERE,
    ):
        assert (await phee(operations, "/transfers", **asked)).status_code == 422, asked


async def test_payment_hub_ee_s_detail_variables_tasks_and_what_there_is_none_of(operations, told):
    (returned,) = told.where(outcome="RETURNED")
    keys = told.transfers[returned]["instanceKeys"]
    for key in keys:
        detail = (await phee(operations, f"/transfer/{key}")).json()
        assert detail["transfer"]["transactionId"] == returned
    tasks = (await phee(operations, "/tasks", businessKey=returned, businessKeyType="transactionId")).json()
    assert tasks == detail["tasks"]
    assert [task["type"] for task in tasks][:2] == ["channel.claim-payment", "ams.quote-transfer"]
    variables = (await phee(operations, "/variables", businessKey=returned)).json()
    assert {"name": "outcome", "value": "RETURNED"}.items() <= next(
        one for one in variables if one["name"] == "outcome"
    ).items()
    for path, asked in ((f"/transfer/{keys[0]}", {}), ("/tasks", {"businessKey": returned})):
        assert (await phee(operations, path, tenant="globex", **asked)).status_code == 404  # H16
    assert (await phee(operations, "/batches")).json()["data"] == []
    assert (await phee(operations, "/transactionRequests", page=0, size=1)).json()["totalElements"] == 0


# --- order ---


@pytest.mark.parametrize(
    ("view", "family", "order"),
    [("operations", "transfers", SORTS["-acceptedAt"]), ("audit", "audit", NEWEST_FIRST)],
)
async def test_an_index_keeps_its_documents_in_the_order_in_which_they_are_listed(told, view, family, order):
    assert VIEWS[view].newest_first[family] == tuple(field for key in order for field in key)
    assert {how["order"] for key in order for how in key.values()} == {"desc"}
    (made,) = told.client.indices.get_settings(index=f"{told.prefix}-{family}").body.values()
    assert tuple(made["settings"]["index"]["sort"]["field"]) == VIEWS[view].newest_first[family]
