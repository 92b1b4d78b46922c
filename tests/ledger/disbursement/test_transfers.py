"""Every rule of bank transfers: what they are made of, where they may go, and what the provider's word does to them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from hub.money import Money
from ledger.disbursement.events import EventLog
from ledger.disbursement.model import (
    Collected,
    DuplicateOperation,
    NothingToPay,
    Outcome,
    OutcomeUnknown,
    ReasonMissing,
    Recorded,
    StoreUnknown,
    TransferUnknown,
    TransitionRefused,
    Trigger,
)
from ledger.disbursement.updates import STORE_DUE, TRANSFER_DECIDED, instant_payment_id

WAITING, IN_TRANSIT, APPLIED, CANCELLED, REJECTED = (
    "WAITING_FOR_CONFIRMATION",
    "IN_TRANSIT",
    "APPLIED",
    "CANCELLED",
    "REJECTED",
)
PAID_AT = datetime(2026, 3, 1, 15, 30, tzinfo=UTC)


def mxn(minor: int) -> Money:
    return Money(minor, "MXN")


@pytest.fixture
async def shop(lender):
    """A store with two contributions, 90.00 and 50.00, and nothing else."""
    await lender.store()
    await lender.delivered("c1", "100", "10")
    await lender.delivered("c2", "50")
    return lender


# --- What a transfer is made of


async def test_a_transfer_is_made_of_all_pending_updates_of_one_store_and_is_their_sum(shop):  # L18, L27
    await shop.store("s2")
    await shop.delivered("c3", "1000", store="s2")
    await shop.cancel("c2")
    made = await shop.fire()
    assert isinstance(made, Collected)
    assert (made.transfer.amount, made.updates) == (mxn(90_00), 3)
    items = await shop.transfers.items(shop.name, made.transfer.id)
    assert [item.update.effect.minor for item in items] == [90_00, 50_00, -50_00]
    assert {item.update.store for item in items} == {"s1"}
    assert await shop.statuses("s2") == ["CONTRIBUTION PENDING"]


async def test_an_update_is_in_one_live_transfer_and_the_history_of_its_links_is_kept(shop):  # L19
    first = await shop.sent()
    second = await shop.fire()
    assert isinstance(second, NothingToPay)
    await shop.told(first, Outcome.CANCELLED)
    third = await shop.collected()
    assert {item.released_at is None for item in await shop.transfers.items(shop.name, first.id)} == {False}
    assert {item.released_at is None for item in await shop.transfers.items(shop.name, third.id)} == {True}
    with pytest.raises(psycopg.errors.UniqueViolation):
        await shop.statements.rows(
            "INSERT INTO disbursement.bank_transfer_item (update_id, transfer_id) "
            "SELECT i.update_id, gen_random_uuid()::text FROM disbursement.bank_transfer_item i "
            "WHERE i.transfer_id = %(id)s",
            {"id": third.id},
        )


async def test_a_transfer_keeps_the_account_it_was_made_for(shop):  # L1
    transfer = await shop.collected()
    await shop.account("s1", "002010077777777771")
    found = await shop.transfers.find(shop.name, transfer.id)
    assert found == transfer
    assert found.clabe == "646180110400000007"


async def test_asking_again_under_the_same_payment_id_answers_the_same_transfer(shop):  # L31
    asked, mine = str(uuid.uuid4()), {"process_instance_key": 7}
    first = await shop.transfers.collect(shop.name, "s1", asked, Trigger.DAILY, run_id="r1", **mine)
    await shop.delivered("c3", "1")
    again = await shop.transfers.collect(shop.name, "s1", asked, Trigger.DAILY, process_instance_key=8)
    assert isinstance(first, Collected)
    assert isinstance(again, Collected)
    assert (again.transfer, again.updates, again.again) == (first.transfer, 2, True)
    assert again.transfer.process_instance_key == 7  # the fence: the other instance sees whose it is
    await shop.store("s2")
    for tenant, store in ((shop.name, "s2"), (shop.name, "nope")):
        with pytest.raises((DuplicateOperation, StoreUnknown)):
            await shop.transfers.collect(tenant, store, asked, Trigger.DAILY)
    with pytest.raises(ValueError, match="UUID"):
        await shop.transfers.collect(shop.name, "s1", "not-a-uuid", Trigger.DAILY)


async def test_a_transfer_that_no_instance_had_is_taken_by_the_first_that_asks(shop):
    transfer = await shop.collected()
    for _ in range(2):
        again = await shop.transfers.collect(shop.name, "s1", transfer.id, Trigger.DAILY, process_instance_key=9)
        assert isinstance(again, Collected)
        assert again.transfer.process_instance_key == 9


# --- Where a transfer may go

STEPS = {
    "sent": lambda shop, t: shop.transfers.record_sent(shop.name, t.id),
    "settled": lambda shop, t: shop.told(t, Outcome.SETTLED),
    "cancelled": lambda shop, t: shop.told(t, Outcome.CANCELLED),
    "returned": lambda shop, t: shop.told(t, Outcome.RETURNED),
    "refused": lambda shop, t: shop.told(t, Outcome.REJECTED),
    "confirmed": lambda shop, t: shop.transfers.confirm(shop.name, t.id, "treasury"),
    "called off": lambda shop, t: shop.transfers.cancel(shop.name, t.id, "treasury", "wrong day"),
}
PATHS = {
    WAITING: [],
    IN_TRANSIT: ["sent"],
    APPLIED: ["sent", "settled"],
    CANCELLED: ["sent", "cancelled"],
    REJECTED: ["sent", "returned"],
}
# What each step makes of each status; what is not here is refused. A status in brackets: nothing changes.
ALLOWED = {
    ("sent", WAITING): IN_TRANSIT,
    ("sent", IN_TRANSIT): f"[{IN_TRANSIT}]",
    ("sent", APPLIED): f"[{APPLIED}]",
    ("sent", REJECTED): f"[{REJECTED}]",
    ("settled", WAITING): APPLIED,
    ("settled", IN_TRANSIT): APPLIED,
    ("settled", APPLIED): f"[{APPLIED}]",
    ("cancelled", WAITING): CANCELLED,
    ("cancelled", IN_TRANSIT): CANCELLED,
    ("cancelled", CANCELLED): f"[{CANCELLED}]",
    ("returned", WAITING): REJECTED,
    ("returned", IN_TRANSIT): REJECTED,
    ("returned", APPLIED): REJECTED,
    ("returned", REJECTED): f"[{REJECTED}]",
    ("refused", WAITING): CANCELLED,
    ("refused", IN_TRANSIT): CANCELLED,
    ("refused", CANCELLED): f"[{CANCELLED}]",
}


async def everything(shop):
    """All that a refused or repeated step must leave alone."""
    return await shop.statements.rows(
        "SELECT (SELECT json_agg(t ORDER BY number) FROM disbursement.bank_transfer t WHERE tenant_id = %(t)s)::text, "
        "(SELECT json_agg(u ORDER BY id) FROM disbursement.balance_update u WHERE tenant_id = %(t)s)::text, "
        "(SELECT json_agg(c ORDER BY id) FROM disbursement.credit c WHERE tenant_id = %(t)s)::text, "
        "(SELECT count(*) FROM disbursement.bank_transfer_status s JOIN disbursement.bank_transfer t "
        "ON t.id = s.transfer_id WHERE t.tenant_id = %(t)s), "
        "(SELECT json_agg(i ORDER BY i.update_id) FROM disbursement.bank_transfer_item i "
        "JOIN disbursement.bank_transfer t ON t.id = i.transfer_id WHERE t.tenant_id = %(t)s)::text",
        {"t": shop.name},
    )


@pytest.mark.parametrize("status", PATHS)
async def test_a_transfer_goes_where_it_may_and_all_else_is_refused_and_logged(shop, status):  # L20, L21, L22, L41
    for step, take in STEPS.items():
        transfer = await shop.collected()
        for before in PATHS[status]:
            await STEPS[before](shop, transfer)
        assert await shop.status(transfer) == status
        was, expected = await everything(shop), ALLOWED.get((step, status))
        if expected is None:
            with pytest.raises(TransitionRefused) as refused:
                await take(shop, transfer)
            assert refused.value.detail.startswith(status)
            event = (await shop.transfers.events(shop.name, transfer.id))[-1]
            assert (event.outcome, event.error) == ("refused", str(refused.value))  # L21: refused and logged
            assert await everything(shop) == was
        else:
            recorded = await take(shop, transfer)
            assert await shop.status(transfer) == expected.strip("[]")
            assert (await everything(shop) == was) == expected.startswith("[")  # L41
            assert recorded is (Recorded.REPEATED if expected.startswith("[") else Recorded.CHANGED)
        await shop.delivered(f"{status}-{step}".replace(" ", "-"), "1")  # for the next transfer


@pytest.mark.parametrize("status", PATHS)
async def test_the_table_itself_refuses_each_forbidden_change_of_status(shop, status):  # L21, L22
    transfer = await shop.collected()
    for step in PATHS[status]:
        await STEPS[step](shop, transfer)
    allowed = {
        (WAITING, IN_TRANSIT),
        (WAITING, CANCELLED),
        (IN_TRANSIT, APPLIED),
        (IN_TRANSIT, CANCELLED),
        (IN_TRANSIT, REJECTED),
        (APPLIED, REJECTED),
    }
    for target in PATHS:
        if (status, target) not in allowed:
            with pytest.raises(psycopg.errors.CheckViolation) as raised:
                await shop.statements.rows(
                    "UPDATE disbursement.bank_transfer SET status = %(to)s, settled_at = now() WHERE id = %(id)s",
                    {"to": target, "id": transfer.id},
                )
            assert raised.value.diag.constraint_name == "bank_transfer_transition"


async def test_a_transfer_is_in_transit_only_once_the_provider_took_the_order(shop):  # L24
    transfer = await shop.collected()
    assert transfer.status == WAITING
    assert await shop.statuses() == ["CONTRIBUTION IN_TRANSIT", "CONTRIBUTION IN_TRANSIT"]  # L12
    assert await shop.transfers.record_sent(shop.name, transfer.id) is Recorded.CHANGED
    assert await shop.status(transfer) == IN_TRANSIT


async def test_an_outcome_heard_of_before_the_orders_answer_passes_in_transit(shop):  # L21, L24
    transfer = await shop.collected()
    await shop.told(transfer, Outcome.SETTLED)
    assert [row.status for row in await shop.transfers.history(shop.name, transfer.id)] == [
        WAITING,
        IN_TRANSIT,
        APPLIED,
    ]
    assert await shop.transfers.record_sent(shop.name, transfer.id) is Recorded.REPEATED


# --- What a person decides


@pytest.fixture
async def careful(lender):
    """A store whose transfers somebody must confirm."""
    await lender.store(manual=True)
    await lender.delivered("c1", "100")
    return lender


async def test_a_transfer_waits_for_an_authorised_person_and_goes_when_confirmed(careful):  # L23
    transfer = await careful.collected()
    assert (transfer.status, transfer.needs_confirmation, transfer.must_wait) == (WAITING, True, True)
    for step in ("sent", "settled", "returned"):  # nobody has let it go, so nobody can have sent it
        with pytest.raises(TransitionRefused, match="nobody confirmed"):
            await STEPS[step](careful, transfer)
    confirmed = await careful.transfers.confirm(careful.name, transfer.id, "tesorera")
    assert (confirmed.confirmed_by, confirmed.must_wait) == ("tesorera", False)
    assert await careful.transfers.confirm(careful.name, transfer.id, "otra") == confirmed
    assert await careful.transfers.find(careful.name, transfer.id) == confirmed
    [(message, correlation, payload)] = await careful.outbox()  # one, although confirmed twice
    assert (message, correlation, payload["decision"]) == (TRANSFER_DECIDED, transfer.id, "CONFIRMED")
    await careful.transfers.record_sent(careful.name, transfer.id)
    assert await careful.status(transfer) == IN_TRANSIT


async def test_a_waiting_transfer_is_cancelled_with_a_reason_and_its_updates_are_free(careful):  # L23
    transfer = await careful.collected()
    with pytest.raises(ReasonMissing):
        await careful.transfers.cancel(careful.name, transfer.id, "tesorera", "")
    cancelled = await careful.transfers.cancel(careful.name, transfer.id, "tesorera", "wrong week")
    assert (cancelled.status, cancelled.reason, cancelled.reason_detail) == (
        CANCELLED,
        "CANCELLED_BY_HAND",
        "wrong week",
    )
    assert await careful.transfers.cancel(careful.name, transfer.id, "otra", "me too") == cancelled
    with pytest.raises(TransitionRefused):
        await careful.transfers.confirm(careful.name, transfer.id, "tesorera")
    assert [payload["decision"] for _, _, payload in await careful.outbox()] == ["CANCELLED"]
    assert await careful.statuses() == ["CONTRIBUTION PENDING"]
    assert (await careful.collected()).amount == mxn(100_00)  # L39


async def test_a_confirmed_transfer_and_one_that_waits_for_nobody_are_not_cancelled_by_hand(careful):  # L23
    await careful.store("s2")
    await careful.delivered("c2", "5", store="s2")
    automatic = await careful.collected(store="s2")
    confirmed = await careful.collected()
    await careful.transfers.confirm(careful.name, confirmed.id, "tesorera")
    for transfer in (automatic, confirmed):
        with pytest.raises(TransitionRefused):
            await careful.transfers.cancel(careful.name, transfer.id, "tesorera", "too late")
        assert await careful.status(transfer) == WAITING


# --- What the provider says


async def test_settled_applies_all_and_keeps_the_time(shop):  # L35
    transfer = await shop.sent()
    await shop.delivered("c3", "5")  # and what came after the transfer was made waits for the next
    await shop.transfers.record_outcome(shop.name, transfer.id, Outcome.SETTLED, at=PAID_AT)
    found = await shop.transfers.find(shop.name, transfer.id)
    assert (found.status, found.settled_at) == (APPLIED, PAID_AT)
    applied, pending = "CONTRIBUTION APPLIED", "CONTRIBUTION PENDING"
    assert await shop.statuses() == [applied, applied, pending, "DISBURSEMENT APPLIED"]
    assert [await shop.disbursed(credit) for credit in ("c1", "c2", "c3")] == [True, True, False]
    assert await shop.balance() == "5.00"
    [(reference, effective_at)] = await shop.statements.rows(
        "SELECT t.ext_ref, t.effective_at FROM ledger.txn t JOIN disbursement.balance_update u ON u.txn_id = t.id "
        "WHERE u.transfer_id = %(id)s",
        {"id": transfer.id},
    )
    assert (reference, effective_at) == (transfer.id, PAID_AT)  # what reconciliation with STP goes by


async def test_cancelled_frees_the_updates_and_leaves_the_balance(shop):  # L36
    transfer = await shop.sent()
    await shop.told(transfer, Outcome.CANCELLED, "3")
    found = await shop.transfers.find(shop.name, transfer.id)
    assert (found.status, found.reason) == (CANCELLED, "3")
    assert await shop.statuses() == ["CONTRIBUTION PENDING", "CONTRIBUTION PENDING"]
    assert await shop.balance() == "140.00"
    assert await shop.disbursed("c1") is False


async def test_returned_in_transit_rejects_with_its_cause_and_leaves_the_balance(shop):  # L37
    transfer = await shop.sent()
    await shop.transfers.record_outcome(
        shop.name, transfer.id, Outcome.RETURNED, reason="1", reason_detail="Cuenta inexistente"
    )
    found = await shop.transfers.find(shop.name, transfer.id)
    assert (found.status, found.reason, found.reason_detail) == (REJECTED, "1", "Cuenta inexistente")
    assert await shop.statuses() == ["CONTRIBUTION PENDING", "CONTRIBUTION PENDING"]
    assert await shop.balance() == "140.00"


async def test_returned_after_it_was_applied_overrides_the_disbursement_and_clears_the_flags(shop):  # L22, L38, L40
    transfer = await shop.sent()
    await shop.transfers.record_outcome(shop.name, transfer.id, Outcome.SETTLED, at=PAID_AT)
    months_later = PAID_AT + timedelta(days=90)
    await shop.transfers.record_outcome(shop.name, transfer.id, Outcome.RETURNED, reason="2", at=months_later)
    assert await shop.statuses() == [
        "CONTRIBUTION PENDING",
        "CONTRIBUTION PENDING",
        "DISBURSEMENT APPLIED",
        "DISBURSEMENT_OVERRIDE APPLIED",
    ]
    override, disbursement, *_ = await shop.balances.updates(shop.name, "s1")
    assert (override.overwrites, disbursement.overwritten) == (disbursement.id, True)
    assert await shop.balance() == "140.00"
    assert (await shop.disbursed("c1"), await shop.disbursed("c2")) == (False, False)
    found = await shop.transfers.find(shop.name, transfer.id)
    assert (found.status, found.settled_at, found.reason) == (REJECTED, PAID_AT, "2")
    booked = await shop.statements.rows(
        "SELECT t.effective_at FROM ledger.txn t JOIN disbursement.balance_update u ON u.txn_id = t.id "
        "WHERE u.transfer_id = %(id)s ORDER BY u.id",
        {"id": transfer.id},
    )
    assert booked == [(PAID_AT,), (months_later,)]
    changes = await shop.statements.rows(
        "SELECT disbursed_before, disbursed FROM disbursement.credit_change WHERE tenant_id = %(t)s "
        "AND credit_id = 'c1' ORDER BY id",
        {"t": shop.name},
    )
    assert changes == [(False, True), (True, False)]


async def test_the_next_transfer_is_built_afresh(shop):  # L39
    transfer = await shop.sent()
    await shop.told(transfer, Outcome.RETURNED)
    await shop.cancel("c1")
    await shop.delivered("c3", "7")
    made = await shop.fire()
    assert isinstance(made, Collected)
    assert (made.transfer.amount, made.updates) == (mxn(57_00), 4)


async def test_an_order_that_was_refused_never_is_in_transit(shop):  # L44
    transfer = await shop.collected()
    await shop.transfers.record_outcome(
        shop.name, transfer.id, Outcome.REJECTED, reason="-15", reason_detail="cuenta ordenante invalida"
    )
    assert [row.status for row in await shop.transfers.history(shop.name, transfer.id)] == [WAITING, CANCELLED]
    found = await shop.transfers.find(shop.name, transfer.id)
    assert (found.reason, found.reason_detail) == ("-15", "cuenta ordenante invalida")
    assert await shop.statuses() == ["CONTRIBUTION PENDING", "CONTRIBUTION PENDING"]


async def test_what_is_no_outcome_and_what_is_no_transfer_of_the_tenant_changes_nothing_and_is_logged(
    shop,
):  # L32, L41, H16
    transfer = await shop.sent()
    was = await everything(shop)
    with pytest.raises(OutcomeUnknown):
        await shop.transfers.record_outcome(shop.name, transfer.id, "LIQUIDATED-MAYBE")
    stranger = str(uuid.uuid4())
    for tenant, payment_id in ((shop.name, stranger), ("another-tenant", transfer.id)):
        with pytest.raises(TransferUnknown):
            await shop.transfers.record_outcome(tenant, payment_id, Outcome.SETTLED)
        with pytest.raises(TransferUnknown):
            await shop.transfers.confirm(tenant, payment_id, "treasury")
        assert await shop.transfers.find(tenant, payment_id) is None
    assert await everything(shop) == was
    assert (await shop.transfers.events(shop.name, transfer.id))[-1].outcome == "refused"
    assert [event.outcome for event in await shop.transfers.events(shop.name, stranger)] == ["refused", "refused"]
    assert await shop.transfers.items("another-tenant", transfer.id) == []
    assert await shop.transfers.history("another-tenant", transfer.id) == []


# --- The log of events


async def test_each_incoming_status_is_logged_with_what_became_of_it_repeats_included(shop):  # L34, L41
    transfer = await shop.sent()
    for outcome in (Outcome.SETTLED, Outcome.SETTLED, Outcome.CANCELLED, Outcome.RETURNED):
        try:
            await shop.told(transfer, outcome)
        except TransitionRefused:
            assert outcome is Outcome.CANCELLED
    events = await shop.transfers.events(shop.name, transfer.id)
    assert [(event.kind, event.outcome) for event in events] == [
        ("SETTLED", "handled"),
        ("SETTLED", "repeated"),
        ("CANCELLED", "refused"),
        ("RETURNED", "handled"),
    ]


async def test_when_handling_fails_all_is_undone_but_the_event_and_its_error(own_lender):  # L34
    shop = own_lender
    await shop.store()
    await shop.delivered("c1", "100")
    transfer = await shop.sent()
    was = await everything(shop)
    with psycopg.connect(_address(shop.url), autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no disbursement'; END $$"
        )
        owner.execute(
            "CREATE TRIGGER fail BEFORE INSERT ON disbursement.balance_update FOR EACH ROW "
            "WHEN (NEW.type = 'DISBURSEMENT') EXECUTE FUNCTION public.fail()"
        )
        with pytest.raises(psycopg.errors.RaiseException):
            await shop.told(transfer, Outcome.SETTLED)
        assert await everything(shop) == was
        event = (await shop.transfers.events(shop.name, transfer.id))[-1]
        assert (event.kind, event.outcome, event.error) == ("SETTLED", "failed", "RaiseException P0001")
        owner.execute("DROP TRIGGER fail ON disbursement.balance_update")
    await shop.told(transfer, Outcome.SETTLED)
    assert await shop.status(transfer) == APPLIED


async def test_an_event_whose_handling_was_cut_off_is_found(shop):  # L34
    await shop.statements.rows(
        "INSERT INTO disbursement.event_log (tenant_id, source, kind, event_id, payload) "
        "VALUES (%(t)s, 'stp', 'SETTLED', 'x', '{}')",
        {"t": shop.name},
    )
    found = await EventLog(shop.statements).cut_off(shop.name, timedelta(0))
    assert [(event.event_id, event.outcome) for event in found] == [("x", None)]
    assert await EventLog(shop.statements).cut_off(shop.name) == []


# --- What is asked for by a new update


async def test_a_store_paid_at_once_asks_for_its_transfer_with_each_new_pending_update(lender):  # L17, L26
    await lender.store("s1", frequency="INSTANT")
    await lender.store("s2")
    await lender.delivered("c1", "100")
    await lender.contribute("c1")  # a repeat asks for nothing new
    await lender.delivered("c2", "100", store="s2")
    await lender.adjust("-1", "fix")
    for _ in range(2):
        await lender.balances.change_amount(lender.name, "c1", mxn(90_00), mxn(0), operation="edit", actor="operator")
    await lender.cancel("c1")
    asked = await lender.outbox()
    assert [message for message, _, _ in asked] == [STORE_DUE] * 4
    payment_id = instant_payment_id(lender.name, "c1:delivered")
    assert asked[0] == (
        STORE_DUE,
        payment_id,
        {
            "payment_id": payment_id,
            "tenant_id": lender.name,
            "store_id": "s1",
            "trigger": "INSTANT",
            "run_id": None,
        },
    )
    assert len({payment_id for _, payment_id, _ in asked}) == 4


async def test_what_a_failed_transfer_of_a_store_paid_at_once_freed_asks_for_the_next(lender):  # L26, L39
    await lender.store("s1", frequency="INSTANT")
    await lender.delivered("c1", "100")
    failures = [Outcome.REJECTED, Outcome.CANCELLED, Outcome.RETURNED] + [Outcome.REJECTED] * 7
    for outcome in failures:
        transfer = await lender.collected(Trigger.INSTANT)
        for _ in range(2):  # L41: a repeat asks for nothing new
            await lender.told(transfer, outcome)
    await lender.transfers.record_outcome(lender.name, (await lender.collected(Trigger.INSTANT)).id, Outcome.SETTLED)
    paid = (await lender.transfers.search(lender.name, limit=1))[0]
    await lender.told(paid, Outcome.RETURNED)  # L38
    [_, *asked] = await lender.outbox()
    assert [message for message, _, _ in asked] == [STORE_DUE] * 11
    assert len({payment_id for _, payment_id, _ in asked}) == 11
    waits = await lender.statements.rows(
        "SELECT round(extract(epoch FROM publish_after - created_at) / 60)::int FROM disbursement.outbox "
        "WHERE payload ->> 'tenant_id' = %(tenant)s ORDER BY id",
        {"tenant": lender.name},
    )
    # An account that refuses is not asked again and again.
    assert [minutes for (minutes,) in waits] == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


async def test_what_a_person_cancelled_is_not_asked_for_again(lender):  # L23
    await lender.store("s1", frequency="INSTANT", manual=True)
    await lender.delivered("c1", "100")
    transfer = await lender.collected(Trigger.INSTANT)
    await lender.transfers.cancel(lender.name, transfer.id, "treasury", "the account is being changed")
    assert [message for message, _, _ in await lender.outbox()] == [STORE_DUE, TRANSFER_DECIDED]


async def test_a_store_of_a_partner_who_is_switched_off_asks_for_nothing_and_accrues(lender):  # L30
    await lender.merchant("m2", automation=False)
    await lender.store("s1", merchant="m2", frequency="INSTANT")
    await lender.delivered("c1", "100")
    assert await lender.outbox() == []
    assert await lender.balance() == "100.00"


async def test_transfers_are_found_by_store_merchant_status_and_run_in_pages(lender):
    await lender.store("s1")
    await lender.store("s2")
    await lender.merchant("m2")
    await lender.store("s3", merchant="m2")
    made = []
    for number, store in enumerate(("s1", "s2", "s3", "s1")):
        await lender.delivered(f"c{number}", "10", store=store)
        found = await lender.transfers.collect(
            lender.name, store, str(uuid.uuid4()), Trigger.DAILY, run_id=f"run-{number % 2}"
        )
        assert isinstance(found, Collected)
        made.append(found.transfer)
    await lender.told(made[0], Outcome.SETTLED)

    async def ids(**asked):
        return [one.id for one in await lender.transfers.search(lender.name, **asked)]

    names = [one.id for one in made]
    assert await ids() == names[::-1]
    assert await ids(limit=2) == [names[3], names[2]]
    assert await ids(before=made[2].number, limit=2) == [names[1], names[0]]
    assert await ids(store="s1") == [names[3], names[0]]
    assert await ids(merchant="m2") == [names[2]]
    assert await ids(status=APPLIED) == [names[0]]
    assert await ids(run_id="run-1", store="s2") == [names[1]]
    assert await lender.transfers.search("another-tenant") == []


def _address(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")
