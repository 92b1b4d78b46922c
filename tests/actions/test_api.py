"""Actions over HTTP: headers, codes, lists and policies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends

from hub.api import build_app
from hub.settings import TokenSettings
from hub.tokens import JWKS_FILE, LocalIssuer, TokenVerifier
from operations_app.actions.api import router
from operations_app.cursors import PREFIX, Cursors, only_known_parameters

BODY = {"kind": "cancel", "reasonCode": "other", "reason": "the customer changed it"}


@dataclass
class Api:
    client: httpx.AsyncClient
    issuer: LocalIssuer

    async def __call__(
        self, method: str, path: str, who: str = "maria", role: str = "operator", tenant: str = "acme", **more: Any
    ) -> httpx.Response:
        token = self.issuer.mint((role,), tenant, who)
        headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
        return await self.client.request(method, f"/api/v1{path}", headers=headers, **more)

    async def ask(self, payment: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        given = {"If-Match": '"7"', "Idempotency-Key": f"k-{payment}"} | headers
        sent = {name: value for name, value in given.items() if value}
        return await self("POST", f"/transfers/{payment}/actions", json=BODY | (body or {}), headers=sent)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("issuer")


@pytest.fixture
async def api(desk, keys: Path) -> AsyncIterator[Api]:
    issuer = LocalIssuer.open(keys)
    app = build_app("operations", verifier=TokenVerifier(TokenSettings(jwks_file=keys / JWKS_FILE)))
    app.state.actions, app.state.cursors = desk.actions, Cursors(b"a secret of the tests")
    app.include_router(router, prefix=PREFIX, dependencies=[Depends(only_known_parameters)])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://operations") as client:
        yield Api(client, issuer)


async def test_a_request_needs_its_headers_and_a_reason(api, desk):
    payment = desk.shown.stuck()
    for wrong, status, code in (
        ({"Idempotency-Key": ""}, 400, "header-missing"),
        ({"If-Match": ""}, 428, "precondition-required"),
        ({"If-Match": '"6"'}, 412, "precondition-failed"),
    ):
        answer = await api.ask(payment, **wrong)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    for reason in ("because", " " * 20, "with a \x00 in its middle"):
        wrong = await api.ask(payment, {"reason": reason})
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/reason")


async def test_a_request_is_accepted_followed_and_answered_again_alike(api, desk):
    payment = desk.shown.stuck()
    first, again = await api.ask(payment), await api.ask(payment)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["Location"] == again.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await api.ask(payment, {"kind": "force-fail"})
    assert (other.status_code, other.json()["code"]) == (422, "key-reused")
    path = first.headers["Location"].removeprefix("/api/v1")
    found = (await api("GET", path, role="viewer")).json()
    assert (found["state"], found["money"], found["at"]) == (
        "REQUESTED",
        {"amount": "10.00", "currency": "MXN"},
        "payer-transfer/quote-transfer",
    )
    assert (await api("GET", path, role="viewer", tenant="globex")).status_code == 404  # H16
    second = await api.ask(payment, **{"Idempotency-Key": "another"})
    assert (second.status_code, second.json()["actionId"]) == (409, found["actionId"])


async def test_what_is_possible_is_told_and_why_the_rest_is_not(api, desk):
    told = (await api("GET", f"/transfers/{desk.shown.stuck()}/actions/available", role="viewer")).json()
    kinds = {one["kind"]: one for one in told["actions"]}
    assert {kind for kind, one in kinds.items() if one["possible"]} == {
        "retry",
        "resolve-incident",
        "force-fail",
        "cancel",
    }
    assert "force-fail" in kinds["force-complete"]["why"]
    assert (kinds["retry"]["approvals"], kinds["cancel"]["approvals"], told["version"]) == (0, 1, "7")


async def test_what_is_sent_along_for_another_kind_is_refused_and_not_believed_done(api, desk):
    payment = desk.shown.stuck()
    for kind, payload, pointer in (
        ("retry", {"variables": {"rail": "stp"}}, "/payload/variables"),
        ("cancel", {"outcome": "SETTLED"}, "/payload/outcome"),
        ("force-fail", {"money": {"amount": "1.00", "currency": "MXN"}}, "/payload/money"),
        ("retry", {"incidentKeys": ["five"]}, "/payload/incidentKeys/0"),
    ):
        answer = await api.ask(payment, {"kind": kind, "payload": payload})
        assert (answer.status_code, [one["pointer"] for one in answer.json()["errors"]]) == (422, [pointer])
    odd = {"kind": "manual-override", "payload": {"variables": {"reason_detail": "a\x00b"}}}
    answer = await api.ask(desk.shown.stuck("record-unknown"), odd)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/payload/variables/reason_detail")


async def test_nothing_that_would_be_refused_is_told_to_be_possible(api, desk):
    payment = desk.shown.stuck()
    action = (await api.ask(payment)).json()
    told = (await api("GET", f"/transfers/{payment}/actions/available")).json()
    assert told["underWay"] == action["actionId"]
    codes = {one["kind"]: one.get("code") for one in told["actions"]}
    assert (codes["retry"], codes["cancel"], codes["recall"]) == ("repair-under-way", "repair-under-way", "not-settled")
    accepted = await desk.settled()
    del desk.shown.transfers[accepted]  # nothing of it has reached the views
    told = (await api("GET", f"/transfers/{accepted}/actions/available")).json()
    assert {one["code"] for one in told["actions"]} == {"not-begun"}
    asked = await api.ask(accepted)
    assert (asked.status_code, asked.json()["code"]) == (409, "not-begun")


async def test_only_who_may_does_and_nobody_decides_an_own_request(api, desk):
    payment = desk.shown.stuck()
    path = (await api.ask(payment)).headers["Location"].removeprefix("/api/v1")
    assert (await api("POST", f"{path}/approve", who="carlos", role="operator")).status_code == 403
    own = await api("POST", f"{path}/approve", who="maria", role="approver")
    assert (own.status_code, own.json()["code"]) == (403, "own-request")
    waiting = (await api("GET", "/actions?list=waiting", who="carlos", role="approver")).json()["items"]
    assert payment in {one["paymentId"] for one in waiting}
    approved = await api("POST", f"{path}/approve", who="carlos", role="approver", json={"note": "seen"})
    assert (approved.status_code, approved.json()["state"]) == (200, "APPROVED")
    late = await api("POST", f"{path}/reject", who="sofia", role="approver", json={"note": "no, better not"})
    assert (late.status_code, late.json()["code"]) == (409, "already-decided")
    decided = (await api("GET", "/actions?list=decided", who="carlos", role="approver")).json()["items"]
    assert payment in {one["paymentId"] for one in decided}


async def test_variables_that_may_not_be_changed_are_named(api, desk):
    payment = desk.shown.stuck("record-unknown")
    body = {"kind": "manual-override", "payload": {"variables": {"amount": 1, "reason_detail": "x" * 201}}}
    answer = await api.ask(payment, body)
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [
        "/payload/variables/amount",
        "/payload/variables/reason_detail",
    ]


async def test_lists_go_on_behind_a_cursor_of_their_own(api, desk):
    for _ in range(3):
        await api.ask(desk.shown.stuck())
    first = (await api("GET", "/actions?list=mine&limit=2")).json()
    second = (await api("GET", "/actions", params={"list": "mine", "limit": 2, "cursor": first["nextCursor"]})).json()
    assert not {one["actionId"] for one in first["items"]} & {one["actionId"] for one in second["items"]}
    other = await api("GET", "/actions", params={"list": "all", "cursor": first["nextCursor"]})
    assert (other.status_code, other.json()["code"]) == (400, "cursor-mismatch")
    assert (await api("GET", "/actions?status=x")).status_code == 422


async def test_policies_are_read_by_all_and_written_by_admins(api, desk):
    found = (await api("GET", "/policies", role="viewer")).json()
    assert {"kind": "retry", "currency": "*", "fromAmount": "0", "approvals": 0} in found["rules"]
    assert (await api("PUT", "/policies", json={"rules": []})).status_code == 403
    bad = {"rules": [{"kind": "retry", "approvals": 3}]}
    assert (await api("PUT", "/policies", role="admin", json=bad)).status_code == 422
    rules = {"rules": [{"kind": "retry", "approvals": 1}]}
    unseen = await api("PUT", "/policies", role="admin", tenant="globex", json=rules)
    assert (unseen.status_code, unseen.json()["code"]) == (428, "precondition-required")
    seen = {"If-Match": (await api("GET", "/policies", role="admin", tenant="globex")).headers["ETag"]}
    put = await api("PUT", "/policies", role="admin", tenant="globex", json=rules, headers=seen)
    assert (put.json()["version"], put.headers["ETag"]) == (1, '"1"')
    late = await api("PUT", "/policies", role="admin", tenant="globex", json={"rules": []}, headers=seen)
    assert (late.status_code, late.json()["code"]) == (412, "precondition-failed")
    assert (await api("GET", "/policies", tenant="globex")).json() == put.json()
