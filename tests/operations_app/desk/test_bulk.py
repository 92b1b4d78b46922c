"""Bulk operations: a frozen list, two people, every item once whoever dies."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hub.statements import open_statements
from operations_app.bulk.runner import BulkRunner
from operations_app.bulk.store import BulkStore
from operations_app.journal import Journal
from operations_app.settings import APP_ROLE

PROCESS = Path(__file__).parent / "bulk_process.py"
_spec = importlib.util.spec_from_file_location("bulk_process", PROCESS)
assert _spec is not None
assert _spec.loader is not None
bulk_process = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bulk_process)

REASON = "The account system was away; it is back."


@pytest.fixture(autouse=True)
async def _made(desk) -> AsyncIterator[None]:
    """Where single actions are made, and nothing left of other tests' operations."""
    await desk.owner.rows("DROP TABLE IF EXISTS public.made")
    await desk.owner.rows(bulk_process.TABLE)
    yield
    await desk.owner.rows(
        "UPDATE operations.bulk_operation SET state = 'CANCELLED' WHERE state IN ('RUNNING', 'SUSPENDED')"
    )


def runner_of(desk) -> BulkRunner:
    return BulkRunner(BulkStore(desk.database, lease=1.0), Journal(desk.database), bulk_process.MadeInTable(desk.owner))


async def ask(desk, ids: list[str], *, key: str | None = None, status: int = 202, **more: Any) -> Any:
    body = {"kind": "retry", "selection": {"paymentIds": ids}, "reasonCode": "cause-repaired", "reason": REASON,
            "perSecond": 100, "atOnce": 50} | more  # fmt: skip
    key = key or uuid.uuid4().hex
    return await desk.ok("POST", "/bulk-operations", "operator", body=body, status=status, Idempotency_Key=key)


async def say(
    desk, bulk: Any, step: str, *roles: str, subject: str = "olga", status: int = 200, note: str = "Seen."
) -> Any:
    return await desk.ok(
        "POST", f"/bulk-operations/{bulk['id']}/{step}", *roles, subject=subject, status=status, body={"note": note}
    )


async def approved(desk, ids: list[str], **more: Any) -> Any:
    bulk = await ask(desk, ids, **more)
    return await say(desk, bulk, "approve", "approver", subject="abel")


async def until(desk, bulk: Any, state: str, *runners: BulkRunner, within: float = 20) -> Any:
    end = time.monotonic() + within
    while True:
        for runner in runners:
            await runner.step()
        found = await desk.ok("GET", f"/bulk-operations/{bulk['id']}")
        if found["state"] == state:
            return found
        assert time.monotonic() < end, found
        await asyncio.sleep(0.02)


async def made(desk) -> list[tuple[str, int]]:
    rows = await desk.owner.rows("SELECT payment_id, calls FROM public.made ORDER BY payment_id")
    return [tuple(row) for row in rows]


async def test_the_list_is_frozen_and_somebody_else_lets_it_begin(desk):
    ids = [await desk.payment(amount) for amount in (10_000, 250, 9_990)]
    key = uuid.uuid4().hex
    bulk = await ask(desk, [*ids, ids[0]], key=key)
    assert (bulk["state"], bulk["items"], bulk["approvalsNeeded"]) == ("REQUESTED", 3, 1)
    assert bulk["totals"] == [{"amount": "202.40", "currency": "MXN"}]
    assert (await ask(desk, [*ids, ids[0]], key=key))["id"] == bulk["id"]
    assert (await ask(desk, ids[:1], key=key, status=422))["code"] == "key-reused"
    runner = runner_of(desk)
    assert await runner.step() == 0
    with pytest.raises(psycopg.errors.IntegrityError):
        await desk.owner.rows(
            "UPDATE operations.bulk_item SET payment_id = 'x' WHERE bulk_id = %(b)s", {"b": bulk["id"]}
        )
    with pytest.raises(psycopg.errors.IntegrityError):
        await desk.owner.rows(
            "INSERT INTO operations.bulk_item (bulk_id, position, payment_id, amount, currency) "
            "VALUES (%(b)s, 3, 'x', 1, 'MXN')", {"b": bulk["id"]}
        )  # fmt: skip
    with pytest.raises(psycopg.errors.IntegrityError):
        await desk.owner.rows(
            "UPDATE operations.bulk_operation SET state = 'RUNNING' WHERE id = %(b)s", {"b": bulk["id"]}
        )
    assert (await say(desk, bulk, "approve", "approver", status=403))["code"] == "own-request"
    assert (await say(desk, bulk, "approve", "operator", subject="abel", status=403))["code"] == "role-missing"
    assert (await say(desk, bulk, "approve", "approver", subject="abel"))["state"] == "RUNNING"
    assert (await say(desk, bulk, "approve", "approver", subject="berta", status=409))["code"] == "wrong-state"
    done = await until(desk, bulk, "COMPLETED", runner)
    assert done["counts"]["DONE"] == 3
    assert await made(desk) == sorted((one, 1) for one in ids)
    assert await desk.owner.rows("SELECT DISTINCT approved_by FROM public.made") == [(["abel"],)]
    assert [(act.action, act.actor, act.outcome) for act in await desk.log()] == [
        ("bulk.request", "olga", "REQUESTED"),
        ("bulk.approve", "olga", "refused"),
        ("bulk.approve", "abel", "RUNNING"),
        ("bulk.complete", "payhub", "done"),
    ]
    assert (await desk.log("bulk.request"))[0].after["list_sha256"] == bulk["listSha256"]


async def test_two_approvers_at_once_begin_it_once(desk):
    bulk = await ask(desk, [await desk.payment()])
    path, body = f"/bulk-operations/{bulk['id']}/approve", {"note": "Yes."}
    answers = await asyncio.gather(
        *(desk.ask("POST", path, "approver", subject=who, body=body) for who in ("abel", "berta"))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_each_item_keeps_its_own_error_and_only_failed_ones_are_tried_again(desk):
    ids = [await desk.payment(amount) for amount in (10_000, 10_001, 10_002)]
    bulk = await approved(desk, ids)
    runner = runner_of(desk)
    done = await until(desk, bulk, "COMPLETED", runner)
    assert {state: n for state, n in done["counts"].items() if n} == {"DONE": 1, "FAILED": 2}
    items = (await desk.ok("GET", f"/bulk-operations/{bulk['id']}/items", query={"state": "FAILED"}))["items"]
    assert [(one["paymentId"], one["code"]) for one in items] == [(ids[1], "not-stuck"), (ids[2], "not-seen")]
    await desk.owner.rows("UPDATE channel.payment SET amount = 10000 WHERE id = %(p)s::uuid", {"p": ids[1]})
    again = await say(desk, bulk, "retry-failed", "operator")
    assert (again["state"], again["counts"]["PENDING"]) == ("RUNNING", 2)
    done = await until(desk, bulk, "COMPLETED", runner)
    assert {state: n for state, n in done["counts"].items() if n} == {"DONE": 2, "FAILED": 1}
    assert [key for (key,) in await desk.owner.rows("SELECT key FROM public.made ORDER BY key")] == sorted(
        f"bulk:{bulk['id']}:{position}:{round_}" for position, round_ in ((1, 1), (3, 1), (2, 2), (3, 2))
    )


async def test_a_dry_run_says_what_would_be_possible_and_does_nothing(desk):
    ids = [await desk.payment(amount) for amount in (10_000, 10_001)]
    bulk = await ask(desk, ids, dryRun=True)
    assert (bulk["state"], bulk["approvalsNeeded"]) == ("RUNNING", 0)
    done = await until(desk, bulk, "COMPLETED", runner_of(desk))
    assert {state: n for state, n in done["counts"].items() if n} == {"DONE": 1, "FAILED": 1}
    assert await made(desk) == []


async def test_suspended_nothing_begins_and_cancelled_the_rest_never_does(desk):
    ids = [await desk.payment() for _ in range(6)]
    bulk = await approved(desk, ids, perSecond=1, atOnce=1)
    runner = runner_of(desk)
    await runner.step()
    assert (await say(desk, bulk, "suspend", "operator"))["state"] == "SUSPENDED"
    for _ in range(5):
        await runner.step()
    assert len(await made(desk)) == 1
    assert (await say(desk, bulk, "resume", "operator"))["state"] == "RUNNING"
    assert (await say(desk, bulk, "resume", "operator", status=409))["code"] == "wrong-state"
    cancelled = await say(desk, bulk, "cancel", "operator")
    assert cancelled["state"] == "CANCELLED"
    for _ in range(5):
        await runner.step()
    counts = (await desk.ok("GET", f"/bulk-operations/{bulk['id']}"))["counts"]
    assert {state: n for state, n in counts.items() if n} == {"DONE": 1, "CANCELLED": 5}
    assert len(await made(desk)) == 1


async def test_the_rate_holds_for_all_workers_together(desk):
    ids = [await desk.payment() for _ in range(9)]
    began = time.monotonic()
    bulk = await approved(desk, ids, perSecond=10)
    await until(desk, bulk, "COMPLETED", *(runner_of(desk) for _ in range(3)))
    assert time.monotonic() - began >= 0.35  # five at most at the beginning, then one every tenth of a second


async def test_two_workers_share_the_items_and_no_item_is_done_twice(desk):
    ids = [await desk.payment() for _ in range(40)]
    bulk = await approved(desk, ids)
    async with open_statements(desk.url, 4, role=APP_ROLE) as database:
        other = BulkRunner(BulkStore(database, lease=30), Journal(database), bulk_process.MadeInTable(desk.owner))
        stop = asyncio.Event()

        async def work(runner: BulkRunner) -> None:
            while not stop.is_set():
                await runner.step()
                await asyncio.sleep(0)

        workers = [asyncio.create_task(work(one)) for one in (runner_of(desk), other)]
        await until(desk, bulk, "COMPLETED")
        stop.set()
        await asyncio.gather(*workers)
    assert await made(desk) == sorted((one, 1) for one in ids)
    assert await desk.acts(action="bulk.complete") == ["done"]


@pytest.mark.parametrize(
    "point",
    [
        "operations.bulk.before-lease-commit:2",
        "operations.bulk.before-action:3",
        "operations.bulk.after-action:3",
        "operations.journal.before-commit",
    ],
)
async def test_a_worker_killed_half_way_is_made_up_for_and_each_item_done_once(desk, point):
    ids = [await desk.payment() for _ in range(12)]
    bulk = await approved(desk, ids, perSecond=50, atOnce=4)
    command = [sys.executable, str(PROCESS), desk.url, "15"]
    killed = await asyncio.to_thread(
        subprocess.run, command, env=os.environ | {"PAYHUB_FAILPOINT": point}, check=False, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert (await desk.ok("GET", f"/bulk-operations/{bulk['id']}"))["state"] == "RUNNING"
    done = await until(desk, bulk, "COMPLETED", runner_of(desk))
    assert done["counts"]["DONE"] == 12
    assert [payment for payment, _ in await made(desk)] == sorted(ids)


async def test_a_payment_of_another_tenant_is_in_no_list_and_a_list_of_another_tenant_is_not_found(desk):  # H16
    foreign = await desk.payment(tenant="somebody-else")
    refused = await ask(desk, [await desk.payment(), foreign], status=422)
    assert [one["pointer"] for one in refused["errors"]] == ["/selection/paymentIds/1"]
    bulk = await ask(desk, [await desk.payment()])
    for method, path, role in (
        ("GET", "", "viewer"),
        ("GET", "/items", "viewer"),
        ("POST", "/approve", "approver"),
        ("POST", "/cancel", "operator"),
    ):
        answer = await desk.ask(
            method,
            f"/bulk-operations/{bulk['id']}{path}",
            role,
            tenant="another-bank",
            subject="abel",
            body={"note": "x"},
        )
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert (await desk.ok("GET", "/bulk-operations", tenant="another-bank"))["bulkOperations"] == []
    assert [one["id"] for one in (await desk.ok("GET", "/bulk-operations"))["bulkOperations"]] == [bulk["id"]]


async def overdue(desk) -> dict[str, Any]:
    """A request whose time is over, and nobody has noticed."""
    bulk: dict[str, Any] = await ask(desk, [await desk.payment()])
    late = "UPDATE operations.bulk_operation SET expires_at = now() WHERE id = %(b)s"
    await desk.owner.rows(late, {"b": bulk["id"]})
    return bulk


async def test_what_nobody_approved_in_time_expires_once_in_table_list_and_log_whoever_notices(desk):
    by_worker = await overdue(desk)
    await asyncio.gather(*(runner_of(desk).step() for _ in range(3)))
    assert await desk.acts(action="bulk.expire") == ["EXPIRED"]
    by_reader = await overdue(desk)
    await asyncio.gather(*(desk.ok("GET", "/bulk-operations", query={"state": "EXPIRED"}) for _ in range(3)))
    listed = (await desk.ok("GET", "/bulk-operations", query={"state": "EXPIRED"}))["bulkOperations"]
    assert {one["id"] for one in listed} == {by_worker["id"], by_reader["id"]}
    by_approver = await overdue(desk)
    for step, role, who in (("approve", "approver", "abel"), ("withdraw", "operator", "olga")):
        refused = await say(desk, by_approver, step, role, subject=who, status=409)
        assert (refused["code"], refused["state"]) == ("wrong-state", "EXPIRED")
    rows = await desk.owner.rows(
        "SELECT DISTINCT b.state, b.ended_at IS NOT NULL, i.state FROM operations.bulk_operation b "
        "JOIN operations.bulk_item i ON i.bulk_id = b.id WHERE b.expires_at < b.requested_at + interval '1 min'"
    )
    assert rows == [("EXPIRED", True, "CANCELLED")]
    assert await desk.acts(action="bulk.expire") == ["EXPIRED"] * 3


async def test_an_item_that_was_put_off_is_not_begun_after_its_operation_was_cancelled(desk):
    bulk = await approved(desk, [await desk.payment() for _ in range(2)], perSecond=100)
    store, actions = BulkStore(desk.database, lease=0.1), bulk_process.MadeInTable(desk.owner)
    leased: list[Any] = []
    while len(leased) < 2:
        leased += await store.lease(2) or []
    await actions.make(leased[0])  # and whoever did that died
    await say(desk, bulk, "cancel", "operator")
    await asyncio.sleep(0.25)
    runner = BulkRunner(store, Journal(desk.database), actions)
    for _ in range(3):
        await runner.step()
    found = (await desk.ok("GET", f"/bulk-operations/{bulk['id']}"))["counts"]
    assert {state: n for state, n in found.items() if n} == {"DONE": 1, "CANCELLED": 1}
    assert await made(desk) == [(leased[0].payment_id, 1)]


NONSENSE: tuple[dict[str, Any], ...] = (
    {"kind": "manual-override"},
    {"selection": {}},
    {"selection": {"paymentIds": [], "filter": {"state": ["PENDING"]}}},
    {"selection": {"filter": {}}},
    {"payload": {"incidentKeys": ["1"]}},
    {"reason": "short"},
    {"reason": " " * 20},
    {"reason": "with a \x00 in its middle"},
    {"selection": {"paymentIds": ["\x00"]}},
    {"payload": {"outcome": "SETTLED"}},
    {"kind": "force-complete"},
    {"perSecond": 1000},
    {"unknown": 1},
)


async def test_what_makes_no_sense_for_a_list_is_refused(desk):
    payment = await desk.payment()
    for changes in NONSENSE:
        assert (await ask(desk, [payment], status=422, **changes))["code"] == "not-valid", changes


async def test_a_viewer_asks_for_nothing_and_whoever_asked_takes_it_back(desk):
    bulk = await ask(desk, [await desk.payment()])
    answer = await desk.ask("POST", "/bulk-operations", "viewer", body={}, Idempotency_Key="k")
    assert answer.status_code == 403
    refused = await say(desk, bulk, "withdraw", "operator", subject="otto", status=403)
    assert refused["code"] == "not-own-request"
    assert (await say(desk, bulk, "withdraw", "operator"))["state"] == "WITHDRAWN"
