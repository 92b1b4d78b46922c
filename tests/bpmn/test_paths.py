"""Each path through each picture, walked on the real engine, and the proof that together they use every arrow.

A test says which elements it passes. That is checked three ways: the elements are joined by arrows, the jobs of those
elements are exactly the ones that were done, in that order, and the messages the ones that came, and every instance has
ended. What a worker does is played by the test; what the drawing does with the answer is real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeVar

import pytest

import bpmn

Test = TypeVar("Test", bound=Callable[..., Any])
Path = tuple[str, tuple[str, ...]]

PATHS: dict[str, list[Path]] = {}

QUOTE = {"payer_account": "1", "payee_account": None, "fee": 350, "on_us": False}
QUOTE_ON_US = {"payer_account": "1", "payee_account": "2", "fee": 0, "on_us": True}
BOOKED = {"outcome": "SETTLED", "reason": "none", "reason_detail": None}
SENT = {"order_state": "ACCEPTED", "inquire_after": "PT1H", "inquire_again_after": "PT1H", "inquiries": 0}
IMPATIENT = {**SENT, "inquire_after": "PT0S"}
STP = "stp.order-status-changed"
OPERATOR = "operator.outcome-decided"


def takes(**paths: str | list[str]) -> Callable[[Test], Test]:
    """Say over which elements the test goes, process by process."""

    def note(test: Test) -> Test:
        taken = [
            (process.replace("_", "-"), tuple(path.split()))
            for process, given in paths.items()
            for path in ([given] if isinstance(given, str) else given)
        ]
        PATHS[test.__name__] = taken
        test.paths = taken  # type: ignore[attr-defined]
        return test

    return note


def heard(outcome: str, reason: str, detail: str | None = None) -> dict[str, str | None]:
    return {"outcome": outcome, "reason": reason, "reason_detail": detail}


def told(variables: dict[str, Any]) -> tuple[Any, Any, Any]:
    """What the channel is told."""
    return variables["outcome"], variables["reason"], variables["reason_detail"]


async def to_the_rail(payment: Any, **quote: Any) -> None:
    """Everything up to the rail goes well."""
    await payment.accepted()
    await payment.completes("claim-payment", duplicate=False)
    await payment.completes("quote-transfer", **(quote or QUOTE))
    await payment.completes("hold-funds")


BEFORE = "payment-accepted claim-payment first-instance quote-transfer hold-funds choose-rail which-rail"
OVER_STP = f"{BEFORE} pay-over-stp what-became-of-the-order"
CAPTURE = "capture-hold record-settled settled"
RELEASE = "release-hold record-not-settled not-settled"
WAIT = "record-unknown wait-for-news"
SEND = "stp-payment-asked send-order wait-for-status"
ASK = "time-to-ask inquire-order does-stp-know"
NO_ANSWER = f"{SEND} {ASK} wait-for-status {ASK} wait-for-status {ASK} no-answer"


async def to_no_answer(payment: Any, **sent: Any) -> None:
    """STP takes the order, and three inquiries bring nothing."""
    await to_the_rail(payment)
    await payment.completes("send-order", **{**IMPATIENT, **sent})
    for asked in range(3):
        seen = await payment.completes("inquire-order", **heard_nothing(asked + 1))
        assert seen["inquiries"] == asked
    assert told(await payment.completes("record-unknown")) == ("UNKNOWN", "no-answer", None)


def heard_nothing(inquiries: int) -> dict[str, Any]:
    return {"outcome": None, "reason": "none", "reason_detail": "in transit", "inquiries": inquiries}


# ---- before the rail


@takes(payer_transfer="payment-accepted claim-payment first-instance duplicate")
async def test_duplicate_instance(payment):
    """The fence ends a second instance before anything is validated, held or told."""
    await payment.accepted()
    await payment.completes("claim-payment", duplicate=True)


@takes(
    payer_transfer=[
        "payment-accepted claim-payment first-instance quote-transfer transfer-refused record-not-settled not-settled",
        "payment-accepted claim-payment first-instance duplicate",
    ]
)
async def test_a_second_start_message_waits_for_the_first_payment_and_ends_as_duplicate(payment):
    """The engine keeps a start message with the same key and starts it when the first instance is over."""
    await payment.accepted()
    await payment.accepted(message_id=f"{payment.id}:again")
    await payment.completes("claim-payment", duplicate=False)
    await payment.refuses("quote-transfer", "account-closed")
    await payment.completes("record-not-settled")
    await payment.completes("claim-payment", duplicate=True)


@takes(
    payer_transfer="payment-accepted claim-payment first-instance quote-transfer transfer-refused"
    " record-not-settled not-settled"
)
async def test_refused_at_quote(payment):
    """Nothing was held, so nothing is released; the reason reaches the channel."""
    await payment.accepted()
    await payment.completes("claim-payment", duplicate=False)
    await payment.refuses("quote-transfer", "account-unknown", "the payee's account")
    seen = await payment.completes("record-not-settled")
    assert told(seen) == ("REJECTED", "account-unknown", "the payee's account")


@takes(
    payer_transfer="payment-accepted claim-payment first-instance quote-transfer hold-funds hold-refused"
    " record-not-settled not-settled"
)
async def test_insufficient_funds(payment):
    await payment.accepted()
    await payment.completes("claim-payment", duplicate=False)
    await payment.completes("quote-transfer", **QUOTE)
    await payment.refuses("hold-funds", "insufficient-funds")
    assert told(await payment.completes("record-not-settled")) == ("REJECTED", "insufficient-funds", None)


@takes(payer_transfer=f"{BEFORE} no-rail {RELEASE}")
async def test_no_rail(payment):
    """The funds were held before it was known that nobody reaches the payee: they are released."""
    await payment.accepted(payee={"id_type": "IBAN", "identifier": "x"}, currency="EUR")
    await payment.completes("claim-payment", duplicate=False)
    await payment.completes("quote-transfer", **QUOTE)
    await payment.completes("hold-funds")
    await payment.completes("release-hold")
    assert told(await payment.completes("record-not-settled")) == ("REJECTED", "no-rail", None)


# ---- on us


@takes(
    payer_transfer=f"{BEFORE} pay-on-us booked record-settled settled",
    rail_on_us="on-us-payment-asked book-transfer booked",
)
async def test_settled_on_us(payment):
    """Booking captures the hold; nothing is captured twice."""
    await to_the_rail(payment, **QUOTE_ON_US)
    seen = await payment.completes("book-transfer", **BOOKED)
    assert (seen["payment_id"], seen["tenant_id"], seen["payee_account"]) == (payment.id, "bank-a", "2")
    assert told(await payment.completes("record-settled")) == ("SETTLED", "none", None)


@takes(
    payer_transfer=f"{BEFORE} pay-on-us booked {RELEASE}",
    rail_on_us="on-us-payment-asked book-transfer booking-refused refused",
)
async def test_refused_on_us_releases_the_hold(payment):
    await to_the_rail(payment, **QUOTE_ON_US)
    await payment.refuses("book-transfer", "account-frozen", "frozen since the quote")
    await payment.completes("release-hold")
    seen = await payment.completes("record-not-settled")
    assert told(seen) == ("REJECTED", "account-frozen", "frozen since the quote")


# ---- over STP


@takes(payer_transfer=f"{OVER_STP} {CAPTURE}", rail_stp=f"{SEND} status-reported reported")
async def test_settled_over_stp(payment):
    await to_the_rail(payment)
    seen = await payment.completes("send-order", **SENT)
    assert (seen["payment_id"], seen["amount"], seen["payee"]["id_type"]) == (payment.id, 12_345, "CLABE")
    await payment.hears(STP, **heard("SETTLED", "none"))
    handed_back = await payment.completes("capture-hold")
    assert not handed_back.keys() & {"order_state", "inquire_after", "inquiries"}  # only what is listed comes back
    assert told(await payment.completes("record-settled")) == ("SETTLED", "none", None)


@takes(payer_transfer=f"{OVER_STP} {RELEASE}", rail_stp="stp-payment-asked send-order order-refused refused-by-stp")
async def test_refused_by_stp_releases_the_hold(payment):
    await to_the_rail(payment)
    await payment.refuses("send-order", "scheme-rejected", "STP code 1")
    await payment.completes("release-hold")
    seen = await payment.completes("record-not-settled")
    assert told(seen) == ("REJECTED", "scheme-rejected", "STP code 1")


@pytest.mark.parametrize("outcome", ["RETURNED", "CANCELLED", "REJECTED"])
@takes(payer_transfer=f"{OVER_STP} {RELEASE}", rail_stp=f"{SEND} status-reported reported")
async def test_returned_releases_the_hold(payment, outcome):
    """Whatever the word for it, money that did not arrive goes back to the payer."""
    await to_the_rail(payment)
    await payment.completes("send-order", **SENT)
    await payment.hears(STP, **heard(outcome, "scheme-returned", "account closed"))
    await payment.completes("release-hold")
    seen = await payment.completes("record-not-settled")
    assert told(seen) == (outcome, "scheme-returned", "account closed")


@takes(payer_transfer=f"{OVER_STP} {CAPTURE}", rail_stp=f"{SEND} status-reported reported")
async def test_message_before_wait_is_buffered(payment):  # H4
    """STP may report before the answer to our own request has come back."""
    await to_the_rail(payment)
    await payment.hears(STP, **heard("SETTLED", "none"))
    await payment.completes("send-order", **SENT)
    await payment.completes("capture-hold")
    await payment.completes("record-settled")


@takes(payer_transfer=f"{OVER_STP} {CAPTURE}", rail_stp=f"{SEND} {ASK} found-by-asking")
async def test_found_by_asking(payment):  # H3
    """The answer to the order was lost; the first inquiry finds it."""
    await to_the_rail(payment)
    await payment.completes("send-order", **{**IMPATIENT, "order_state": "UNKNOWN"})
    await payment.completes("inquire-order", **heard("SETTLED", "none"), inquiries=1)
    await payment.completes("capture-hold")
    assert told(await payment.completes("record-settled")) == ("SETTLED", "none", None)


@takes(
    payer_transfer=f"{OVER_STP} {RELEASE}",
    rail_stp=f"{SEND} {ASK} wait-for-status status-reported reported",
)
async def test_asked_once_then_stp_reports(payment):
    """A report that comes while we ask is not lost: it is there when the process waits again."""
    await to_the_rail(payment)
    await payment.completes("send-order", **IMPATIENT)
    await payment.begins("inquire-order")
    await payment.hears(STP, **heard("CANCELLED", "scheme-cancelled"))
    await payment.completes("inquire-order", **heard_nothing(1), inquire_after="PT1H")
    await payment.completes("release-hold")
    assert told(await payment.completes("record-not-settled")) == ("CANCELLED", "scheme-cancelled", None)


@takes(
    payer_transfer=f"{OVER_STP} {WAIT} operator-decided record-decision what-became-of-the-order {CAPTURE}",
    rail_stp=NO_ANSWER,
)
async def test_unknown_then_operator_says_settled(payment):  # H3
    await to_no_answer(payment)
    said = heard("SETTLED", "operator", "seen in the bank statement")
    await payment.hears(OPERATOR, **said)
    assert told(await payment.completes("record-decision", **said)) == tuple(said.values())
    await payment.completes("capture-hold")
    seen = await payment.completes("record-settled")
    assert told(seen) == ("SETTLED", "operator", "seen in the bank statement")


@takes(
    payer_transfer=f"{OVER_STP} {WAIT} operator-decided record-decision what-became-of-the-order {RELEASE}",
    rail_stp=NO_ANSWER,
)
async def test_unknown_then_operator_says_rejected(payment):  # H3
    await to_no_answer(payment)
    await payment.hears(OPERATOR, **heard("REJECTED", "operator", "STP confirmed by phone"))
    await payment.completes("record-decision", **heard("REJECTED", "operator", "STP confirmed by phone"))
    await payment.completes("release-hold")
    assert told(await payment.completes("record-not-settled"))[0] == "REJECTED"


@takes(
    payer_transfer=f"{OVER_STP} {WAIT} stp-reported what-became-of-the-order {RELEASE}",
    rail_stp=NO_ANSWER,
)
async def test_unknown_then_stp_reports(payment):
    """STP's word counts whenever it comes."""
    await to_no_answer(payment)
    await payment.hears(STP, **heard("RETURNED", "scheme-returned"))
    await payment.completes("release-hold")
    assert told(await payment.completes("record-not-settled")) == ("RETURNED", "scheme-returned", None)


@takes(
    payer_transfer=f"{OVER_STP} {WAIT} time-to-ask-again ask-again what-became-of-the-order"
    f" {WAIT} time-to-ask-again ask-again what-became-of-the-order {CAPTURE}",
    rail_stp=NO_ANSWER,
)
async def test_unknown_then_asked_again(payment):  # H3
    """No answer is no outcome: the hold stays, and the question is asked again."""
    await to_no_answer(payment, inquire_again_after="PT0S")
    seen = await payment.completes("ask-again", **heard_nothing(1))
    assert seen["inquiries"] == 0
    assert told(await payment.completes("record-unknown")) == ("UNKNOWN", "no-answer", "in transit")
    await payment.completes("ask-again", **heard("SETTLED", "none"), inquiries=1)
    await payment.completes("capture-hold")
    assert told(await payment.completes("record-settled")) == ("SETTLED", "none", None)


@takes(
    payer_transfer=f"{OVER_STP} {WAIT} operator-decided record-decision what-became-of-the-order {RELEASE}",
    rail_stp=NO_ANSWER,
)
async def test_no_answer_three_inquiries(payment):  # H3
    """After three fruitless inquiries nothing is released or captured until somebody decides."""
    await to_no_answer(payment)
    await payment.stays()
    await payment.hears(OPERATOR, **heard("CANCELLED", "operator"))
    await payment.completes("record-decision", **heard("CANCELLED", "operator"))
    await payment.completes("release-hold")
    await payment.completes("record-not-settled")


@takes(
    payer_transfer=f"{OVER_STP} {WAIT} stp-reported what-became-of-the-order"
    f" {WAIT} operator-decided record-decision what-became-of-the-order {RELEASE}",
    rail_stp=NO_ANSWER,
)
async def test_an_outcome_nobody_knows_is_not_taken_for_a_no(payment):
    """A word that the drawing does not know leaves the hold where it is."""
    await to_no_answer(payment)
    await payment.hears(STP, **heard("LIQUIDATED-PERHAPS", "none"))
    assert told(await payment.completes("record-unknown"))[0] == "LIQUIDATED-PERHAPS"
    await payment.hears(OPERATOR, **heard("REJECTED", "operator"))
    await payment.completes("record-decision", **heard("REJECTED", "operator"))
    await payment.completes("release-hold")
    await payment.completes("record-not-settled")


@takes(
    payer_transfer=f"{OVER_STP} {WAIT} operator-decided record-decision what-became-of-the-order {CAPTURE}",
    rail_stp=NO_ANSWER,
)
async def test_a_decision_that_stp_has_overtaken_gives_way(payment):
    """The operator gave the payment up when STP's settlement was already stored: nothing is released."""
    await to_no_answer(payment)
    await payment.hears(OPERATOR, **heard("REJECTED", "operator"))
    await payment.completes("record-decision", **heard("SETTLED", "none"))
    await payment.completes("capture-hold")
    assert told(await payment.completes("record-settled")) == ("SETTLED", "none", None)


# ---- returned after settlement

LATE = "returned-after-settlement what-was-it-for reverse-transfer"
REFUSED_LATE = f"{LATE} reversal-refused wait-for-decision"


@takes(late_return=f"{LATE} record-returned returned")
async def test_a_late_return_goes_back_to_the_payer_and_the_channel_is_told(payment):  # L38
    await payment.returned_late()
    seen = await payment.completes("reverse-transfer")
    assert (seen["payment_id"], seen["tenant_id"], seen["reason"]) == (payment.id, "bank-a", "account-closed")
    assert told(await payment.completes("record-returned")) == ("RETURNED", "account-closed", "returned: cause 3")


@takes(
    payer_transfer=f"{OVER_STP} {CAPTURE}",
    rail_stp=f"{SEND} status-reported reported",
    late_return=f"{LATE} record-returned returned",
)
async def test_a_return_right_after_the_settlement_waits_for_nobody(payment):  # L38
    """The payer's transfer still captures while the return begins; neither takes the other's message."""
    await to_the_rail(payment)
    await payment.completes("send-order", **SENT)
    await payment.hears(STP, **heard("SETTLED", "none"))
    await payment.returned_late()
    await payment.completes("capture-hold")
    await payment.completes("record-settled")
    await payment.completes("reverse-transfer")
    await payment.completes("record-returned")


@takes(late_return=[f"{LATE} record-returned returned"] * 2)
async def test_a_return_that_is_told_again_after_a_day_does_the_same_again(payment):  # L41
    """The engine knows repeats for a day only. Both jobs are safe to run twice, so a second instance does no harm."""
    await payment.returned_late()
    await payment.returned_late(message_id="d, told a day later")
    for _ in range(2):
        await payment.completes("reverse-transfer")
        await payment.completes("record-returned")


@takes(late_return=f"{REFUSED_LATE} operator-decided record-returned returned")
async def test_a_payer_whose_account_is_closed_by_now_waits_for_an_operator(payment):
    await payment.returned_late()
    await payment.refuses("reverse-transfer", "account-closed", "the payer's account")
    await payment.stays()
    await payment.hears(OPERATOR, **heard("RETURNED", "operator", "paid out by cheque"))
    assert told(await payment.completes("record-returned")) == ("RETURNED", "account-closed", "paid out by cheque")


@takes(
    late_return=f"{REFUSED_LATE} time-to-try-again reverse-transfer reversal-refused wait-for-decision"
    " time-to-try-again reverse-transfer record-returned returned"
)
async def test_a_refused_return_is_tried_again_and_keeps_its_cause(payment):  # H3
    await payment.returned_late(try_again_after="PT0S")
    await payment.refuses("reverse-transfer", "account-frozen", "the payer's account")
    await payment.refuses("reverse-transfer", "account-frozen", "the payer's account")
    await payment.completes("reverse-transfer")
    assert told(await payment.completes("record-returned")) == ("RETURNED", "account-closed", "returned: cause 3")


@takes(late_return="returned-after-settlement what-was-it-for restore-balance report-return owed-again")
async def test_a_disbursement_that_comes_back_is_owed_to_the_store_again(payment):  # L38
    await payment.returned_late(purpose="disbursement")
    seen = await payment.completes("restore-balance")
    assert seen["after_settlement"] is True
    assert told(seen) == ("RETURNED", "account-closed", "returned: cause 3")
    await payment.completes("report-return")


# ---- money that arrives

ARRIVED = "deposit-arrived claim-deposit first-instance"
FOUND = f"{ARRIVED} validate-account credit-account"
GIVE_BACK = f"{ARRIVED} validate-account account-refused refuse-deposit told-to-keep return-deposit"


async def claimed(payment: Any, **arrived: Any) -> None:
    await payment.arrives(**arrived)
    await payment.completes("claim-deposit", duplicate=False)


@takes(payee_transfer=f"{FOUND} confirm-deposit credited")
async def test_a_deposit_is_credited_and_confirmed(payment):  # H2
    await claimed(payment)
    seen = await payment.completes("validate-account", payee_account="1")
    assert (seen["tenant_id"], seen["payee"]["identifier"]) == ("bank-a", "646180110400000007")
    seen = await payment.completes("credit-account")
    assert (seen["payee_account"], seen["amount"], seen["currency"]) == ("1", 12_345, "MXN")
    await payment.completes("confirm-deposit")


@takes(payee_transfer=[f"{FOUND} confirm-deposit credited", f"{ARRIVED} duplicate"])
async def test_a_second_instance_of_a_deposit_credits_nothing(payment):
    await payment.arrives()
    await payment.arrives(message_id=f"{payment.id}:a day later")
    await payment.completes("claim-deposit", duplicate=False)
    await payment.completes("validate-account", payee_account="1")
    await payment.completes("credit-account")
    await payment.completes("confirm-deposit")
    await payment.completes("claim-deposit", duplicate=True)


@takes(payee_transfer=f"{ARRIVED} validate-account account-refused refuse-deposit told-to-keep refused")
async def test_an_account_that_nobody_has_is_refused_in_the_answer(payment):  # H2
    await claimed(payment)
    await payment.refuses("validate-account", "account-unknown")
    seen = await payment.completes("refuse-deposit", cause=1, give_back=False)
    assert (seen["reason"], seen["payee"]["id_type"]) == ("account-unknown", "CLABE")


@takes(payee_transfer=f"{FOUND} credit-refused refuse-deposit told-to-keep return-deposit given-back")
async def test_a_refusal_that_comes_after_the_answer_is_given_back(payment):  # H2
    await claimed(payment)
    await payment.completes("validate-account", payee_account="1")
    await payment.refuses("credit-account", "account-closed")
    await payment.completes("refuse-deposit", cause=3, give_back=True)
    seen = await payment.completes("return-deposit", return_tracking_key="K")
    assert (seen["deposit_tracking_key"], seen["sender_institution"], seen["operation_date"], seen["amount"]) == (
        "058-25/08/2023/25-300CPWF924", 40072, "2026-11-18", 12_345,
    )  # fmt: skip


@takes(payee_transfer=f"{GIVE_BACK} return-refused wait-for-decision operator-decided decided-by-operator")
async def test_money_that_stp_does_not_take_back_waits_for_an_operator(payment):  # H3
    await claimed(payment)
    await payment.refuses("validate-account", "account-unknown")
    await payment.completes("refuse-deposit", cause=1, give_back=True)
    await payment.refuses("return-deposit", "scheme-rejected", "STP -1")
    await payment.stays()
    await payment.hears(OPERATOR, **heard("RETURNED", "operator", "paid back by hand"))


@takes(
    payee_transfer=f"{GIVE_BACK} return-refused wait-for-decision time-to-try-again return-deposit given-back",
)
async def test_giving_back_is_tried_again(payment):  # H3
    await claimed(payment, try_again_after="PT0S")
    await payment.refuses("validate-account", "account-unknown")
    await payment.completes("refuse-deposit", cause=1, give_back=True)
    await payment.refuses("return-deposit", "scheme-rejected", "STP -1")
    await payment.completes("return-deposit", return_tracking_key="K")


# ---- comparing with STP

DATE_ENDED = "date-ended begin-reconciliation is-there-a-date"
COMPARE = "reconcile-date compared-three-times"
THREE_TIMES = f"{DATE_ENDED} {COMPARE} next-day {COMPARE} next-day {COMPARE} does-all-agree"
A_DATE = {"reconciliation_date": "2026-11-18", "reconciliations": 0, "reconcile_again_after": "PT0S"}


@takes(stp_reconciliation=f"{DATE_ENDED} nothing-to-compare")
async def test_on_a_day_without_an_operation_date_nothing_is_compared(payment):
    await payment.day_ends()
    await payment.completes("begin-reconciliation", **{**A_DATE, "reconciliation_date": None})


@takes(stp_reconciliation=f"{THREE_TIMES} agreed")
async def test_a_date_is_compared_on_three_days(payment):
    await payment.day_ends()
    await payment.completes("begin-reconciliation", **A_DATE)
    for compared, breaks in enumerate((2, 1, 0)):
        seen = await payment.completes("reconcile-date", reconciliations=compared + 1, open_breaks=breaks)
        assert (seen["reconciliation_date"], seen["reconciliations"]) == ("2026-11-18", compared)


@takes(stp_reconciliation=f"{THREE_TIMES} breaks-left")
async def test_breaks_that_do_not_heal_are_left_for_people(payment):
    await payment.day_ends()
    await payment.completes("begin-reconciliation", **A_DATE)
    for compared in range(3):
        await payment.completes("reconcile-date", reconciliations=compared + 1, open_breaks=1)


# ---- what operators ask for

ASKED = "action-requested approvals-needed"
APPROVAL = f"{ASKED} wait-for-approval action-decided approved"
LOOK = "confirm-action seen-done"
DECIDED = "operations.action-decided"
ANSWERED = "operations.recall-answered"
NOT_YET = {"confirmed": None, "look_again_after": "PT0S"}


@takes(operator_action=f"{ASKED} carry-out-action what-follows {LOOK} time-to-look-again {LOOK} confirmed")
async def test_an_action_that_nobody_has_to_approve_is_carried_out_and_looked_for_until_it_is_seen(payment):
    await payment.action_requested()
    await payment.completes("carry-out-action", what_follows="look")
    await payment.completes("confirm-action", **NOT_YET)
    await payment.completes("confirm-action", confirmed=True, look_again_after="PT0S")


@takes(operator_action=f"{APPROVAL} carry-out-action what-follows {LOOK} failed")
async def test_an_approved_action_that_is_not_seen_done_fails(payment):
    await payment.action_requested(approvals_needed=2)
    await payment.hears(DECIDED, action_id=payment.id, decision="APPROVED")
    await payment.completes("carry-out-action", what_follows="look")
    await payment.completes("confirm-action", confirmed=False, look_again_after="PT0S")


@takes(operator_action=f"{APPROVAL} carry-out-action what-follows not-possible")
async def test_an_action_that_is_not_possible_any_more_ends_without_a_command(payment):
    await payment.action_requested(approvals_needed=1)
    await payment.hears(DECIDED, action_id=payment.id, decision="APPROVED")
    await payment.completes("carry-out-action", what_follows="nothing")


EXPIRES = f"{ASKED} wait-for-approval time-to-expire expire-action approved"


@takes(operator_action=f"{EXPIRES} not-approved")
async def test_a_request_without_approvals_expires(payment):
    await payment.action_requested(approvals_needed=1, expires_after="PT0S")
    await payment.completes("expire-action", decision="EXPIRED")


@takes(operator_action=f"{EXPIRES} carry-out-action what-follows not-possible")
async def test_an_approval_in_the_last_moment_counts(payment):
    await payment.action_requested(approvals_needed=1, expires_after="PT0S")
    await payment.completes("expire-action", decision="APPROVED")
    await payment.completes("carry-out-action", what_follows="nothing")


@takes(operator_action=f"{ASKED} carry-out-action what-follows accept-linked-payment {LOOK} confirmed")
async def test_a_payment_in_the_other_direction_is_accepted_and_looked_for(payment):
    await payment.action_requested()
    await payment.completes("carry-out-action", what_follows="payment", linked_payment_id="b", amount=1, currency="MXN")
    seen = await payment.completes("accept-linked-payment")
    assert (seen["linked_payment_id"], seen["amount"]) == ("b", 1)
    await payment.completes("confirm-action", confirmed=True, look_again_after="PT0S")


RECALL = f"{ASKED} carry-out-action what-follows ask-money-back {LOOK}"


@takes(operator_action=f"{RECALL} confirmed", recall="recall-asked wait-for-the-money recall-answered answered")
async def test_a_recall_waits_for_the_answer_that_an_operator_notes(payment):
    await payment.action_requested()
    await payment.completes("carry-out-action", what_follows="recall")
    await payment.hears(ANSWERED, action_id=payment.id)
    await payment.completes("confirm-action", confirmed=True, look_again_after="PT0S")


STILL_OUT = "wait-for-the-money time-to-look look-for-money still-open"


@takes(operator_action=f"{RECALL} failed", recall=f"recall-asked {STILL_OUT} {STILL_OUT} closed")
async def test_a_recall_looks_whether_the_money_came_back_until_its_time_is_over(payment):
    await payment.action_requested(look_for_money_after="PT0S")
    await payment.completes("carry-out-action", what_follows="recall")
    await payment.completes("look-for-money", recall_open=True)
    await payment.completes("look-for-money", recall_open=False)
    await payment.completes("confirm-action", confirmed=False, look_again_after="PT0S")


# ---- stores that are paid

ORDER = {
    "amount": 94_500,
    "currency": "MXN",
    "payer": None,
    "payee": {"id_type": "CLABE", "identifier": "646180110400000007"},
    "concept": "Pago a comercio",
    "reference_number": None,
    "purpose": "disbursement",
    "confirm_within": "PT1H",
}
DUE = "store-due collect-updates what-is-to-be-done"
TAKEN = "send-order did-stp-take-it record-sent pay-over-stp what-became-of-the-order"
IN_DOUBT = "send-order did-stp-take-it pay-over-stp what-became-of-the-order"
LOOK = "wait-for-decision {} settle-decision what-is-to-be-done"
REPORTED = f"{SEND} status-reported reported"
APPLIED = "apply-transfer report-transfer settled"
RELEASED = "release-updates not-settled"


async def to_the_order(payment: Any, **sent: Any) -> None:
    """A transfer without a person's word; STP takes its order, or perhaps does."""
    await payment.store_is_due()
    await payment.completes("collect-updates", next_step="send", **ORDER)
    order_sent = {**SENT, **sent}
    seen = await payment.completes("send-order", **order_sent)
    assert (seen["purpose"], seen["payer"], seen["amount"]) == ("disbursement", None, 94_500)
    if order_sent["order_state"] == "ACCEPTED":
        await payment.completes("record-sent")
    await payment.completes("send-order", **order_sent)  # the rail finds the order sent


@takes(disbursement=f"{DUE} nothing-is-paid")
async def test_nothing_is_paid_where_nothing_is_pending(payment):  # L28 L29
    await payment.store_is_due()
    seen = await payment.completes("collect-updates", next_step="nothing")
    assert (seen["store_id"], seen["trigger"], seen["run_id"]) == ("centro", "DAILY", "run-1")


@takes(
    disbursement=[f"{DUE} {TAKEN} {APPLIED}", f"{DUE} nothing-is-paid"],
    rail_stp=REPORTED,
)
async def test_a_store_is_paid_once_although_it_was_asked_for_twice(payment):  # L31 L35
    await payment.store_is_due()
    await payment.store_is_due(message_id=f"{payment.id}:again")
    await payment.completes("collect-updates", next_step="send", **ORDER)
    await payment.completes("send-order", **SENT)
    await payment.completes("record-sent")
    await payment.completes("send-order", **SENT)
    await payment.hears(STP, **heard("SETTLED", "none"))
    assert told(await payment.completes("apply-transfer")) == ("SETTLED", "none", None)
    await payment.completes("report-transfer")
    await payment.completes("collect-updates", next_step="nothing")


@takes(disbursement=f"{DUE} {TAKEN} {RELEASED}", rail_stp=REPORTED)
async def test_a_disbursement_that_comes_back_in_transit_frees_its_updates(payment):  # L36 L37
    await to_the_order(payment)
    await payment.hears(STP, **heard("RETURNED", "account-closed", "cause 3"))
    assert told(await payment.completes("release-updates")) == ("RETURNED", "account-closed", "cause 3")


@takes(disbursement=f"{DUE} send-order order-refused {RELEASED}")
async def test_an_order_that_stp_refuses_is_never_in_transit(payment):  # L44
    await payment.store_is_due()
    await payment.completes("collect-updates", next_step="send", **ORDER)
    await payment.refuses("send-order", "account-unknown", "the CLABE names no institution")
    seen = await payment.completes("release-updates")
    assert told(seen) == ("REJECTED", "account-unknown", "the CLABE names no institution")


@takes(
    disbursement=f"{DUE} {LOOK.format('transfer-decided')} {TAKEN} {APPLIED}",
    rail_stp=REPORTED,
)
async def test_a_transfer_that_a_person_confirms_is_sent(payment):  # L23
    await payment.store_is_due()
    await payment.completes("collect-updates", next_step="confirm", **ORDER)
    await payment.stays()
    await payment.hears("disbursement.transfer-decided")
    seen = await payment.completes("settle-decision", next_step="send")
    assert not seen.get("overdue")
    await payment.completes("send-order", **SENT)
    await payment.completes("record-sent")
    await payment.completes("send-order", **SENT)
    await payment.hears(STP, **heard("SETTLED", "none"))
    await payment.completes("apply-transfer")
    await payment.completes("report-transfer")


@takes(
    disbursement=f"{DUE} {LOOK.format('transfer-decided')} {LOOK.format('decision-overdue')} nothing-is-paid",
)
async def test_after_a_word_that_decides_nothing_it_waits_on_and_in_the_end_is_cancelled(payment):  # L23 H3
    await payment.store_is_due()
    await payment.completes("collect-updates", next_step="confirm", **{**ORDER, "confirm_within": "PT3S"})
    await payment.hears("disbursement.transfer-decided")
    seen = await payment.completes("settle-decision", next_step="confirm")
    assert not seen.get("overdue")
    seen = await payment.completes("settle-decision", next_step="nothing")
    assert seen["overdue"] is True


@takes(
    disbursement=f"{DUE} {IN_DOUBT} wait-for-news stp-reported what-became-of-the-order {APPLIED}",
    rail_stp=NO_ANSWER,
)
async def test_a_disbursement_of_which_nothing_is_heard_waits_and_is_settled_when_stp_tells(payment):  # H3 L24
    await to_the_order(payment, **{**IMPATIENT, "order_state": "UNKNOWN"})
    for asked in range(3):
        await payment.completes("inquire-order", **heard_nothing(asked + 1))
    await payment.stays()
    await payment.hears(STP, **heard("SETTLED", "none"))
    assert told(await payment.completes("apply-transfer")) == ("SETTLED", "none", None)
    await payment.completes("report-transfer")


@takes(
    disbursement=f"{DUE} {TAKEN} wait-for-news time-to-ask-again ask-again what-became-of-the-order wait-for-news"
    f" operator-decided record-decision what-became-of-the-order {RELEASED}",
    rail_stp=NO_ANSWER,
)
async def test_a_disbursement_of_which_nobody_knows_is_decided_by_an_operator(payment):  # H3
    await to_the_order(payment, **{**IMPATIENT, "inquire_again_after": "PT2S"})
    for asked in range(3):
        await payment.completes("inquire-order", **heard_nothing(asked + 1))
    seen = await payment.completes("ask-again", **heard_nothing(1))
    assert seen["inquiries"] == 0
    await payment.hears(OPERATOR, **heard("CANCELLED", "operator", "STP confirmed by phone"))
    await payment.completes("record-decision", **heard("CANCELLED", "operator", "STP confirmed by phone"))
    assert told(await payment.completes("release-updates")) == ("CANCELLED", "operator", "STP confirmed by phone")


# ---- which stores are due

A_RUN = {"run_id": "run-1", "tenant_id": "bank-a", "frequency": "DAILY", "after_store": None}
PLAN = "plan-runs is-there-a-run"
A_PAGE = "select-stores request-disbursement more-stores"


@takes(disbursement_run=f"every-five-minutes {PLAN} nothing-more-to-do")
async def test_most_of_the_time_no_run_is_due(payment):
    await payment.five_minutes_pass()
    await payment.completes("plan-runs", run_id=None)


@takes(
    disbursement_run=f"run-requested {PLAN} {A_PAGE} {A_PAGE} close-run {PLAN} nothing-more-to-do",
)
async def test_a_run_goes_through_its_stores_page_by_page_and_then_looks_for_the_next_run(payment):  # L27
    await payment.run_is_asked_for()
    await payment.completes("plan-runs", **A_RUN)
    for store, after in (("centro", None), ("norte", "centro")):
        seen = await payment.completes(
            "select-stores",
            due=[{"store_id": store, "payment_id": f"{payment.id}/{store}"}],
            after_store=store if after is None else None,
        )
        assert (seen["run_id"], seen["after_store"]) == ("run-1", after)
        seen = await payment.completes("request-disbursement")
        assert seen["due_store"] == {"store_id": store, "payment_id": f"{payment.id}/{store}"}
        assert (seen["tenant_id"], seen["frequency"]) == ("bank-a", "DAILY")
    await payment.completes("close-run")
    await payment.completes("plan-runs", run_id=None)


# ---- the paths themselves


def steps() -> Iterator[tuple[str, str, str, str]]:
    for test, paths in PATHS.items():
        for process, elements in paths:
            for here, there in pairwise(elements):
                yield test, process, here, there


def test_each_path_goes_from_a_start_to_an_end_along_arrows():
    drawn = {process.id: process for process in bpmn.processes()}
    for paths in PATHS.values():
        for process, elements in paths:
            assert elements[0] in drawn[process].starts
            assert elements[-1] in drawn[process].ends
    for test, process, here, there in steps():
        ways = {flow.target for flow in drawn[process].leaving(here)}
        ways |= {event.id for event in drawn[process].attached(here)}
        assert there in ways, f"{test}: no arrow leads from {here} to {there} in {process}"


def test_the_paths_use_every_arrow_of_every_picture():
    used = {(process, here, there) for _, process, here, there in steps()}
    drawn = {(process.id, flow.source, flow.target) for process in bpmn.processes() for flow in process.flows.values()}
    assert drawn - used == set()


def test_every_boundary_event_is_on_a_path():
    visited = {(process, element) for paths in PATHS.values() for process, elements in paths for element in elements}
    events = {(p.id, node.id) for p in bpmn.processes() for node in p.nodes.values() if node.attached_to}
    assert events - visited == set()
