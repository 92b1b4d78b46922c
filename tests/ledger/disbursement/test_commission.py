"""What a credit costs its merchant: the reckoning itself, where its inputs are kept, and the month's change."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ledger.disbursement
from ledger.disbursement.commission import Basis, Inputs, Schedule, Step, StepOf, commission, monthly_rate
from ledger.disbursement.credits import Credits, NewCredit
from ledger.disbursement.model import NoCommission, StoreUnknown
from ledger.disbursement.options import Options
from ledger.disbursement.pricing import ZONE, Commissions, Figures
from ledger.disbursement.refusals import AlreadyExists, NotOffered, OptionNotApplicable
from tests.ledger.disbursement.test_options import MARCH, option, shop

STEPS = Schedule(
    (
        Step(StepOf.ORIGINATION, 1_000_000_00, -50),
        Step(StepOf.ORIGINATION, 5_000_000_00, -100),
        Step(StepOf.PAYMENTS, 12, 150),
        Step(StepOf.AMOUNT, 10_000_00, -25),
    )
)
PLAIN = Inputs(
    merchant_standard=500,
    store_standard=None,
    origination=0,
    payments=6,
    agreed=None,
    promotion=False,
    trial=False,
    schedule=STEPS,
    amount=1_000_00,
)


@pytest.mark.parametrize(
    ("changes", "basis", "points"),
    [
        ({}, Basis.STANDARD, 500),
        ({"store_standard": 450}, Basis.STANDARD, 450),  # the store's goes before the merchant's
        ({"origination": 999_999_99}, Basis.STANDARD, 500),
        ({"origination": 1_000_000_00}, Basis.STANDARD, 450),
        ({"origination": 9_000_000_00}, Basis.STANDARD, 400),  # the highest that is reached, and only that
        ({"payments": 12}, Basis.STANDARD, 650),
        ({"amount": 10_000_00}, Basis.STANDARD, 475),
        ({"agreed": 300, "origination": 9_000_000_00, "payments": 12}, Basis.AGREED, 300),
        ({"agreed": 300, "amount": 10_000_00}, Basis.AGREED, 275),
        ({"agreed": 300, "amount": 10_000_00, "promotion": True}, Basis.PROMOTION, 300),
        ({"agreed": 0, "amount": 10_000_00, "trial": True}, Basis.TRIAL, 0),
        ({"agreed": 10, "amount": 10_000_00}, Basis.AGREED, 0),  # never below nothing
        ({"merchant_standard": 10, "amount": 10_000_00}, Basis.STANDARD, 0),
        ({"merchant_standard": 9_900, "payments": 12}, Basis.STANDARD, 10_000),  # never above the whole
        ({"merchant_standard": None}, Basis.NONE, None),
    ],
)
def test_each_input_has_its_say(changes, basis, points):  # L46
    found = commission(replace(PLAIN, **changes))
    assert (found.basis, found.basis_points) == (basis, points)
    assert (found.amount is None) == (points is None)


@settings(deadline=None)
@example(amount=1, standard=5_000, origination=0, payments=1)  # half of a minor unit: to the even neighbour
@example(amount=3, standard=5_000, origination=0, payments=1)
@given(
    amount=st.integers(1, 10**12),
    standard=st.integers(0, 10_000),
    origination=st.integers(0, 10**12),
    payments=st.integers(1, 60),
)
def test_a_commission_is_the_exact_share_rounded_half_to_even_and_never_more_than_the_amount(
    amount, standard, origination, payments
):  # L46, L87
    inputs = replace(PLAIN, amount=amount, merchant_standard=standard, origination=origination, payments=payments)
    found = commission(inputs)
    assert found.basis_points is not None
    assert found.amount == round(Fraction(amount * found.basis_points, 10_000))  # Fraction rounds half to even
    assert 0 <= found.amount <= amount
    assert monthly_rate(inputs) == monthly_rate(replace(inputs, amount=1))


def test_commission_and_disbursement_do_not_know_each_other():  # L47
    prices = {"commission", "options", "pricing"}
    money = {"balances", "transfers", "eligibility", "updates", "runs"}
    folder = Path(ledger.disbursement.__file__).parent
    for module in prices | money:
        tree = ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))
        imported = {
            node.module.rpartition(".")[2]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ledger.disbursement.")
        }
        assert not imported & (money if module in prices else prices), module


def signed(name: str = "c1", amount: int = 1_000_00, **more) -> NewCredit:
    return NewCredit(name, "s1", amount, signed_at=MARCH, **more)


async def test_a_commission_is_fixed_at_signature_and_leaves_a_trace(lender):  # L45, L57
    await shop(lender, option("o1", merchant_commission=525))
    credits_, commissions = Credits(lender.statements), Commissions(lender.statements)
    made, new = await credits_.sign(lender.name, signed(), actor="operator")
    assert (new, made.commission, made.option_id, made.approved) == (True, 52_50, "o1", True)
    (trace,) = await commissions.traces(lender.name, "c1")
    assert (trace.kind, trace.result) == ("SIGNATURE", {"basis": "AGREED", "basis_points": 525, "amount": 52_50})
    assert (trace.inputs["agreed"], trace.inputs["amount"], trace.inputs["payments"]) == (525, 1_000_00, 6)
    # What becomes of the option does not change what was signed (L7).
    await lender.statements.rows(
        "UPDATE disbursement.payment_option SET merchant_commission = 900 WHERE tenant_id = %(tenant)s",
        {"tenant": lender.name},
    )
    contributed = await lender.contribute("c1")
    assert contributed.effect.decimal() == "947.50"
    assert (await credits_.find(lender.name, "c1")).commission == 52_50


async def test_signing_the_same_again_changes_nothing_and_another_credit_under_the_id_is_refused(lender):  # L45
    await shop(lender, option("o1", merchant_commission=525))
    credits_ = Credits(lender.statements)
    await credits_.sign(lender.name, signed(), actor="operator")
    again, new = await credits_.sign(lender.name, signed(), actor="operator")
    assert (again.commission, new) == (52_50, False)
    assert len(await Commissions(lender.statements).traces(lender.name, "c1")) == 1
    with pytest.raises(AlreadyExists):
        await credits_.sign(lender.name, signed(amount=2_000_00), actor="operator")


async def test_a_credit_without_a_commission_is_not_approved_for_disbursement(lender):  # L45
    await shop(lender, option("o1", merchant_commission=None))
    made, _ = await Credits(lender.statements).sign(lender.name, signed(), actor="operator")
    assert (made.commission, made.approved) == (None, False)
    with pytest.raises(NoCommission):
        await lender.contribute("c1")
    assert await lender.balance() == "0.00"


async def test_a_standard_rate_and_last_months_origination_price_an_option_without_a_rate(lender):  # L46
    await shop(lender, option("o1", merchant_commission=None, max_amount=10**12))
    commissions, credits_ = Commissions(lender.statements), Credits(lender.statements)
    await commissions.set_standard(lender.name, "m1", 500, actor="treasury")
    await commissions.set_schedule(lender.name, STEPS.steps, actor="treasury")
    await _valid_again(lender)
    february = MARCH - timedelta(days=28)
    await credits_.sign(lender.name, replace(signed("c0", 1_000_000_00), signed_at=february), actor="operator")
    made, _ = await credits_.sign(lender.name, signed("c1"), actor="operator")
    assert made.commission == 45_00  # 5.00 % less 0.50 % for last month's million


async def test_origination_is_the_merchants_in_the_month_before_as_mexico_city_has_it(lender):  # L46
    await shop(lender, option("o1", merchant_commission=None))
    await lender.store("s2")
    await lender.merchant("m2")
    await lender.store("s3", merchant="m2")
    tick = timedelta(microseconds=1)
    february, march, april = (datetime(2026, month, 1, tzinfo=ZONE).astimezone(UTC) for month in (2, 3, 4))
    await _signed_at(lender, "s1", {february - tick: 1, february: 10, march: 1_000})
    await _signed_at(lender, "s2", {march - tick: 100})
    await _signed_at(lender, "s3", {february: 70_000})
    commissions = Commissions(lender.statements)
    for merchant_rate, store_rate in ((700, 800), (500, 450)):  # the newest ones count
        await commissions.set_standard(lender.name, "m1", merchant_rate, actor="treasury")
        await commissions.set_standard(lender.name, "m1", store_rate, store="s1", actor="treasury")
    async with lender.statements.connection() as connection, connection.transaction():
        figures = await Figures.read(connection, lender.name, ZONE)
        for at, origination in ((march - tick, 1), (march, 110), (april - tick, 110), (april, 1_000)):
            found = await commissions.inputs(connection, lender.name, option("o1"), 500_00, at)
            assert (found.origination, found.merchant_standard, found.store_standard) == (origination, 500, 450)
            assert figures.inputs(option("o1"), 500_00, at) == found, "as for many credits at once"


async def _signed_at(lender, store: str, amounts: dict[datetime, int]) -> None:
    for at, amount in amounts.items():
        await lender.statements.rows(
            "INSERT INTO disbursement.credit (tenant_id, id, store_id, amount, signed_at) "
            "VALUES (%(tenant)s, %(id)s, %(store)s, %(amount)s, %(at)s)",
            {"tenant": lender.name, "id": f"past-{amount}", "store": store, "amount": amount, "at": at},
        )


async def test_another_amount_is_charged_at_the_rate_of_the_signature(lender):  # L7, L17, L57
    await shop(lender, option("o1", merchant_commission=525))
    credits_ = Credits(lender.statements)
    await credits_.sign(lender.name, signed(), actor="operator")
    await lender.contribute("c1")
    await lender.statements.rows(
        "UPDATE disbursement.payment_option SET merchant_commission = 900 WHERE tenant_id = %(tenant)s",
        {"tenant": lender.name},
    )
    for _ in range(2):  # repeating it changes nothing
        changed = await credits_.change_amount(lender.name, "c1", 800_00, operation="change-1", actor="operator")
        assert (changed.amount.decimal(), changed.commission.decimal()) == ("800.00", "42.00")
    assert await lender.statuses() == ["CONTRIBUTION PENDING", "CREDIT_CANCELLATION PENDING", "CONTRIBUTION PENDING"]
    assert await lender.balance() == "758.00"
    signature, change = await Commissions(lender.statements).traces(lender.name, "c1")
    assert (signature.kind, signature.result["amount"]) == ("SIGNATURE", 52_50)
    assert (change.kind, change.result) == ("AMOUNT_CHANGED", {"basis_points": 525, "amount": 42_00})


@pytest.mark.parametrize(
    ("new", "refusal"),
    [
        (signed(option_id="o1", amount=1), OptionNotApplicable),
        (signed(option_id="other"), OptionNotApplicable),
        (signed(payments=7), OptionNotApplicable),
        (signed(option_id="unvalidated"), OptionNotApplicable),
        (signed(option_id="ended", payments=3), OptionNotApplicable),
        (replace(signed(), store_id="nowhere"), StoreUnknown),
        (replace(signed(), signed_at=datetime.now(UTC) + timedelta(days=1)), ValueError),
    ],
)
async def test_what_no_option_allows_is_not_signed(lender, new, refusal):  # L49
    await shop(lender, option("o1"), option("ended", payments=3, ends_at=MARCH - timedelta(seconds=1)))
    await Options(lender.statements).add(lender.name, option("unvalidated"), actor="operator")
    await lender.store("s2")
    await shop(lender, replace(option("other"), store_id="s2", code="other"), store="s2")
    with pytest.raises(refusal):
        await Credits(lender.statements).sign(lender.name, new, actor="operator")
    assert await Credits(lender.statements).of_store(lender.name, "s1") == []


async def test_an_option_applies_by_the_moment_of_the_signature(lender):  # L49
    await shop(lender, option("over", ends_at=MARCH + timedelta(seconds=1)))
    made, _ = await Credits(lender.statements).sign(lender.name, signed(), actor="operator")
    assert made.option_id == "over"


@pytest.mark.parametrize("table", ["merchant", "store"])
async def test_nothing_is_offered_or_signed_at_an_unvalidated_merchant_or_store(lender, table):  # L54
    await shop(lender, option("o1"))
    await lender.statements.rows(
        f"UPDATE disbursement.{table} SET validated = false WHERE tenant_id = %(tenant)s", {"tenant": lender.name}
    )
    assert await Options(lender.statements).offered(lender.name, "s1", 500_00, MARCH) == []
    with pytest.raises(NotOffered):
        await Credits(lender.statements).sign(lender.name, signed(), actor="operator")


async def test_only_options_with_auto_update_take_the_months_change_and_each_once(lender):  # L50, L57
    ends = datetime(2026, 3, 20, tzinfo=UTC)
    await shop(
        lender,
        option("follows", merchant_commission=600, auto_update=True),
        option("fixed", merchant_commission=600),
        option("trial", merchant_commission=100, auto_update=True, trial=True, trial_ends_at=ends),
    )
    commissions = Commissions(lender.statements)
    assert (await commissions.recalculate(lender.name, date(2026, 3, 1), actor="timer")).without_standard > 0
    await commissions.set_standard(lender.name, "m1", 500, actor="treasury")
    await _valid_again(lender)
    done = await commissions.recalculate(lender.name, date(2026, 3, 15), actor="timer", at=ends)
    assert (done.changed, done.on_trial, done.before) == (("follows",), 1, 0)
    assert await _rates(lender) == {"follows": 500, "fixed": 600, "trial": 100}
    assert all(row[0] for row in await _validated(lender))  # the rate follows validated rules: nobody edited it
    await commissions.set_standard(lender.name, "m1", 700, actor="treasury")
    again = await commissions.recalculate(lender.name, date(2026, 3, 1), actor="timer", at=ends + timedelta(days=1))
    assert (again.changed, again.before) == (("trial",), 1)  # a trial takes the change after its end
    assert await _rates(lender) == {"follows": 500, "fixed": 600, "trial": 700}
    april = await commissions.recalculate(lender.name, date(2026, 4, 1), actor="timer", at=ends + timedelta(days=20))
    assert (april.changed, april.same) == (("follows",), 1)


async def test_a_timer_finds_whoever_has_not_taken_the_months_change(own_lender):  # L50
    await shop(own_lender, option("follows", merchant_commission=600, auto_update=True))
    commissions = Commissions(own_lender.statements)
    await commissions.recalculate_due(MARCH)
    assert await _rates(own_lender) == {"follows": 600}  # without a standard there is nothing to take
    await commissions.set_standard(own_lender.name, "m1", 500, actor="treasury")
    for month, points in ((MARCH, 500), (MARCH, 500), (MARCH + timedelta(days=31), 450)):
        await commissions.recalculate_due(month)
        assert await _rates(own_lender) == {"follows": points}
        await commissions.set_standard(own_lender.name, "m1", 450, actor="treasury")


async def test_a_months_change_is_that_months_however_late_it_is_made(own_lender):  # L46, L50, L57
    await shop(own_lender, option("follows", merchant_commission=600, auto_update=True))
    commissions = Commissions(own_lender.statements)
    await commissions.set_standard(own_lender.name, "m1", 500, actor="treasury")
    await commissions.set_schedule(own_lender.name, STEPS.steps, actor="treasury")
    await _signed_at(own_lender, "s1", {datetime(2026, 2, 10, tzinfo=UTC): 1_000_000_00})
    april = datetime(2026, 4, 1, tzinfo=ZONE).astimezone(UTC)
    await commissions.recalculate_due(april - timedelta(microseconds=1))  # still March in Mexico City
    assert await _rates(own_lender) == {"follows": 450}
    await shop(own_lender, option("late", payments=3, merchant_commission=600, auto_update=True))
    done = await commissions.recalculate(own_lender.name, date(2026, 3, 31), actor="ana", at=april)
    assert (done.changed, done.before) == (("late",), 1)
    traces = await own_lender.statements.rows("SELECT month, result FROM disbursement.commission_trace")
    assert traces == [(date(2026, 3, 1), {"basis_points": 450, "before": 600})] * 2


async def _rates(lender) -> dict[str, int]:
    rows = await lender.statements.rows(
        "SELECT id, merchant_commission FROM disbursement.payment_option WHERE tenant_id = %(tenant)s",
        {"tenant": lender.name},
    )
    return dict(rows)


async def _validated(lender):
    return await lender.statements.rows(
        "SELECT validated FROM disbursement.payment_option WHERE tenant_id = %(tenant)s", {"tenant": lender.name}
    )


async def _valid_again(lender) -> None:
    for table in ("merchant", "store"):
        await lender.statements.rows(
            f"UPDATE disbursement.{table} SET validated = true WHERE tenant_id = %(tenant)s", {"tenant": lender.name}
        )
