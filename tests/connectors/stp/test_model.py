"""States by rank, and what an answer does to an order."""

from __future__ import annotations

from itertools import permutations

import pytest

from connectors.stp.model import OrderState, OrderStatusChanged, Sending, SendOutcome, digest
from connectors.stp.orders import sending_after
from connectors.stp.wire import Answer
from hub.transfer import Outcome, PaymentId, Reason

P, S, R, C = OrderState.PENDING, OrderState.SETTLED, OrderState.RETURNED, OrderState.CANCELLED


@pytest.mark.parametrize("before", OrderState)
@pytest.mark.parametrize("later", OrderState)
def test_a_state_is_followed_only_by_one_of_higher_rank(before, later):
    allowed = {(P, S), (P, R), (P, C), (S, R)}
    assert before.can_become(later) is ((before, later) in allowed)
    assert (before in OrderState.before(later)) is ((before, later) in allowed)


def test_settled_and_returned_end_as_returned_in_whichever_order_they_come():
    for order in permutations([P, S, R]):
        state = P
        for heard in order:
            state = heard if state.can_become(heard) else state
        assert state is R


def test_only_cancelled_contradicts_and_only_what_moved_money():
    assert {(a, b) for a in OrderState for b in OrderState if a.contradicts(b)} == {(C, S), (S, C), (C, R), (R, C)}


@pytest.mark.parametrize(
    ("outcome", "documented", "doubts", "sending"),
    [
        (SendOutcome.ACCEPTED, True, 1, Sending.ACCEPTED),
        (SendOutcome.ACCEPTED, True, 3, Sending.ACCEPTED),
        (SendOutcome.REJECTED, True, 1, Sending.REJECTED),
        (SendOutcome.REJECTED, True, 2, Sending.REFUSED),
        (SendOutcome.REJECTED, False, 1, Sending.REFUSED),
        (SendOutcome.REJECTED, False, 2, Sending.UNKNOWN),
        (SendOutcome.ALREADY_REGISTERED, True, 1, Sending.REGISTERED),
        (SendOutcome.UNKNOWN, True, 1, Sending.UNKNOWN),
        (SendOutcome.NOT_SENT, True, 1, Sending.NOT_SENT),
        (SendOutcome.RETRYABLE, True, 1, Sending.NOT_SENT),
        (SendOutcome.CONFIG_ERROR, True, 1, Sending.NOT_SENT),
    ],
)
def test_only_a_certain_no_is_believed_at_once(outcome, documented, doubts, sending):  # L44
    assert sending_after(Answer(outcome, documented=documented), doubts) is sending


def test_every_outcome_of_sending_leads_somewhere():
    assert all(sending_after(Answer(outcome), 1) in Sending for outcome in SendOutcome)


def test_a_message_is_found_by_payment_and_repeated_under_one_id():
    message = OrderStatusChanged(
        payment_id=PaymentId("p"), outcome=Outcome.SETTLED, reason=Reason.NONE, reason_detail=None, observation="o"
    )
    assert (message.correlation_key, message.message_id) == ("p", "o")
    assert message.variables() == {
        "payment_id": "p", "outcome": "SETTLED", "reason": "none", "reason_detail": None, "happened_at": None,
    }  # fmt: skip


def test_digests_tell_parts_apart():
    assert digest("a", "bc") != digest("ab", "c")
    assert digest("a", None) == digest("a", "")
    assert len(digest(1)) == 40
