"""Merchants, stores and payment options: the order of adding, the chain of validation, and which option applies."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.disbursement.commission import Step, StepOf
from ledger.disbursement.edits import Action, Object, lock_merchant, lock_store
from ledger.disbursement.merchants import BankAccount, Merchant, Merchants, Store
from ledger.disbursement.model import Frequency, NothingToPay, StoreUnknown, VerdictCode
from ledger.disbursement.options import RATES, Options, OptionType, PaymentOption, applies, matching
from ledger.disbursement.pricing import Commissions
from ledger.disbursement.refusals import (
    AccountUnknown,
    AlreadyExists,
    MerchantUnknown,
    NothingValidated,
    OptionUnknown,
    TransferOpen,
)

MARCH = datetime(2026, 3, 10, 18, 0, tzinfo=UTC)
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)


def option(name: str = "o1", **changes) -> PaymentOption:
    """A validated option of store s1 that applies to 100.00 to 20 000.00 in six payments."""
    plain = PaymentOption(
        id=name,
        merchant_id="m1",
        store_id="s1",
        code=name,
        type=OptionType.INTEREST_FREE,
        active=True,
        payments=6,
        starts_at=START,
        ends_at=END,
        priority=1,
        min_amount=100_00,
        max_amount=20_000_00,
        merchant_commission=525,
        validated=True,
    )
    return replace(plain, **changes)


async def shop(lender, *options: PaymentOption, store: str = "s1") -> None:
    """A store that may be paid, with these options, everything validated."""
    if not await lender.eligibility.explain(lender.name, store=store):
        await lender.store(store)
    found = Options(lender.statements)
    for each in options:
        await found.add(lender.name, each, actor="operator")
        await found.validate(lender.name, each.id, actor="treasury")


ACCOUNT = BankAccount("646180157000000017", "Muebles SA", "MUE010101AAA")


def new_store(name: str = "centro") -> Store:
    return Store(name, "muebles", "Muebles Centro", Frequency.DAILY)


@pytest.fixture
async def merchants(lender) -> Merchants:
    found = Merchants(lender.statements)
    await found.add(lender.name, Merchant("muebles", "Muebles Ñandú", "MUE010101AAA", "muebles-app"), actor="operator")
    return found


@pytest.fixture
async def chain(lender, merchants):
    """A merchant, its store and its option, each validated, and the account authenticated."""
    options = Options(lender.statements)
    await merchants.add_store(lender.name, new_store(), ACCOUNT, actor="operator")
    await options.add(lender.name, option("six", store_id="centro"), actor="operator")
    account = await merchants.account(lender.name, "centro")
    assert account is not None
    await merchants.authenticate_account(lender.name, "centro", account.id, actor="treasury")
    await options.validate(lender.name, "six", actor="treasury")
    await merchants.validate_store(lender.name, "centro", actor="treasury")
    await merchants.validate(lender.name, "muebles", actor="treasury")
    return merchants


async def validated(lender) -> tuple[bool, bool, bool]:
    """Option, store, merchant."""
    merchants = Merchants(lender.statements)
    return (
        (await Options(lender.statements).find(lender.name, "six")).validated,
        (await merchants.find_store(lender.name, "centro")).validated,
        (await merchants.find(lender.name, "muebles")).validated,
    )


# --- Which option applies -----------------------------------------------------------------------------------------


def test_an_option_keeps_every_field():  # L48
    kept = option(rates={"a0": 150, "c3": 7})
    assert set(kept.rates) == set(RATES)
    assert (kept.rates["a0"], kept.rates["b1"], kept.rates["c3"]) == (150, 0, 7)
    for wrong in (
        {"ends_at": START - timedelta(seconds=1)},
        {"max_amount": 1},
        {"trial": True},
        {"trial_ends_at": END},
        {"rates": {"d0": 1}},
    ):
        with pytest.raises(ValueError, match=r"end|amount|trial|rate"):
            option(**wrong)


async def test_every_field_of_an_option_comes_back_from_the_database(lender):  # L48
    await lender.store()
    full = option(
        discount=150,
        first_payment_month_shift=2,
        promotion=True,
        auto_update=True,
        trial=True,
        trial_ends_at=END,
        rates={name: place for place, name in enumerate(RATES)},
        validated=False,
    )
    options = Options(lender.statements)
    assert await options.add(lender.name, full, actor="operator")
    assert await options.find(lender.name, "o1") == full
    other = replace(
        full,
        code="other",
        type=OptionType.INTEREST,
        active=False,
        payments=9,
        starts_at=START + timedelta(days=1),
        ends_at=END + timedelta(days=1),
        priority=7,
        min_amount=1,
        max_amount=2,
        merchant_commission=None,
        discount=3,
        first_payment_month_shift=4,
        promotion=False,
        auto_update=False,
        trial=False,
        trial_ends_at=None,
        rates={name: 100 - place for place, name in enumerate(RATES)},
    )
    for wanted in (other, full):
        changes = {one.name: getattr(wanted, one.name) for one in fields(wanted)}
        assert await options.edit(lender.name, "o1", changes, actor="operator") == wanted
        assert await options.find(lender.name, "o1") == wanted
    assert not await options.add(lender.name, full, actor="operator")  # the same again
    with pytest.raises(AlreadyExists):
        await options.add(lender.name, replace(full, payments=3), actor="operator")
    with pytest.raises(AlreadyExists):
        await options.add(lender.name, replace(full, id="o2"), actor="operator")  # its code is taken


async def test_an_option_applies_when_active_validated_within_its_time_and_amount(lender):  # L49
    cases: list[tuple[dict[str, Any], bool]] = [
        ({}, True),
        ({"active": False}, False),
        ({"validated": False}, False),
        ({"starts_at": MARCH}, True),
        ({"starts_at": MARCH + timedelta(microseconds=1)}, False),
        ({"ends_at": MARCH}, True),
        ({"ends_at": MARCH - timedelta(microseconds=1)}, False),
        ({"min_amount": 500_00}, True),
        ({"min_amount": 500_01}, False),
        ({"max_amount": 500_00}, True),
        ({"max_amount": 499_99}, False),
    ]
    options = [option(f"o{place}", payments=place + 1, **changes) for place, (changes, _) in enumerate(cases)]
    expected = [one.id for one, (_, fits) in zip(options, cases, strict=True) if fits]
    assert [one.id for one in options if applies(one, 500_00, MARCH)] == expected
    await shop(lender, *(one for one in options if one.validated))
    found = Options(lender.statements)
    for one in options:  # the one that stays unvalidated
        await found.add(lender.name, one, actor="operator")
    assert [one.id for one in await found.offered(lender.name, "s1", 500_00, MARCH)] == expected


some_options = st.lists(
    st.builds(
        lambda number, payments, priority, active, lowest: option(
            f"o{number}", payments=payments, priority=priority, active=active, min_amount=lowest
        ),
        st.integers(0, 30),
        st.integers(1, 3),
        st.integers(1, 3),
        st.booleans(),
        st.integers(1, 1_000_00),
    ),
    max_size=12,
    unique_by=lambda one: one.id,
)


@settings(deadline=None)
@given(some_options, st.integers(1, 2_000_00), st.randoms(use_true_random=False))
def test_priority_breaks_ties_and_equal_priorities_always_the_same_way(options, amount, random):  # L49
    found = matching(options, amount, MARCH)
    shuffled = list(options)
    random.shuffle(shuffled)
    assert matching(shuffled, amount, MARCH) == found
    fit = [one for one in options if applies(one, amount, MARCH)]
    assert [one.payments for one in found] == sorted({one.payments for one in fit})
    for best in found:
        rivals = [one for one in fit if one.payments == best.payments]
        assert (best.priority, best.id) == min((one.priority, one.id) for one in rivals)


async def test_the_database_and_the_rule_agree_on_what_applies(lender):  # L49
    await shop(
        lender,
        option("o1", priority=2),
        option("o2", priority=1),
        option("o3", payments=3),
        option("o4", payments=12, active=False),
    )
    options = Options(lender.statements)
    assert [one.id for one in await options.offered(lender.name, "s1", 500_00, MARCH)] == ["o3", "o2"]
    assert await options.offered(lender.name, "s1", 20_000_01, MARCH) == []
    assert await options.offered(lender.name, "s1", 500_00, START - timedelta(seconds=1)) == []


# --- Adding and validating ----------------------------------------------------------------------------------------


async def test_a_store_needs_its_merchant_and_an_option_its_store(lender, merchants):  # L51
    stray, other = replace(new_store(), merchant_id="nobody"), replace(ACCOUNT, clabe="646180157000000020")
    with pytest.raises(MerchantUnknown):
        await merchants.add_store(lender.name, stray, ACCOUNT, actor="operator")
    with pytest.raises(StoreUnknown):
        await Options(lender.statements).add(lender.name, option(store_id="centro"), actor="operator")
    assert await merchants.add_store(lender.name, new_store(), ACCOUNT, actor="operator")
    assert not await merchants.add_store(lender.name, new_store(), ACCOUNT, actor="operator")
    assert await Options(lender.statements).add(lender.name, option(store_id="centro"), actor="operator")
    with pytest.raises(AlreadyExists):
        await merchants.add(lender.name, Merchant("muebles", "Other", "MUE010101AAA"), actor="operator")
    with pytest.raises(AlreadyExists):
        await merchants.add_store(lender.name, new_store(), other, actor="operator")


async def test_a_store_comes_with_its_bank_account(lender, merchants):  # L51, L55
    await merchants.add_store(lender.name, new_store(), ACCOUNT, actor="operator")
    account = await merchants.account(lender.name, "centro")
    assert account is not None
    assert account.same_as(ACCOUNT)
    assert account.authenticated_at is None


async def test_validation_goes_from_the_option_to_the_store_to_the_merchant(lender, merchants):  # L51, L52
    options = Options(lender.statements)
    await merchants.add_store(lender.name, new_store(), ACCOUNT, actor="operator")
    await options.add(lender.name, option("six", store_id="centro"), actor="operator")
    assert await validated(lender) == (False, False, False)
    await shop(lender, option("elsewhere"))  # another merchant's store and option, both validated
    with pytest.raises(NothingValidated):
        await merchants.validate(lender.name, "muebles", actor="treasury")
    with pytest.raises(NothingValidated):
        await merchants.validate_store(lender.name, "centro", actor="treasury")
    for _ in range(2):
        await options.validate(lender.name, "six", actor="treasury")
    await merchants.validate_store(lender.name, "centro", actor="treasury")
    await merchants.validate(lender.name, "muebles", actor="treasury")
    assert await validated(lender) == (True, True, True)
    edits = await merchants.edits(lender.name, Object.OPTION, "six")
    assert [edit.action for edit in edits] == [Action.VALIDATED, Action.ADDED]  # the repeat left nothing


@pytest.mark.parametrize(
    ("edit", "left"),
    [
        (lambda _, options, tenant: options.edit(tenant, "six", {"priority": 2}, actor="a"), (False,) * 3),
        (
            lambda merchants, _, tenant: merchants.edit_store(tenant, "centro", {"name": "Sur"}, actor="a"),
            (True, False, False),
        ),
        (
            lambda merchants, _, tenant: merchants.add_account(
                tenant, "centro", replace(ACCOUNT, clabe="646180157000000020"), actor="a"
            ),
            (True, False, False),
        ),
        (
            lambda merchants, _, tenant: merchants.edit(tenant, "muebles", {"name": "Sur"}, actor="a"),
            (True, True, False),
        ),
        (
            lambda _, options, tenant: Commissions(options._statements).set_standard(
                tenant, "muebles", 300, store="centro", actor="a"
            ),
            (True, False, False),
        ),
        (
            lambda _, options, tenant: Commissions(options._statements).set_standard(tenant, "muebles", 300, actor="a"),
            (True, True, False),
        ),
    ],
    ids=["option", "store", "account", "merchant", "standard of the store", "standard of the merchant"],
)
async def test_an_edit_takes_the_validation_of_what_it_touches_and_of_all_above(lender, chain, edit, left):  # L53
    for _ in range(2):  # an edit that changes nothing more resets nothing more
        await edit(chain, Options(lender.statements), lender.name)
    assert await validated(lender) == left


async def test_an_edit_of_a_store_that_is_not_validated_resets_its_merchant_too(lender, chain):  # L53
    await chain.add_store(lender.name, new_store("norte"), ACCOUNT, actor="operator")
    assert await validated(lender) == (True, True, True)
    await chain.edit_store(lender.name, "norte", {"name": "Norte"}, actor="operator")
    assert await validated(lender) == (True, True, False)


async def test_an_edit_that_changes_nothing_resets_nothing(lender, chain):  # L53
    await chain.edit(lender.name, "muebles", {"name": "Muebles Ñandú"}, actor="a")
    await chain.edit_store(lender.name, "centro", {"frequency": Frequency.DAILY}, actor="a")
    await chain.add_account(lender.name, "centro", ACCOUNT, actor="a")
    await Options(lender.statements).edit(lender.name, "six", {"rates": {}}, actor="a")
    assert await validated(lender) == (True, True, True)


async def test_every_edit_is_kept_with_what_was_before_and_after_and_cannot_be_changed(lender, chain):  # L53, L57
    await chain.edit(lender.name, "muebles", {"name": "Muebles del Sur"}, actor="operator-3")
    reset, edit, *_ = await chain.edits(lender.name, Object.MERCHANT, "muebles")
    assert edit.before is not None
    assert (edit.before["name"], edit.after["name"]) == ("Muebles Ñandú", "Muebles del Sur")
    assert (edit.actor, reset.action) == ("operator-3", Action.RESET)
    for table in ("edit", "commission_trace", "request", "commission_schedule", "commission_standard"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await lender.statements.rows(f"DELETE FROM disbursement.{table}")


async def test_every_sensitive_act_is_kept_with_who_did_it(lender, chain):  # L57
    commissions, name = Commissions(lender.statements), lender.name
    await commissions.set_standard(name, "muebles", 300, actor="operator-2")
    await commissions.set_standard(name, "muebles", 350, store="centro", actor="operator-2")
    await chain.switch_automation(name, "muebles", on=False, actor="operator-3")
    for steps in ([], [Step(StepOf.PAYMENTS, 12, 100)]):
        await commissions.set_schedule(name, steps, actor="treasury-2")
    follows = option("follows", store_id="centro", payments=3, auto_update=True)
    await Options(lender.statements).add(name, follows, actor="operator")
    await commissions.recalculate(name, MARCH.date(), actor="timer", at=MARCH)
    kept: dict[tuple[Object, str], list[tuple[str, str, dict[str, Any]]]] = {
        (Object.MERCHANT, "muebles"): [
            ("AUTOMATION", "operator-3", {"automation": False}),
            ("RESET", "operator-2", {"validated": False}),
            ("STANDARD", "operator-2", {"standard": 300}),
            ("VALIDATED", "treasury", {"validated": True}),
        ],
        (Object.STORE, "centro"): [
            ("RESET", "operator-2", {"validated": False}),
            ("STANDARD", "operator-2", {"standard": 350}),
            ("VALIDATED", "treasury", {"validated": True}),
        ],
        (Object.OPTION, "six"): [("VALIDATED", "treasury", {"validated": True})],
        (Object.OPTION, "follows"): [("RECALCULATED", "timer", {"merchant_commission": 350})],
        (Object.BANK_ACCOUNT, "centro"): [("AUTHENTICATED", "treasury", {"authenticated_by": "treasury"})],
        (Object.SCHEDULE, name): [
            ("EDITED", "treasury-2", {"steps": [{"of": "PAYMENTS", "at_least": 12, "basis_points": 100}]}),
            ("EDITED", "treasury-2", {"steps": []}),
        ],
    }
    for (what, which), acts in kept.items():
        found = await chain.edits(name, what, which)
        if what is not Object.SCHEDULE:
            assert (found.pop().action, what) == (Action.ADDED, what)
        told = [
            (edit.action, edit.actor, {key: edit.after[key] for key in after})
            for edit, (_, _, after) in zip(found, acts, strict=True)
        ]
        assert told == acts, what


async def test_an_unvalidated_merchant_or_store_is_not_offered(lender, chain):  # L54
    options = Options(lender.statements)
    assert [one.id for one in await options.offered(lender.name, "centro", 500_00, MARCH)] == ["six"]
    await chain.edit(lender.name, "muebles", {"name": "Sur"}, actor="a")
    assert await options.offered(lender.name, "centro", 500_00, MARCH) == []


async def test_a_new_account_is_paid_only_when_it_was_authenticated(lender, chain):  # L55
    before = await chain.account(lender.name, "centro")
    assert before is not None
    await chain.add_account(lender.name, "centro", replace(ACCOUNT, clabe="646180157000000020"), actor="operator")
    await chain.validate_store(lender.name, "centro", actor="treasury")
    await chain.validate(lender.name, "muebles", actor="treasury")
    (verdict,) = await lender.eligibility.explain(lender.name, store="centro")
    assert verdict.code is VerdictCode.ACCOUNT_NOT_AUTHENTICATED
    with pytest.raises(AccountUnknown):  # what was looked at is not the account any more
        await chain.authenticate_account(lender.name, "centro", before.id, actor="treasury")
    present = await chain.account(lender.name, "centro")
    assert present is not None
    for _ in range(2):
        found = await chain.authenticate_account(lender.name, "centro", present.id, actor="treasury")
        assert found.authenticated_by == "treasury"
    (verdict,) = await lender.eligibility.explain(lender.name, store="centro")
    assert verdict.code is VerdictCode.NOTHING_PENDING


async def test_an_edit_between_a_runs_plan_and_its_payment_leaves_the_store_unpaid(lender, chain):  # L53
    await lender.delivered("c1", "500.00", store="centro")
    assert list(await lender.eligibility.due(lender.name, Frequency.DAILY)) == ["centro"]
    await chain.edit_store(lender.name, "centro", {"minimum_amount": 1}, actor="operator")
    found = await lender.fire(store="centro")
    assert isinstance(found, NothingToPay)
    assert found.verdict.code is VerdictCode.MERCHANT_NOT_VALIDATED


async def test_a_store_that_is_being_paid_is_not_edited(lender, chain):
    await lender.delivered("c1", "500.00", store="centro")
    transfer = await lender.collected(store="centro")
    with pytest.raises(TransferOpen):
        await chain.edit_store(lender.name, "centro", {"name": "Sur"}, actor="operator")
    other = replace(ACCOUNT, clabe="646180157000000020")
    with pytest.raises(TransferOpen):
        await chain.add_account(lender.name, "centro", other, actor="operator")
    assert await validated(lender) == (True, True, True)
    assert await lender.status(transfer) == "WAITING_FOR_CONFIRMATION"


async def test_automation_is_switched_without_losing_validation(lender, chain):  # L30
    await lender.delivered("c1", "500.00", store="centro")
    await chain.switch_automation(lender.name, "muebles", on=False, actor="operator")
    (verdict,) = await lender.eligibility.explain(lender.name, store="centro")
    assert verdict.code is VerdictCode.AUTOMATION_OFF
    await chain.switch_automation(lender.name, "muebles", on=True, actor="operator")
    assert await validated(lender) == (True, True, True)
    assert list(await lender.eligibility.due(lender.name, Frequency.DAILY)) == ["centro"]


async def test_validating_and_editing_at_once_never_leaves_a_merchant_above_an_unvalidated_store(lender, chain):  # L53
    for number in range(6):
        await Options(lender.statements).validate(lender.name, "six", actor="t")
        await chain.validate_store(lender.name, "centro", actor="t")
        await asyncio.gather(
            chain.edit_store(lender.name, "centro", {"name": f"Centro {number}"}, actor="o"),
            chain.validate(lender.name, "muebles", actor="t"),
            return_exceptions=True,
        )
        assert (await validated(lender))[1:] == (False, False)


async def test_whoever_looks_at_a_store_or_merchant_to_change_it_keeps_others_waiting(lender, chain):  # L53
    for lock, table, name in ((lock_store, "store", "centro"), (lock_merchant, "merchant", "muebles")):
        async with lender.statements.connection() as connection, connection.transaction():
            await lock(connection, lender.name, name)
            free = await lender.statements.rows(
                f"SELECT id FROM disbursement.{table} WHERE tenant_id = %(tenant)s AND id = %(id)s "
                "FOR UPDATE SKIP LOCKED",
                {"tenant": lender.name, "id": name},
            )
            assert free == []


async def test_another_tenants_objects_do_not_exist(lender, chain):  # H16
    merchants, options = Merchants(lender.statements), Options(lender.statements)
    with pytest.raises(MerchantUnknown):
        await merchants.find("someone-else", "muebles")
    with pytest.raises(StoreUnknown):
        await merchants.edit_store("someone-else", "centro", {"name": "x"}, actor="a")
    with pytest.raises(OptionUnknown):
        await options.validate("someone-else", "six", actor="a")
