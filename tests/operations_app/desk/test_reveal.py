"""Personal data is shown to whoever may see it, and never without a row in the operator log."""

from __future__ import annotations

import json

WHY = {"reasonCode": "customer-asked", "reason": "The customer is on the phone."}


async def test_what_is_revealed_is_written_down_and_not_repeated_there(desk):  # H16
    payment = await desk.payment()
    asked = {"fields": ["payee.name", "payee.identifier", "payer.taxId"], **WHY}
    shown = await desk.ok("POST", f"/transfers/{payment}/reveal", "operator", body=asked, X_Request_Id="req-17")
    assert shown["values"] == {"payee.identifier": "012180001183597198", "payee.name": "Luis Vega", "payer.taxId": None}
    (act,) = await desk.log("pii.reveal")
    assert (act.actor, act.outcome, act.payment_id, act.request_id) == ("olga", "done", payment, "req-17")
    assert (str(act.seq), act.reason_code) == (shown["act"], "customer-asked")
    assert act.after == {"fields": ["payee.identifier", "payee.name", "payer.taxId"]}
    told = json.dumps(act.record())
    assert "Luis" not in told
    assert "012180001183597198" not in told


async def test_without_the_permission_nothing_is_shown_and_the_attempt_is_written_down(desk):
    payment = await desk.payment()
    for role in ("viewer", "approver", "auditor", "admin", "partner"):
        answer = await desk.ask("POST", f"/transfers/{payment}/reveal", role, body={"fields": ["payee.name"], **WHY})
        assert (answer.status_code, answer.json()["code"]) == (403, "role-missing")
    assert await desk.acts(action="pii.reveal", payment_id=payment) == ["refused"] * 5


async def test_another_tenants_payment_is_not_found(desk):  # H16
    payment = await desk.payment(tenant="somebody-else")
    for wanted in (payment, "no-id-at-all"):
        answer = await desk.ask(
            "POST", f"/transfers/{wanted}/reveal", "operator", body={"fields": ["payee.name"], **WHY}
        )
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert await desk.acts(action="pii.reveal") == ["not-found", "not-found"]


NOT_VALID = (
    {"fields": ["payee.name"], "reasonCode": "x-y"},
    {"fields": [], **WHY},
    {"fields": ["payee.cvv"], **WHY},
    {"fields": ["payee.name"], "reasonCode": "x", "reason": "  "},
    {"fields": ["payee.name"], "reasonCode": "x", "reason": "a\x00b"},
    {"fields": ["payee.name"], **WHY, "also": 1},
)


async def test_a_reason_and_known_fields_are_needed(desk):
    payment = await desk.payment()
    for body in NOT_VALID:
        answer = await desk.ask("POST", f"/transfers/{payment}/reveal", "operator", body=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "not-valid"), body
    assert await desk.log("pii.reveal") == []


async def test_when_it_cannot_be_written_down_nothing_is_shown(desk):
    class Broken:
        async def append(self, *_: object) -> int:
            raise RuntimeError

    desk.app.state.journal = Broken()
    answer = await desk.ask(
        "POST", f"/transfers/{await desk.payment()}/reveal", "operator", body={"fields": ["payee.name"], **WHY}
    )
    assert answer.status_code == 500
    assert "Luis" not in answer.text
