"""Every rule of balance updates: what changes a store's balance, by how much, and what can be undone (L1 to L17)."""

from __future__ import annotations

import psycopg
import pytest

from hub.money import Money
from ledger.disbursement.model import (
    AlreadyContributed,
    AlreadyOverwritten,
    BadAmount,
    BookUnknown,
    CreditUnknown,
    DuplicateOperation,
    NoCommission,
    NotContributed,
    NothingToPay,
    NotOverwritable,
    Outcome,
    ReasonMissing,
    StoreUnknown,
    UpdateStatus,
    UpdateType,
)
from ledger.disbursement.updates import compensation_of
from ledger.disbursement.verify import verify
from ledger.verify import verify as verify_book


def mxn(minor: int) -> Money:
    return Money(minor, "MXN")


async def test_each_store_of_a_merchant_has_one_balance_of_its_own_which_only_updates_change(lender):  # L1
    await lender.store("s1")
    await lender.store("s2")
    await lender.delivered("c1", "100")
    assert (await lender.balance("s1"), await lender.balance("s2")) == ("100.00", "0.00")
    assert await lender.booked("store-payable", "s1") == 100_00
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await lender.statements.rows("UPDATE disbursement.balance_update SET effect = 1, new = 1")


async def test_an_update_records_what_it_did_to_the_balance_and_why(lender):  # L2
    await lender.store()
    made = await lender.delivered("c1", "100.00", "12.50")
    assert (made.type, made.effect, made.previous, made.new) == (
        UpdateType.CONTRIBUTION,
        mxn(87_50),
        mxn(0),
        mxn(87_50),
    )
    assert (made.status, made.overwritten, made.store, made.credit, made.transfer) == (
        UpdateStatus.PENDING,
        False,
        "s1",
        "c1",
        None,
    )
    assert (made.operation, made.actor, made.reason) == ("c1:delivered", "partner", None)


async def test_each_update_begins_where_the_one_before_ended_and_the_last_one_is_the_balance(lender):  # L3, L4
    await lender.store()
    assert await lender.balance() == "0.00"  # L4
    await lender.delivered("c1", "100")
    await lender.delivered("c2", "50")
    await lender.cancel("c1")
    await lender.adjust("-7.50", "fix")
    updates = list(reversed(await lender.balances.updates(lender.name, "s1")))
    assert [update.sequence for update in updates] == [1, 2, 3, 4]
    assert [update.previous.minor for update in updates] == [0, 100_00, 150_00, 50_00]
    assert [update.new.minor for update in updates] == [100_00, 150_00, 50_00, 42_50]
    assert await lender.balance() == "42.50"
    await lender.sent()
    assert await lender.balance() == "42.50"  # L4: what is in transit is owed


async def test_the_five_types_are_booked_against_the_accounts_they_belong_to(lender):  # L5
    await lender.store()
    await lender.delivered("c1", "100", "10")
    assert await lender.booked("credit-receivable") == 100_00
    assert await lender.booked("commission-income") == 10_00
    await lender.delivered("c2", "60", "6")
    await lender.cancel("c2")
    assert await lender.booked("credit-receivable") == 100_00
    assert await lender.booked("commission-income") == 10_00
    await lender.adjust("-5", "fix")
    assert await lender.booked("balance-adjustment") == 5_00
    await lender.adjust("2", "back")
    assert await lender.booked("balance-adjustment") == 3_00
    transfer = await lender.sent()
    await lender.told(transfer, Outcome.SETTLED)
    assert await lender.booked("stp-settlement") == -87_00
    await lender.told(transfer, Outcome.RETURNED)
    assert await lender.booked("stp-settlement") == 0
    types = {update.type for update in await lender.balances.updates(lender.name, "s1")}
    assert types == set(UpdateType)


async def test_a_contribution_is_the_amount_less_the_commission_stored_on_the_credit(lender):  # L6, L7
    await lender.store()
    await lender.credit("c1", "100", "10")
    await lender.statements.rows(
        "INSERT INTO disbursement.commission_standard (tenant_id, merchant_id, basis_points, actor) "
        "VALUES (%(tenant)s, 'm1', 2500, 'treasury')",
        {"tenant": lender.name},
    )
    assert (await lender.contribute("c1")).effect == mxn(90_00)


@pytest.mark.parametrize(("commission", "effect"), [("0", 100_00), ("100", 0)])
async def test_a_commission_of_nothing_or_of_everything_is_booked_without_an_empty_leg(lender, commission, effect):
    await lender.store()
    assert (await lender.delivered("c1", "100", commission)).effect == mxn(effect)  # L6
    await lender.cancel("c1")
    assert await lender.balance() == "0.00"


async def test_a_delivery_that_is_notified_twice_contributes_once(lender):  # L6
    await lender.store()
    first = await lender.delivered("c1", "100")
    assert await lender.contribute("c1") == first
    with pytest.raises(AlreadyContributed) as refused:
        await lender.balances.contribute(lender.name, "c1", operation="another", actor="partner")
    assert refused.value.detail == "c1:delivered"
    assert await lender.balance() == "100.00"


async def test_a_credit_without_a_commission_is_not_contributed(lender):  # L45
    await lender.store()
    with pytest.raises(NoCommission):
        await lender.delivered("c1", "100", None)
    with pytest.raises(NoCommission):
        await lender.balances.change_amount(lender.name, "c1", mxn(1), mxn(0), operation="edit", actor="operator")
    assert await lender.balance() == "0.00"


async def test_a_disbursement_and_its_override_are_born_applied_with_the_transfers_amount(lender):  # L8, L9
    await lender.store()
    await lender.delivered("c1", "100")
    transfer = await lender.sent()
    assert "DISBURSEMENT APPLIED" not in await lender.statuses()  # L8: only once it is settled
    await lender.told(transfer, Outcome.SETTLED)
    await lender.told(transfer, Outcome.RETURNED)
    _, disbursement, override = reversed(await lender.balances.updates(lender.name, "s1"))
    assert (disbursement.effect, override.effect) == (mxn(-100_00), mxn(100_00))
    assert [disbursement.status, override.status] == [UpdateStatus.APPLIED, UpdateStatus.APPLIED]
    assert [disbursement.transfer, override.transfer] == [transfer.id, transfer.id]
    for update in (disbursement, override):
        assert [row.status for row in await lender.balances.history(lender.name, update.id)] == ["APPLIED"]  # L13


@pytest.mark.parametrize("how_far", ["PENDING", "IN_TRANSIT", "APPLIED"])
async def test_a_cancellation_compensates_a_contribution_however_far_that_one_is(lender, how_far):  # L10
    await lender.store()
    made = await lender.delivered("c1", "100", "10")
    if how_far != "PENDING":
        transfer = await lender.sent()
        if how_far == "APPLIED":
            await lender.told(transfer, Outcome.SETTLED)
    cancelled = await lender.cancel("c1")
    assert (cancelled.type, cancelled.effect, cancelled.overwrites) == (
        UpdateType.CREDIT_CANCELLATION,
        mxn(-90_00),
        made.id,
    )
    assert cancelled.status is UpdateStatus.PENDING
    assert await lender.balance() == ("-90.00" if how_far == "APPLIED" else "0.00")
    contribution = (await lender.balances.updates_of_credit(lender.name, "c1"))[0]
    assert (contribution.status, contribution.overwritten) == (how_far, True)  # L15


async def test_the_next_transfer_nets_a_cancellation(lender):  # L10
    await lender.store()
    await lender.delivered("c1", "100")
    await lender.told(await lender.sent(), Outcome.SETTLED)
    await lender.cancel("c1")
    await lender.delivered("c2", "250")
    assert (await lender.collected()).amount == mxn(150_00)


async def test_an_adjustment_goes_either_way_and_needs_a_reason(lender):  # L11
    await lender.store()
    assert (await lender.adjust("25", "up")).new == mxn(25_00)
    assert (await lender.adjust("-40", "down")).new == mxn(-15_00)
    with pytest.raises(ReasonMissing):
        await lender.balances.adjust(lender.name, "s1", mxn(1), operation="x", reason=" ", actor="treasury")
    with pytest.raises(BadAmount):
        await lender.adjust("0", "nothing")
    assert await lender.balance() == "-15.00"


async def test_a_trigger_picks_pending_updates_only_and_never_one_that_was_born_applied(lender):  # L12
    await lender.store()
    await lender.delivered("c1", "100")
    first = await lender.sent()
    assert isinstance(await lender.fire(), NothingToPay)
    await lender.delivered("c2", "30")
    second = await lender.collected()
    assert second.amount == mxn(30_00)
    await lender.told(first, Outcome.SETTLED)
    await lender.told(first, Outcome.RETURNED)
    third = await lender.collected()
    items = await lender.transfers.items(lender.name, third.id)
    assert [item.update.type for item in items] == [UpdateType.CONTRIBUTION]
    assert third.amount == mxn(100_00)


async def test_every_change_of_status_adds_a_record(lender):  # L13
    await lender.store()
    made = await lender.delivered("c1", "100")
    transfer = await lender.sent()
    await lender.told(transfer, Outcome.SETTLED)
    await lender.told(transfer, Outcome.RETURNED)
    again = await lender.sent()
    await lender.told(again, Outcome.CANCELLED)
    history = await lender.balances.history(lender.name, made.id)
    assert [row.status for row in history] == ["PENDING", "IN_TRANSIT", "APPLIED", "PENDING", "IN_TRANSIT", "PENDING"]
    assert (history[0].cause, history[0].actor) == ("delivered", "partner")
    assert [row.status for row in await lender.transfers.history(lender.name, transfer.id)] == [
        "WAITING_FOR_CONFIRMATION",
        "IN_TRANSIT",
        "APPLIED",
        "REJECTED",
    ]
    assert await lender.balances.history("another-tenant", made.id) == []


async def test_only_disbursements_and_contributions_are_overwritten(lender):  # L14, L16
    await lender.store()
    await lender.delivered("c1", "100")
    transfer = await lender.sent()
    await lender.told(transfer, Outcome.SETTLED)
    await lender.adjust("1", "fix")
    kept = {update.type: update for update in await lender.balances.updates(lender.name, "s1")}
    assert compensation_of(kept[UpdateType.CONTRIBUTION]) is UpdateType.CREDIT_CANCELLATION
    assert compensation_of(kept[UpdateType.DISBURSEMENT]) is UpdateType.DISBURSEMENT_OVERRIDE
    await lender.cancel("c1")
    await lender.told(transfer, Outcome.RETURNED)
    for update in await lender.balances.updates(lender.name, "s1"):
        with pytest.raises(AlreadyOverwritten if update.overwritten else NotOverwritable):
            compensation_of(update)
        if not update.overwritten:
            with pytest.raises(psycopg.errors.CheckViolation) as raised:
                await lender.statements.rows(
                    "UPDATE disbursement.balance_update SET overwritten = true WHERE id = %(id)s", {"id": update.id}
                )
            assert raised.value.diag.constraint_name == "balance_update_overwritable"


async def test_overwriting_flags_the_old_update_and_leaves_its_amounts(lender):  # L15
    await lender.store()
    made = await lender.delivered("c1", "100", "10")
    cancelled = await lender.cancel("c1")
    old = (await lender.balances.updates_of_credit(lender.name, "c1"))[0]
    assert (old.effect, old.previous, old.new, old.overwritten) == (made.effect, made.previous, made.new, True)
    assert cancelled.overwrites == old.id


async def test_an_update_is_overwritten_once_and_stays_so(lender):  # L16
    await lender.store()
    made = await lender.delivered("c1", "100")
    first = await lender.cancel("c1")
    assert await lender.cancel("c1") == first  # the same operation again
    with pytest.raises(AlreadyOverwritten) as refused:
        await lender.balances.cancel_credit(lender.name, "c1", operation="2nd", reason="again", actor="partner")
    assert refused.value.detail == "c1:cancelled"
    with pytest.raises(AlreadyOverwritten):  # a cancelled credit is not delivered again
        await lender.balances.contribute(lender.name, "c1", operation="late", actor="partner")
    with pytest.raises(psycopg.errors.CheckViolation):
        await lender.statements.rows(
            "UPDATE disbursement.balance_update SET overwritten = false WHERE id = %(id)s", {"id": made.id}
        )
    assert await lender.balance() == "0.00"


async def test_a_credits_amount_is_changed_by_a_cancellation_and_a_new_contribution(lender):  # L17
    await lender.store()
    await lender.delivered("c1", "100", "10")

    async def change():
        return await lender.balances.change_amount(
            lender.name, "c1", mxn(80_00), mxn(8_00), operation="edit", actor="operator"
        )

    changed = await change()
    assert changed.cancellation is not None
    assert changed.contribution is not None
    assert (changed.cancellation.effect, changed.contribution.effect) == (mxn(-90_00), mxn(72_00))
    assert await lender.statuses() == [
        "CONTRIBUTION PENDING",
        "CREDIT_CANCELLATION PENDING",
        "CONTRIBUTION PENDING",
    ]
    assert await lender.balance() == "72.00"
    assert await lender.booked("commission-income") == 8_00
    assert await change() == changed
    await lender.cancel("c1")  # of what it is now
    assert await lender.balance() == "0.00"
    with pytest.raises(AlreadyOverwritten):
        await lender.balances.change_amount(lender.name, "c1", mxn(1), mxn(0), operation="late", actor="operator")


async def test_the_change_of_a_paid_credit_is_kept_and_netted_by_the_next_transfer(lender):  # L10, L17
    await lender.store()
    await lender.delivered("c1", "100", "10")
    await lender.told(await lender.sent(), Outcome.SETTLED)
    await lender.balances.change_amount(lender.name, "c1", mxn(80_00), mxn(8_00), operation="edit", actor="operator")
    assert await lender.statuses() == [
        "CONTRIBUTION APPLIED",
        "DISBURSEMENT APPLIED",
        "CREDIT_CANCELLATION PENDING",
        "CONTRIBUTION PENDING",
    ]
    assert await lender.balance() == "-18.00"
    [kept] = await lender.statements.rows(
        "SELECT amount_before, commission_before, amount, commission, actor FROM disbursement.credit_change "
        "WHERE tenant_id = %(tenant)s AND operation = 'edit'",
        {"tenant": lender.name},
    )
    assert kept == (100_00, 10_00, 80_00, 8_00, "operator")


async def test_the_amount_of_a_credit_not_delivered_yet_is_changed_without_an_update(lender):  # L17
    await lender.store()
    await lender.credit("c1", "100", "10")
    changed = await lender.balances.change_amount(
        lender.name, "c1", mxn(50_00), mxn(5_00), operation="edit", actor="operator"
    )
    assert (changed.cancellation, changed.contribution) == (None, None)
    assert (await lender.contribute("c1")).effect == mxn(45_00)


async def test_an_operation_that_is_used_for_something_else_is_refused(lender):  # L10, L11, L17
    await lender.store()
    await lender.store("s2")
    await lender.credit("c2", "5", "0")
    made = await lender.delivered("c1", "100")
    await lender.adjust("1", "fix")
    await lender.cancel("c1")
    await lender.balances.change_amount(lender.name, "c2", mxn(6_00), mxn(0), operation="edit", actor="o")
    b, name = lender.balances, lender.name
    for attempt in (
        lambda: b.contribute(name, "c2", operation="c1:delivered", actor="a"),
        lambda: b.cancel_credit(name, "c1", operation="c1:delivered", reason="x", actor="a"),
        lambda: b.cancel_credit(name, "c1", operation="c1:cancelled", reason="another", actor="a"),
        lambda: b.cancel_credit(name, "c2", operation="c1:cancelled", reason="returned goods", actor="a"),
        lambda: b.adjust(name, "s1", mxn(2_00), operation="fix", reason="ticket 7", actor="a"),
        lambda: b.adjust(name, "s2", mxn(1_00), operation="fix", reason="ticket 7", actor="a"),
        lambda: b.contribute(name, "c2", operation="edit", actor="a"),
        lambda: b.change_amount(name, "c1", mxn(1), mxn(0), operation="fix", actor="a"),
        lambda: b.change_amount(name, "c2", mxn(7_00), mxn(0), operation="edit", actor="a"),
    ):
        with pytest.raises(DuplicateOperation):
            await attempt()
    for operation in ("", "with blank", "transfer:1", "change:1", "x" * 151):
        with pytest.raises(ValueError, match="operation id"):
            await b.contribute(name, "c2", operation=operation, actor="a")
    assert made.operation == "c1:delivered"
    assert len(await b.updates(name, "s1")) == 3


async def test_what_is_not_there_or_makes_no_sense_is_refused_and_nothing_changes(lender):  # L10, L11, L17
    await lender.store()
    await lender.credit("c1", "100", "10")
    b, name = lender.balances, lender.name
    for refusal, attempt in (
        (CreditUnknown, lambda: b.contribute(name, "nope", operation="1", actor="a")),
        (CreditUnknown, lambda: b.contribute("another-tenant", "c1", operation="1", actor="a")),
        (StoreUnknown, lambda: b.adjust(name, "nope", mxn(1), operation="1", reason="x", actor="a")),
        (StoreUnknown, lambda: b.balance(name, "nope")),
        (NotContributed, lambda: b.cancel_credit(name, "c1", operation="1", reason="x", actor="a")),
        (ReasonMissing, lambda: b.cancel_credit(name, "c1", operation="1", reason="", actor="a")),
        (BadAmount, lambda: b.change_amount(name, "c1", mxn(0), mxn(0), operation="1", actor="a")),
        (BadAmount, lambda: b.change_amount(name, "c1", mxn(-1), mxn(-1), operation="1", actor="a")),
        (BadAmount, lambda: b.change_amount(name, "c1", mxn(1), mxn(2), operation="1", actor="a")),
        (BadAmount, lambda: b.adjust(name, "s1", Money(1, "USD"), operation="1", reason="x", actor="a")),
    ):
        with pytest.raises(refusal):
            await attempt()
    assert await b.updates(name, "s1") == []


async def test_a_tenant_without_a_book_is_told_so(lender):
    await lender.store()
    lender.name = f"{lender.name}-without-a-book"
    await lender.merchant()
    await lender.store()
    with pytest.raises(BookUnknown):
        await lender.delivered("c1", "100")


async def test_updates_are_read_in_pages_from_the_newest(lender):
    await lender.store()
    for number in range(5):
        await lender.adjust("1", f"a{number}")
    first = await lender.balances.updates(lender.name, "s1", limit=2)
    second = await lender.balances.updates(lender.name, "s1", before=first[-1].sequence, limit=2)
    assert [update.sequence for update in (*first, *second)] == [5, 4, 3, 2]
    with pytest.raises(ValueError, match="page"):
        await lender.balances.updates(lender.name, "s1", limit=0)


async def test_a_balance_is_what_is_pending_and_what_is_in_transit(own_lender):  # L4, L12
    lender = own_lender
    await lender.store()
    await lender.delivered("c1", "100")
    await lender.told(await lender.sent(), Outcome.SETTLED)
    await lender.delivered("c2", "60")
    await lender.sent()
    await lender.delivered("c3", "7")
    await lender.cancel("c1")
    found = await lender.balances.balance(lender.name, "s1")
    assert (found.balance, found.pending, found.in_transit) == (mxn(-33_00), mxn(-93_00), mxn(60_00))
    assert (found.pending_updates, found.in_transit_updates, found.sequence) == (2, 1, 5)
    report = await verify(lender.url)
    assert report.sound, report
    assert (await verify_book(lender.url)).sound
