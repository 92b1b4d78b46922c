"""Actions asked for, approved, rejected, withdrawn, expired, confirmed: real tables, documents as a test tells them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import CheckViolation, IntegrityConstraintViolation
from sqlalchemy.engine import make_url

from connectors.channel.store import ChannelStore
from connectors.channel.worker import ChannelWorker
from hub.transfer import TenantId
from operations_app.actions.model import ActionDecided, ActionRequested, Decision, Follows, Kind, State
from operations_app.actions.policy import DEFAULT, Policy, Rule
from operations_app.actions.service import ActionRefused, Actor, KeyReused, Moved, NotAllowed, Unknown
from operations_app.bulk.model import Item, ItemRefused
from operations_app.bulk.single import ActionsOfBulk

MARIA, CARLOS, SOFIA = (Actor(name, TenantId("acme"), ("operator",)) for name in ("maria", "carlos", "sofia"))


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


# ---- asking


async def test_a_retry_needs_nobody_else_and_is_confirmed_by_the_engines_record_only(desk):
    payment = desk.shown.stuck()
    action = await desk.ask(payment)
    assert (action.state, action.approvals_needed) == (State.APPROVED, 0)
    carried = await desk.carrying.carry_out("acme", action.id)
    assert (carried.what_follows, desk.gateway.commands) == (Follows.LOOK, [("retry", 501)])
    assert (await desk.carrying.confirm("acme", action.id)).confirmed is None, "the gateway's answer is no record"
    desk.shown.resolved(payment)
    assert (await desk.carrying.confirm("acme", action.id)).confirmed is True
    assert await desk.log(action) == [
        ("maria", "action.request", "APPROVED"),
        ("hub", "action.carry-out", "CARRYING_OUT"),
        ("hub", "action.confirm", "CONFIRMED"),
    ]


async def test_the_same_key_and_body_is_one_action_and_another_body_is_refused(desk):
    payment = desk.shown.stuck()
    made = await asyncio.gather(*(desk.ask(payment, key="the key") for _ in range(5)))
    assert len({action.id for action in made}) == 1
    with pytest.raises(KeyReused):
        await desk.ask(payment, Kind.CANCEL, key="the key")
    assert (await desk.ask(desk.shown.stuck(), key="the key", by=CARLOS)).id != made[0].id, "keys are each actor's own"


async def test_two_people_at_once_repair_a_payment_once(desk):
    payment = desk.shown.stuck()
    results = await asyncio.gather(
        desk.ask(payment, by=MARIA), desk.ask(payment, Kind.FORCE_FAIL, by=CARLOS), return_exceptions=True
    )
    (refused,) = [one for one in results if isinstance(one, ActionRefused)]
    (made,) = [one for one in results if not isinstance(one, BaseException)]
    assert (refused.code, refused.action_id) == ("repair-under-way", made.id)


async def test_a_payment_that_moved_since_it_was_seen_is_not_acted_on(desk):
    payment = desk.shown.stuck()
    with pytest.raises(Moved):
        await desk.ask(payment, position=6)
    assert (await desk.ask(payment, position=7)).state is State.APPROVED


async def test_another_tenants_payment_and_action_do_not_exist(desk):  # H16
    payment = desk.shown.stuck()
    action = await desk.ask(payment, Kind.CANCEL)
    stranger = Actor("eve", TenantId("globex"), ("operator", "approver"))
    with pytest.raises(Unknown):
        await desk.ask(payment, by=stranger)
    for step in (desk.actions.approve(stranger, action.id), desk.actions.withdraw(stranger, action.id)):
        with pytest.raises(Unknown):
            await step


async def test_what_is_refused_is_in_the_operator_log(desk):
    payment = desk.shown.stuck("capture-hold")
    with pytest.raises(ActionRefused, match="force-complete"):
        await desk.ask(payment, Kind.FORCE_FAIL)
    rows = await desk.database.rows(
        "SELECT actor, outcome FROM operations.act WHERE target = %(t)s", {"t": f"transfer:{payment}"}
    )
    assert rows == [("maria", "refused")]


# ---- approving


async def test_whoever_asks_does_not_decide_and_the_database_says_so_too(desk, tables):
    action = await desk.ask(desk.shown.stuck(), Kind.CANCEL)
    for step in (desk.actions.approve(MARIA, action.id), desk.actions.reject(MARIA, action.id, "no, rather not")):
        with pytest.raises(NotAllowed):
            await step
    with psycopg.connect(plain(tables), autocommit=True) as connection:
        for approver, requested_by in (("maria", "maria"), ("maria", "somebody else")):
            with pytest.raises((CheckViolation, psycopg.errors.ForeignKeyViolation)):
                connection.execute(
                    "INSERT INTO operations.approval (action_id, requested_by, approver, approves) "
                    "VALUES (%s, %s, %s, true)",
                    [action.id, requested_by, approver],
                )
        for state in ("APPROVED", "CARRYING_OUT"):
            with pytest.raises(IntegrityConstraintViolation):
                connection.execute("UPDATE operations.action SET state = %s WHERE id = %s", [state, action.id])


async def test_of_two_approvers_at_once_one_wins(desk):
    action = await desk.ask(desk.shown.stuck(), Kind.CANCEL)
    results = await asyncio.gather(
        desk.actions.approve(CARLOS, action.id), desk.actions.approve(SOFIA, action.id), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in results) == ["Action", "ActionRefused"]
    assert [one.code for one in results if isinstance(one, ActionRefused)] == ["already-decided"]


async def test_large_money_needs_two_different_approvers(desk):
    await desk.ask(await desk.settled(), Kind.RECALL)
    action = await desk.ask(await desk.settled(amount=6_000_000), Kind.RECALL)
    assert action.approvals_needed == 2
    assert (await desk.actions.approve(CARLOS, action.id)).state is State.REQUESTED
    with pytest.raises(ActionRefused, match="already"):
        await desk.actions.approve(CARLOS, action.id)
    assert (await desk.actions.approve(SOFIA, action.id)).state is State.APPROVED


async def test_a_payment_that_moved_before_the_approval_is_not_approved(desk):
    payment = desk.shown.stuck()
    action = await desk.ask(payment, Kind.CANCEL)
    desk.shown.shown_incidents[payment][0]["elementInstanceKey"] = "401"
    with pytest.raises(ActionRefused) as refused:
        await desk.actions.approve(CARLOS, action.id)
    assert refused.value.code == "payment-moved"
    desk.shown.resolved(payment)
    with pytest.raises(ActionRefused):
        await desk.actions.approve(CARLOS, action.id)
    assert (await desk.actions.withdraw(MARIA, action.id)).state is State.WITHDRAWN


async def test_a_payment_that_moved_after_the_approval_is_left_alone(desk):
    payment = desk.shown.stuck()
    action = await desk.ask(payment)
    desk.shown.resolved(payment)
    assert (await desk.carrying.carry_out("acme", action.id)).what_follows is Follows.NOTHING
    found, _ = await desk.actions.find("acme", action.id)
    assert (found.state, desk.gateway.commands) == (State.FAILED, [])


async def test_rejected_withdrawn_and_expired_requests_free_what_they_took(desk):
    payment = await desk.settled()
    for step in ("reject", "withdraw", "expire"):
        action = await desk.ask(payment, Kind.RECALL)
        with pytest.raises(ActionRefused, match="all of it"):
            await desk.ask(payment, Kind.RECALL, by=SOFIA)
        if step == "reject":
            await desk.actions.reject(CARLOS, action.id, "the customer changed it")
        elif step == "withdraw":
            await desk.actions.withdraw(MARIA, action.id)
        else:
            assert await desk.carrying.expire("acme", action.id) is Decision.EXPIRED
        with pytest.raises(ActionRefused, match="already"):
            await desk.actions.approve(CARLOS, action.id)
    assert await desk.store.given_back("acme", payment) == 0


async def test_what_is_given_back_never_comes_to_more_than_the_payment(desk):  # L38
    payment = await desk.settled()
    part = {"amount": "3.00", "currency": "MXN"}
    results = await asyncio.gather(
        *(desk.ask(payment, Kind.RECALL, money=part) for _ in range(6)), return_exceptions=True
    )
    assert sum(1 for one in results if not isinstance(one, BaseException)) == 3
    assert {one.code for one in results if isinstance(one, ActionRefused)} == {"more-than-left"}
    assert await desk.store.given_back("acme", payment) == 900
    rest = await desk.ask(payment, Kind.RECALL)
    assert rest.amount == 100, "all that is left"
    links = await desk.store.links("acme", payment)
    assert sum(link.amount for link in links) == 1000
    assert (await desk.store.links("acme", links[0].linked_payment_id))[0].payment_id == payment


async def test_the_rest_of_a_payment_is_recalled_as_counted_when_it_was_asked_for(desk):  # H7
    payment = await desk.settled()
    part = await desk.ask(payment, Kind.RECALL, money={"amount": "3.00", "currency": "MXN"})
    rest = await desk.ask(payment, Kind.RECALL, by=SOFIA)
    await desk.actions.reject(CARLOS, part.id, "the customer changed it")
    assert (await desk.actions.approve(CARLOS, rest.id)).amount == 700
    carried = await desk.carrying.carry_out("acme", rest.id)
    assert (carried.what_follows, carried.amount) == (Follows.PAYMENT, 700)


async def test_what_a_linked_payment_did_not_bring_back_can_be_asked_back_again(desk):  # H7
    for outcome, left in (("RETURNED", 1000), ("SETTLED", 0)):
        payment = await desk.settled()
        action = await desk.ask(payment, Kind.RECALL)
        await desk.actions.approve(CARLOS, action.id)
        await desk.carrying.carry_out("acme", action.id)
        desk.shown.transfers[action.linked_payment_id] = desk.shown.transfers[payment] | {"outcome": "SETTLED"}
        assert (await desk.carrying.confirm("acme", action.id)).confirmed is True
        await desk.came_to(action.linked_payment_id, outcome)
        assert 1000 - await desk.store.given_back("acme", payment) == left
        if left:
            assert (await desk.ask(payment, Kind.RECALL)).amount == left


async def test_a_linked_payment_that_nobody_saw_end_in_time_keeps_its_money_until_it_is_known(desk):  # H7
    payment = await desk.settled()
    action = await desk.ask(payment, Kind.RECALL)
    await desk.actions.approve(CARLOS, action.id)
    await desk.carrying.carry_out("acme", action.id)
    await desk.database.rows("UPDATE operations.action SET confirm_by = now() WHERE id = %(id)s", {"id": action.id})
    assert (await desk.carrying.confirm("acme", action.id)).confirmed is False
    assert await desk.store.given_back("acme", payment) == 1000
    await desk.came_to(action.linked_payment_id, "REJECTED")
    assert await desk.store.given_back("acme", payment) == 0


async def test_a_recall_is_confirmed_by_the_linked_payment_and_fails_with_it(desk):
    for outcome, state in (("SETTLED", State.CONFIRMED), ("REJECTED", State.FAILED)):
        payment = await desk.settled()
        action = await desk.ask(payment, Kind.RECALL)
        await desk.actions.approve(CARLOS, action.id)
        carried = await desk.carrying.carry_out("acme", action.id)
        assert carried.what_follows is Follows.PAYMENT
        assert (carried.payer.identifier, carried.payee.identifier) == ("bruno", "ana")
        assert (await desk.carrying.confirm("acme", action.id)).confirmed is None
        body = desk.shown.transfers[payment] | {"outcome": outcome}
        desk.shown.transfers[carried.linked_payment_id] = body
        await desk.carrying.confirm("acme", action.id)
        assert (await desk.actions.find("acme", action.id))[0].state is state
        assert await desk.store.given_back("acme", payment) == (1000 if state is State.CONFIRMED else 0)


async def test_a_recall_over_stp_waits_for_the_money_or_for_the_banks_answer(desk):
    answered, came = [await desk.settled(rail="rail-stp") for _ in range(2)]
    for payment in (answered, came):
        action = await desk.ask(payment, Kind.RECALL)
        await desk.actions.approve(CARLOS, action.id)
        assert (await desk.carrying.carry_out("acme", action.id)).what_follows is Follows.RECALL
        assert await desk.carrying.look_for_money("acme", action.id) is True
        if payment == answered:
            await desk.actions.answer(MARIA, action.id, "NOT_RETURNED", "the account is empty")
        else:
            desk.shown.transfers[payment]["outcome"] = "RETURNED"
        assert await desk.carrying.look_for_money("acme", action.id) is False
        await desk.carrying.confirm("acme", action.id)
        wanted = State.FAILED if payment == answered else State.CONFIRMED
        assert (await desk.actions.find("acme", action.id))[0].state is wanted


async def test_what_no_record_shows_in_time_fails_visibly(desk, tables):
    action = await desk.ask(desk.shown.stuck())
    await desk.carrying.carry_out("acme", action.id)
    await desk.database.rows("UPDATE operations.action SET confirm_by = now() WHERE id = %(id)s", {"id": action.id})
    (action, _), now = await desk.actions.find("acme", action.id), desk.shown.until
    for late in (None, action.confirm_by):  # the views were away, and show less than what happened in time
        desk.shown.until = late
        assert (await desk.carrying.confirm("acme", action.id)).confirmed is None
    desk.shown.until = now
    assert (await desk.carrying.confirm("acme", action.id)).confirmed is False
    found, _ = await desk.actions.find("acme", action.id)
    assert (found.state, found.code) == (State.FAILED, "unconfirmed")
    with psycopg.connect(plain(tables), autocommit=True) as connection, pytest.raises(psycopg.Error):
        connection.execute("UPDATE operations.action SET state = 'CONFIRMED' WHERE id = %s", [action.id])


async def test_what_the_engine_refuses_fails(desk):
    action = await desk.ask(desk.shown.stuck())
    desk.gateway.refuses = True
    assert (await desk.carrying.carry_out("acme", action.id)).what_follows is Follows.NOTHING
    assert (await desk.actions.find("acme", action.id))[0].code == "engine-refused"


# ---- policies


async def test_a_tenants_policy_counts_from_now_on_and_is_in_the_log(desk):
    admin = Actor("ada", TenantId("acme"), ("admin",))
    strict = Policy(
        rules=(
            Rule(kind=Kind.RETRY, approvals=1),
            Rule(kind=Kind.RETRY, currency="MXN", from_amount="5.00", approvals=2),
        )
    )
    try:
        assert await desk.actions.put_policy(admin, strict, 0) == 1
        assert (await desk.ask(desk.shown.stuck(amount=499))).approvals_needed == 1
        assert (await desk.ask(desk.shown.stuck(amount=500))).approvals_needed == 2
        assert (await desk.ask(desk.shown.stuck(), Kind.CANCEL)).approvals_needed == 2, "no rule: two"
        rows = await desk.database.rows("SELECT actor, outcome FROM operations.act WHERE action = 'policy.change'")
        assert rows == [("ada", "done")]
        # More at once than there are connections.
        ended = await asyncio.gather(
            *(desk.actions.put_policy(admin, strict, 1) for _ in range(9)), return_exceptions=True
        )
        assert Counter(map(type, ended)) == {int: 1, Moved: 8}
    finally:
        await desk.database.rows(
            "UPDATE operations.policy SET rules = %(rules)s::jsonb", {"rules": DEFAULT.model_dump_json()[9:-1]}
        )


async def test_an_item_of_a_list_fails_when_the_policy_asks_for_more_than_the_list_has(desk):
    payment, single = desk.shown.stuck(amount=500), ActionsOfBulk(desk.actions)
    reason = "the reason is a test"
    item = Item("b", 1, 1, TenantId("acme"), payment, "cancel", {}, "other", reason, "maria", ["operator"], [], False)
    await single.check(item)
    with pytest.raises(ItemRefused, match="approvals-missing"):
        await single.make(item)
    action, _ = await desk.actions.find("acme", str(await single.find(item)))
    assert action.state is State.WITHDRAWN, "and nothing is left that holds up the payment"
    await single.make(replace(item, position=2, approved_by=["carlos"]))
    assert await single.find(replace(item, position=3)) is None
    with pytest.raises(ItemRefused, match="repair-under-way"):
        await single.check(item)


@pytest.mark.parametrize(
    "rule", [{"from_amount": "1"}, {"currency": "XXX"}, {"currency": "MXN", "from_amount": "0.001"}]
)
def test_a_policy_that_means_nothing_is_refused(rule):
    with pytest.raises(ValueError, match=r"amount|currency|decimal"):
        Rule(kind=Kind.RETRY, approvals=1, **rule)


# ---- the engine is told, whoever dies where


def dies(tables: str, failpoint: str, step: str, *arguments: str) -> None:
    """Do a step in a process that is killed at this point."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("dying.py")), step, tables, *arguments],
        env={**os.environ, "PAYHUB_FAILPOINT": failpoint, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def dying(tables: str) -> Callable[..., None]:
    return lambda failpoint, step, *arguments: dies(tables, failpoint, step, *arguments)


async def told(desk) -> list[Any]:
    """What the engine is given when leases are over."""
    await desk.database.rows("UPDATE operations.action_outbox SET publish_after = now() WHERE published_at IS NULL")
    while await desk.relay.publish_due():
        pass
    return list(desk.gateway.messages)


async def test_a_request_is_told_to_the_engine_once_it_is_written(desk, dying):
    await told(desk)
    payment = str(uuid.uuid4())
    dying("operations.actions.before-commit", "ask", payment)
    assert not await desk.store.listed("acme", "maria", "all", payment_id=payment, after=None, limit=9)
    dying("operations.actions.after-commit", "ask", payment)
    for point in (
        "operations.actions.after-lease",
        "operations.actions.before-publish",
        "operations.actions.after-publish",
    ):
        await desk.database.rows("UPDATE operations.action_outbox SET publish_after = now() WHERE published_at IS NULL")
        dying(point, "publish", payment)
    (action,) = await desk.store.listed("acme", "maria", "all", payment_id=payment, after=None, limit=9)
    before = len(desk.gateway.messages)
    (message,) = (await told(desk))[before:]
    assert isinstance(message, ActionRequested)
    assert (message.message_id, message.approvals_needed) == (action.id, 0)
    assert len(await told(desk)) == before + 1, "and never again"


async def test_an_approval_is_told_even_when_the_process_dies_after_it(desk, dying):
    await told(desk)
    payment = desk.shown.stuck()
    action = await desk.ask(payment, Kind.CANCEL)
    dying("operations.actions.after-approval", "approve", payment, action.id)
    decided = [one for one in await told(desk) if isinstance(one, ActionDecided) and one.action_id == action.id]
    assert [one.decision for one in decided] == [Decision.APPROVED]


@pytest.mark.parametrize("point", ["operations.actions.before-commands", "operations.actions.after-commands"])
async def test_commands_are_given_again_after_a_crash_and_the_record_says_what_became_of_them(desk, dying, point):
    payment = desk.shown.stuck()
    action = await desk.ask(payment)
    dying(point, "carry-out", payment, action.id)
    desk.gateway.refuses = True  # the first time it was carried out, and the incident is gone
    assert (await desk.carrying.carry_out("acme", action.id)).what_follows is Follows.LOOK
    desk.shown.resolved(payment)
    assert (await desk.carrying.confirm("acme", action.id)).confirmed is True


@pytest.mark.parametrize("point", ["channel.accept-linked.before-commit", "channel.accept-linked.after-commit"])
async def test_a_linked_payment_is_accepted_once(desk, dying, linked_payment, point):
    payment = str(uuid.uuid4())
    dying(point, "accept", payment)
    worker = ChannelWorker(ChannelStore(desk.database), lambda: None)
    for _ in range(2):
        await worker.accept_linked_payment(linked_payment(payment))
    rows = await desk.database.rows("SELECT amount FROM channel.payment WHERE id = %(id)s", {"id": payment})
    assert rows == [(1,)]
