"""The comparison itself: what differs is called by its class, what agrees is not mentioned. No server."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.stp.breaks import BreakClass, Direction, Known, Line, compare, without_order
from connectors.stp.model import OrderState, Sending
from hub.transfer import PaymentId, TenantId

OUT, IN = Direction.OUT, Direction.IN


def order(**changes):
    given = {
        "key": "PH1", "payment_id": PaymentId("p1"), "tenant_id": TenantId("greenbank"), "amount": 12_345,
        "account": "072691004495711499", "state": OrderState.SETTLED, "sending": Sending.ACCEPTED,
    }  # fmt: skip
    return Known(**{**given, **changes})


def deposit(**changes):
    return order(**{"key": "B-1/2", "sending": None, "institution": 40012, **changes})


def line(**changes):
    given = {
        "key": "PH1", "stp_id": 7_000_001, "amount": 12_345, "account": "072691004495711499", "institution": 40072,
        "state": OrderState.SETTLED, "word": "LQ",
    }  # fmt: skip
    return Line(**{**given, **changes})


def received(**changes):
    return line(**{"key": "B-1/2", "institution": 40012, "word": "CCO", **changes})


BOOKED = {"p1": 12_345}
PENDING = {"state": OrderState.PENDING}
CASES = [
    ("agreeing", [order()], [line()], BOOKED, []),
    ("no book of ours", [order()], [line()], None, []),
    ("masked account", [order()], [line(account="*****1499")], BOOKED, []),
    ("not sent", [order(**PENDING, sending=Sending.NOT_SENT)], [], {}, []),
    ("rejected", [order(**PENDING, sending=Sending.REJECTED)], [], {}, []),
    ("cancelled on both sides", [order(state=OrderState.CANCELLED)], [line(state=OrderState.CANCELLED)], {}, []),
    ("returned and reversed", [order(state=OrderState.RETURNED)], [line(state=OrderState.RETURNED)], {}, []),
    ("cancelled before it left, seen nowhere", [order(state=OrderState.CANCELLED)], [], {}, []),
    ("lost at STP", [order()], [], BOOKED, ["missing-at-stp"]),
    ("counted to the next date", [order(of_date=False)], [], BOOKED, []),
    ("unknown to us", [], [line()], {}, ["missing-here"]),
    ("unknown to us and cancelled", [], [line(state=OrderState.CANCELLED)], {}, []),
    ("another amount", [order()], [line(amount=99)], BOOKED, ["amount-differs"]),
    ("another account", [order()], [line(account="012180001183597198")], BOOKED, ["account-differs"]),
    ("settled here, cancelled there", [order()], [line(state=OrderState.CANCELLED)], BOOKED, ["state-differs"]),
    ("refused here, settled there", [order(**PENDING, sending=Sending.REJECTED)], [line()], {}, ["state-differs"]),
    ("a word nobody knows", [order()], [line(state=None, word="ZZ")], BOOKED, ["state-differs"]),
    ("open on both sides", [order(**PENDING)], [line(**PENDING, word="L")], {}, ["no-final-state"]),
    ("in doubt and not listed", [order(**PENDING, sending=Sending.UNKNOWN)], [], {}, ["no-final-state"]),
    ("paid twice", [order()], [line(), line(stp_id=7_000_002)], BOOKED, ["moved-twice"]),
    ("not booked", [order()], [line()], {}, ["not-booked"]),
    ("not booked yet", [order(settled_long_ago=False)], [line()], {}, []),
    ("booked too little", [order()], [line()], {"p1": 1}, ["booked-amount-differs"]),
    ("booked in vain", [order(state=OrderState.CANCELLED)], [line(state=OrderState.CANCELLED)], BOOKED,
     ["booked-in-vain"]),
    ("returned and not reversed", [order(state=OrderState.RETURNED)], [line(state=OrderState.RETURNED)], BOOKED,
     ["booked-in-vain"]),
]  # fmt: skip


@pytest.mark.parametrize(("known", "lines", "booked", "found"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_an_order_is_compared_with_stp_and_the_book(known, lines, booked, found):
    assert [one.kind for one in compare(OUT, known, lines, booked)] == found


CREDITED = {"p1": -12_345}
DEPOSITS = [
    ("credited", [deposit()], [received()], CREDITED, []),
    ("refused and sent back", [deposit(state=OrderState.RETURNED)], [received(state=OrderState.RETURNED)], {}, []),
    ("sent back and not listed", [deposit(state=OrderState.RETURNED)], [], {}, []),
    ("given back afterwards", [deposit(state=OrderState.RETURNED, given_back=True)], [received()], {}, []),
    ("same key of another bank", [deposit()], [received(institution=40002)], CREDITED,
     ["missing-at-stp", "missing-here"]),
    ("never told to us", [], [received()], {}, ["missing-here"]),
    ("credited and sent back", [deposit()], [received(state=OrderState.RETURNED)], CREDITED, ["state-differs"]),
    ("undecided", [deposit(**PENDING)], [received()], {}, ["no-final-state"]),
    ("credited and not booked", [deposit()], [received()], {}, ["not-booked"]),
    ("credited twice", [deposit()], [received()], {"p1": -24_690}, ["booked-amount-differs"]),
    ("refused and booked", [deposit(state=OrderState.RETURNED)], [received(state=OrderState.RETURNED)], CREDITED,
     ["booked-in-vain"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("known", "lines", "booked", "found"), [case[1:] for case in DEPOSITS], ids=[case[0] for case in DEPOSITS]
)
def test_a_deposit_is_compared_with_stp_and_the_book(known, lines, booked, found):
    assert [one.kind for one in compare(IN, known, lines, booked)] == found


def test_what_the_book_moved_for_nothing_known_is_named():
    found = list(without_order({"p1": 5, "p2": -7, "p3": 0}, ["p1"]))
    assert [(one.kind, one.direction, one.subject) for one in found] == [(BreakClass.BOOKED_WITHOUT_ORDER, IN, "p2")]


def test_no_break_shows_an_account():
    found = list(compare(OUT, [order()], [line(account="012180001183597198")], None))
    assert "012180001183597198" not in repr(found)
    assert (found[0].ours, found[0].theirs) == ("…1499", "…7198")


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(list(OrderState)), st.sampled_from([100, 200]), st.booleans()),
        max_size=6,
        unique_by=lambda one: one[0],
    ),
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([*OrderState, None]), st.sampled_from([100, 200])), max_size=8
    ),
)
@settings(max_examples=60, deadline=None)
def test_nothing_is_named_twice_and_equal_sides_are_never_named(ours, theirs):
    known = [
        order(key=f"K{n}", payment_id=PaymentId(f"p{n}"), state=state, amount=amount) for n, state, amount, _ in ours
    ]
    lines = [line(key=f"K{n}", stp_id=i, state=state, amount=a) for i, (n, state, a) in enumerate(theirs)]
    booked = {f"p{n}": amount for n, _, amount, there in ours if there}
    found = list(compare(OUT, known, lines, booked))
    assert len({one.identity for one in found}) >= len({one.subject for one in found})
    mirror = [line(key=one.key, stp_id=i, state=one.state, amount=one.amount) for i, one in enumerate(known)]
    right = {one.payment_id: one.amount for one in known if one.state is OrderState.SETTLED}
    left = {one.kind for one in compare(OUT, known, mirror, right)}
    assert left <= {BreakClass.NO_FINAL_STATE}
