"""The log of STP's posts, and handling one once more."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from connectors.stp.accounts import AccountKind
from connectors.stp.deposit_store import DepositStore, Receiver

WHY = {"reasonCode": "cause-repaired", "reason": "The order has been entered by hand."}
_numbers = count(1)


def status(desk, key: str, estado: str = "LQ", **more: Any) -> bytes:
    said = {"id": next(_numbers), "empresa": desk.tenant.upper(), "claveRastreo": key, "estado": estado,
            "causaDevolucion": None, "tsLiquidacion": 1763481600123}  # fmt: skip
    return json.dumps(said | more).encode()


def deposit(desk, clabe: str) -> bytes:
    number = next(_numbers)
    said = {
        "id": 70_000_000 + number, "fechaOperacion": 20261118, "institucionOrdenante": 40012,
        "claveRastreo": f"{desk.tenant}-{number}", "monto": 125.50, "nombreOrdenante": "José Pérez",
        "tipoCuentaOrdenante": 40, "cuentaOrdenante": "012180001183597198", "rfcCurpOrdenante": "PEPJ800101AB1",
        "nombreBeneficiario": "Ana Prueba", "tipoCuentaBeneficiario": 40, "cuentaBeneficiario": clabe,
        "conceptoPago": "Renta", "empresa": "TAMIZI", "tipoPago": 1,
    }  # fmt: skip
    return json.dumps(said).encode()


async def listed(desk, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await desk.ok("GET", "/stp/callbacks", "viewer", query=query))["callbacks"]
    return found


async def test_each_post_is_listed_with_how_it_matched(desk):  # H4 L34 L41
    payment, key = await desk.order()
    settled = status(desk, key)
    for body in (settled, settled, status(desk, key), status(desk, key, "D", causaDevolucion=1), status(desk, key)):
        await desk.callbacks.receive(body, 1)
    await desk.callbacks.receive(status(desk, "PHNOBODYS"), 1)
    await desk.callbacks.receive(status(desk, key, "ZZ"), 1)
    found = await listed(desk)
    assert [(one["match"], one["result"], one["times"]) for one in found] == [
        ("found", "unknown-status", 1),
        ("unknown", "unknown-order", 1),
        ("out-of-order", "unchanged", 1),
        ("found", "moved", 1),
        ("duplicate", "unchanged", 1),
        ("found", "moved", 2),
    ]
    assert {one["trackingKey"] for one in found} == {key, "PHNOBODYS"}
    assert {one["paymentId"] for one in found if one["match"] != "unknown"} == {payment}
    assert {one["authentication"] for one in found} == {"passed"}
    assert len(await listed(desk, paymentId=payment)) == 5
    assert len(await listed(desk, trackingKey=key, result="moved")) == 2
    assert [one["match"] for one in await listed(desk, match="unknown")] == ["unknown"]
    assert await listed(desk, kind="deposit") == []


async def test_a_body_is_shown_masked(desk):
    clabe = f"64618{next(_numbers):013d}"
    await DepositStore(desk.owner).put_receivers([Receiver(AccountKind.CLABE, clabe[:18], desk.tenant)])
    body = deposit(desk, clabe)
    await desk.deposits.receive(body, 0.05)
    (found,) = await listed(desk, kind="deposit")
    assert (found["match"], found["result"], found["answer"]) == ("found", "taken", "confirmar")
    assert found["body"]["cuentaBeneficiario"] == f"**************{clabe[-4:]}"
    assert found["body"]["monto"] == 125.5
    text = json.dumps(found, ensure_ascii=False)
    assert not [one for one in ("José", "Pérez", "Ana", "PEPJ800101AB1", "012180001183597198", clabe) if one in text]
    revealed = await desk.ok(
        "POST",
        f"/transfers/{found['paymentId']}/reveal",
        "treasury",
        body={"fields": ["payer.name", "payee.identifier"], **WHY},
    )
    assert revealed["values"] == {"payee.identifier": clabe, "payer.name": "José Pérez"}


async def test_pages_hold_every_post_once(desk):
    _, key = await desk.order()
    for _ in range(7):
        await desk.callbacks.receive(status(desk, key), 1)
    whole = [one["id"] for one in await listed(desk)]
    pages, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = await desk.ok("GET", "/stp/callbacks", query=query)
        pages += [one["id"] for one in page["callbacks"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert pages == whole
    assert len(set(pages)) == 7
    assert (await desk.ask("GET", "/stp/callbacks", query={"sate": "x"})).status_code == 422


async def test_nobody_sees_another_tenants_posts(desk):  # H16
    _, key = await desk.order()
    await desk.callbacks.receive(status(desk, key), 1)
    await desk.callbacks.receive(status(desk, "PHNOBODYS"), 1)
    mine = await listed(desk)
    assert len(mine) == 2
    for one in mine:
        for method, path, role in (
            ("GET", f"/stp/callbacks/{one['id']}", "viewer"),
            ("POST", f"/stp/callbacks/{one['id']}/reprocess", "operator"),
        ):
            answer = await desk.ask(method, path, role, tenant="another-bank", body=WHY)
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert (await desk.ok("GET", "/stp/callbacks", tenant="another-bank"))["callbacks"] == []


async def test_a_post_that_matched_nothing_moves_its_order_when_it_is_handled_again(desk):  # H4 L41
    payment, key = await desk.order()
    await desk.owner.rows(
        "UPDATE stp.stp_order SET sending = 'NOT_SENT', doubts = 0 WHERE payment_id = %(p)s", {"p": payment}
    )
    other = f"PHX{key[3:]}"
    await desk.callbacks.receive(status(desk, other), 1)
    (unknown,) = await listed(desk, match="unknown")
    path = f"/stp/callbacks/{unknown['id']}/reprocess"
    still = await desk.ok("POST", path, "operator", body=WHY)
    assert (still["changed"], still["callback"]["match"]) == (False, "unknown")
    await desk.owner.rows(
        "INSERT INTO stp.stp_order (payment_id, tenant_id, company, tracking_key, amount, payee_account, body, "
        "joined_sha256, operation_date, sending) SELECT %(new)s, tenant_id, company, %(key)s, amount, payee_account, "
        "body, joined_sha256, operation_date, 'ACCEPTED' FROM stp.stp_order WHERE payment_id = %(p)s",
        {"new": f"{payment}-2", "key": other, "p": payment},
    )
    moved = await desk.ok("POST", path, "operator", body=WHY)
    assert (moved["changed"], moved["callback"]["result"], moved["callback"]["state"]) == (True, "moved", "SETTLED")
    assert [message.payment_id for message in desk.engine.messages] == [f"{payment}-2"]
    rows_before = await desk.owner.rows("SELECT * FROM stp.observation ORDER BY id")
    again = await desk.ok("POST", path, "operator", body=WHY)
    assert (again["changed"], again["callback"]) == (
        False,
        moved["callback"] | {"handledAt": again["callback"]["handledAt"]},
    )
    assert len(desk.engine.messages) == 1
    assert await desk.owner.rows("SELECT * FROM stp.observation ORDER BY id") == rows_before
    acts = await desk.log("callback.reprocess")
    assert [one.outcome for one in acts] == ["requested", "done"] * 3
    assert (acts[3].before["match"], acts[3].after["result"], acts[3].payment_id) == (
        "unknown",
        "moved",
        f"{payment}-2",
    )


async def test_a_deposit_handled_again_changes_nothing(desk):  # L41
    clabe = f"64617{next(_numbers):013d}"
    await DepositStore(desk.owner).put_receivers([Receiver(AccountKind.CLABE, clabe, desk.tenant)])
    await desk.deposits.receive(deposit(desk, clabe), 0.05)
    (found,) = await listed(desk)
    before = await desk.owner.rows("SELECT * FROM stp.deposit WHERE payment_id = %(p)s", {"p": found["paymentId"]})
    for _ in range(2):
        again = await desk.ok("POST", f"/stp/callbacks/{found['id']}/reprocess", "operator", body=WHY)
        assert again["changed"] is False
    assert before == await desk.owner.rows(
        "SELECT * FROM stp.deposit WHERE payment_id = %(p)s", {"p": found["paymentId"]}
    )
    assert len(desk.engine.messages) == 1


async def test_with_the_engine_away_the_attempt_is_written_down_as_failed(desk):
    _, key = await desk.order()
    desk.engine.away = True
    await desk.callbacks.receive(status(desk, key), 0.2)
    (found,) = await listed(desk)
    await desk.owner.rows(
        "UPDATE stp.stp_order SET state = 'PENDING', observation = NULL WHERE tracking_key = %(k)s", {"k": key}
    )
    await desk.owner.rows("UPDATE stp.callback SET result = NULL WHERE id = %(i)s", {"i": int(found["id"])})
    answer = await desk.ask("POST", f"/stp/callbacks/{found['id']}/reprocess", "operator", body=WHY)
    assert answer.status_code == 503
    assert await desk.acts(action="callback.reprocess") == ["requested", "failed"]


async def test_only_operators_handle_a_post_again(desk):
    for role in ("viewer", "approver", "treasury", "auditor"):
        answer = await desk.ask("POST", "/stp/callbacks/1/reprocess", role, body=WHY)
        assert (answer.status_code, answer.json()["code"]) == (403, "role-missing")
