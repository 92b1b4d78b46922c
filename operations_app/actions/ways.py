"""The drawn ways out of each place where a payment can be stuck.

One line per service task, call and wait of the payments' processes. A way is a move to an element that is drawn behind
the place, so that everything the drawing does afterwards is done; no way leads past a step that moves money unless the
book shows that it moved. A test compares the lines with the drawings, both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from hub.transfer import Outcome


class Guard(Enum):
    """What must be so before a way may be taken; the text is told when it is not."""

    CAPTURED = "the book does not show that the money was paid out of the hold: retry instead"
    NOT_CAPTURED = "the money was paid out of the hold: force-complete instead"
    RELEASED = "the book does not show that the hold was released: retry instead"
    CREDITED = "the book does not show that the account was credited: retry, or force-fail"
    NOT_CREDITED = "the account has the money: force-complete, and refund it if it has to go back"
    REVERSED = "the book does not show that the payer has the money back: retry instead"
    KEPT = "it is not written yet that the deposit is kept: retry instead"
    TOLD = "the channel was not told this outcome: retry instead"
    NOT_SENT = (
        "the order may have left: ask STP what became of it, then force-complete with the outcome that it had; the hold"
        " stays until then"
    )
    NEVER_SENT = "an order was made for STP already: force-fail instead, which looks whether it may have left"
    PERHAPS_SENT = "nothing was sent over STP, so there is no outcome to state: retry, or force-fail"


@dataclass(frozen=True, slots=True)
class Way:
    """A move from a stuck place to `to`, drawn behind it."""

    to: str
    outcomes: frozenset[Outcome]
    """The outcomes that fit this way."""
    guards: tuple[Guard, ...] = ()
    told: bool = False
    """The outcome is told to the wait that stands there, by message; it decides what happens."""
    unheld: str | None = None
    """Where to go instead when nothing is held."""


@dataclass(frozen=True, slots=True)
class Told:
    """The place itself waits for an operator's word."""

    outcomes: frozenset[Outcome]
    guards: tuple[Guard, ...] = ()


Out = Way | Told | str
"""A way, a wait that takes the operator's word, or why there is none."""


@dataclass(frozen=True, slots=True)
class Place:
    """What can be done where a payment is stuck."""

    complete: Out
    fail: Out
    cancel: Out


_SETTLED: Final = frozenset({Outcome.SETTLED})
_REJECTED: Final = frozenset({Outcome.REJECTED})
_CANCELLED: Final = frozenset({Outcome.CANCELLED})
_RETURNED: Final = frozenset({Outcome.RETURNED})
_NOT_SETTLED: Final = frozenset({Outcome.REJECTED, Outcome.RETURNED, Outcome.CANCELLED})
_ANY: Final = _SETTLED | _NOT_SETTLED

BEFORE_MONEY: Final = "the money has not moved yet and would not: retry, or force-fail"
UNCLAIMED: Final = "no process has the payment yet and it would be started again: retry instead"
MONEY_LEFT: Final = "the money has been paid: force-complete, and recall it if it has to come back"
MONEY_CAME: Final = "the money is here: force-fail gives it back, a refund gives it back after it was credited"
FAILING: Final = "it is on its way to that end already: retry instead"
DECIDING: Final = "it writes a decision down that was made already: retry instead"
OWN_BOOK: Final = "it writes the stores' own book, which nothing else may do: retry instead"
CONFIRMED_ELSEWHERE: Final = "it waits to be confirmed or cancelled, which is done where disbursements are"
BEGUN: Final = "more was done than can be cancelled: force-fail instead"


def _before_rail(to: str, guards: tuple[Guard, ...] = (), *, unheld: str | None = None) -> Place:
    return Place(
        BEFORE_MONEY,
        Way(to, _REJECTED, guards, unheld=unheld),
        Way(to, _CANCELLED, guards, unheld=unheld),
    )


def _only_retry(why: str) -> Place:
    return Place(why, why, why)


_WAITS_FOR_STP: Final = Place(
    Way("no-answer", _ANY, (Guard.PERHAPS_SENT,), told=True),
    Guard.NOT_SENT.value,
    BEGUN,
)
_AFTER_UNKNOWN: Final = Place(
    Way("wait-for-news", _ANY, (Guard.PERHAPS_SENT,), told=True),
    Way("release-hold", _REJECTED, (Guard.NOT_SENT,)),
    BEGUN,
)

PLACES: Final[Mapping[tuple[str, str], Place]] = {
    ("payer-transfer", "claim-payment"): Place(BEFORE_MONEY, UNCLAIMED, UNCLAIMED),
    ("payer-transfer", "quote-transfer"): _before_rail("record-not-settled"),
    ("payer-transfer", "hold-funds"): _before_rail("release-hold", unheld="record-not-settled"),
    ("payer-transfer", "choose-rail"): _before_rail("release-hold"),
    ("payer-transfer", "which-rail"): _before_rail("release-hold"),
    ("payer-transfer", "pay-on-us"): _before_rail("release-hold", (Guard.NOT_CAPTURED,)),
    ("payer-transfer", "pay-over-stp"): _before_rail("release-hold", (Guard.NOT_SENT, Guard.NEVER_SENT)),
    ("payer-transfer", "capture-hold"): Place(
        Way("record-settled", _SETTLED, (Guard.CAPTURED,)), MONEY_LEFT, MONEY_LEFT
    ),
    ("payer-transfer", "release-hold"): Place(
        Way("record-not-settled", _NOT_SETTLED, (Guard.RELEASED,)), FAILING, FAILING
    ),
    ("payer-transfer", "record-settled"): Place(Way("settled", _SETTLED, (Guard.TOLD,)), MONEY_LEFT, MONEY_LEFT),
    ("payer-transfer", "record-not-settled"): Place(Way("not-settled", _NOT_SETTLED, (Guard.TOLD,)), FAILING, FAILING),
    ("payer-transfer", "record-unknown"): _AFTER_UNKNOWN,
    ("payer-transfer", "wait-for-news"): Place(Told(_ANY, (Guard.PERHAPS_SENT,)), _AFTER_UNKNOWN.fail, BEGUN),
    ("payer-transfer", "record-decision"): Place(DECIDING, DECIDING, DECIDING),
    ("payer-transfer", "ask-again"): _AFTER_UNKNOWN,
    ("rail-on-us", "book-transfer"): Place(
        Way("booked", _SETTLED, (Guard.CAPTURED,)),
        Way("refused", _REJECTED, (Guard.NOT_CAPTURED,)),
        Way("refused", _CANCELLED, (Guard.NOT_CAPTURED,)),
    ),
    ("rail-stp", "send-order"): Place(
        _WAITS_FOR_STP.complete,
        Way("refused-by-stp", _REJECTED, (Guard.NOT_SENT,)),
        Way("refused-by-stp", _CANCELLED, (Guard.NOT_SENT, Guard.NEVER_SENT)),
    ),
    ("rail-stp", "wait-for-status"): _WAITS_FOR_STP,
    ("rail-stp", "inquire-order"): _WAITS_FOR_STP,
    ("payee-transfer", "claim-deposit"): Place(BEFORE_MONEY, UNCLAIMED, UNCLAIMED),
    ("payee-transfer", "validate-account"): Place(BEFORE_MONEY, Way("refuse-deposit", _REJECTED), MONEY_CAME),
    ("payee-transfer", "credit-account"): Place(
        Way("confirm-deposit", _SETTLED, (Guard.CREDITED,)),
        Way("refuse-deposit", _REJECTED, (Guard.NOT_CREDITED,)),
        MONEY_CAME,
    ),
    ("payee-transfer", "confirm-deposit"): Place(
        Way("credited", _SETTLED, (Guard.CREDITED, Guard.KEPT)), Guard.NOT_CREDITED.value, MONEY_CAME
    ),
    ("payee-transfer", "refuse-deposit"): Place(FAILING, FAILING, FAILING),
    ("payee-transfer", "return-deposit"): Place(Way("wait-for-decision", _RETURNED, told=True), FAILING, FAILING),
    ("payee-transfer", "wait-for-decision"): Place(Told(_RETURNED), FAILING, FAILING),
    ("late-return", "reverse-transfer"): Place(Way("record-returned", _RETURNED, (Guard.REVERSED,)), FAILING, FAILING),
    ("late-return", "wait-for-decision"): Place(Told(_RETURNED), FAILING, FAILING),
    ("late-return", "restore-balance"): _only_retry(OWN_BOOK),
    ("late-return", "report-return"): _only_retry(OWN_BOOK),
    ("disbursement", "collect-updates"): _only_retry(OWN_BOOK),
    ("disbursement", "wait-for-decision"): _only_retry(CONFIRMED_ELSEWHERE),
    ("disbursement", "settle-decision"): _only_retry(DECIDING),
    ("disbursement", "send-order"): Place(BEGUN, Way("release-updates", _REJECTED, (Guard.NOT_SENT,)), BEGUN),
    ("disbursement", "record-sent"): _only_retry(OWN_BOOK),
    ("disbursement", "pay-over-stp"): _only_retry(OWN_BOOK),
    ("disbursement", "apply-transfer"): _only_retry(OWN_BOOK),
    ("disbursement", "report-transfer"): _only_retry(OWN_BOOK),
    ("disbursement", "release-updates"): _only_retry(OWN_BOOK),
    ("disbursement", "wait-for-news"): Place(
        Told(_ANY, (Guard.PERHAPS_SENT,)), Way("release-updates", _REJECTED, (Guard.NOT_SENT,)), BEGUN
    ),
    ("disbursement", "record-decision"): _only_retry(DECIDING),
    ("disbursement", "ask-again"): Place(
        Way("wait-for-news", _ANY, (Guard.PERHAPS_SENT,), told=True),
        Way("release-updates", _REJECTED, (Guard.NOT_SENT,)),
        BEGUN,
    ),
    ("late-return", "record-returned"): Place(Way("returned", _RETURNED, (Guard.TOLD,)), FAILING, FAILING),
}
"""By process and element: tasks and calls with an incident, and the gateways at which a payment waits."""
