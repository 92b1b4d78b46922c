"""The words of reconciliation, and the comparison itself: ledger = our orders = STP. No input, no output.

One operation date of one company is compared at a time, by tracking key, amount and account. Whatever differs is a
*break*; it has a class that says what kind of look it needs, and a subject by which the same one is known again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import ClassVar, Final

from connectors.stp.model import OrderState, Sending
from hub.jobs import Job, Result
from hub.transfer import PaymentId, TenantId

# --- Jobs -----------------------------------------------------------------------------------------------------------


class ReconciliationBegun(Result):
    """The operation date to compare; none when the last one that ended is another instance's already."""

    reconciliation_date: date | None
    reconciliations: int = 0
    reconcile_again_after: str
    """ISO 8601: the process's timer between one comparison and the next."""


class BeginReconciliation(Job[ReconciliationBegun]):
    """Find the operation date that ended last. One process instance has it, however often the timer fires."""

    job_type: ClassVar[str] = "stp.begin-reconciliation"


class DateReconciled(Result):
    """What is open after a comparison."""

    reconciliations: int
    open_breaks: int


class ReconcileDate(Job[DateReconciled]):
    """Compare a date for every company. Safe to run twice; what broke off goes on where it ended."""

    job_type: ClassVar[str] = "stp.reconcile-date"
    timeout: ClassVar[timedelta] = timedelta(minutes=10)
    """Pages come slowly: STP answers a limited number of questions an hour."""
    attempts: ClassVar[int] = 600
    """Some ten hours of STP being away or out of questions before an operator sees an incident."""

    reconciliation_date: date
    reconciliations: int = 0
    """How often the date was compared before."""


# --- What is compared -----------------------------------------------------------------------------------------------


class Direction(StrEnum):
    """Which way money goes, seen from us."""

    OUT = "out"
    IN = "in"


class BreakClass(StrEnum):
    """What differs."""

    MISSING_AT_STP = "missing-at-stp"
    """We have it as done, and STP does not list it."""
    MISSING_HERE = "missing-here"
    """STP lists it, and we know nothing of it."""
    AMOUNT_DIFFERS = "amount-differs"
    ACCOUNT_DIFFERS = "account-differs"
    STATE_DIFFERS = "state-differs"
    NO_FINAL_STATE = "no-final-state"
    """The date has ended, and nobody knows how it ended for this one."""
    MOVED_TWICE = "moved-twice"
    """STP moved money more than once under one key."""
    NOT_BOOKED = "not-booked"
    """Done at STP, and the book does not have it."""
    BOOKED_IN_VAIN = "booked-in-vain"
    """In the book, although no money moved at STP."""
    BOOKED_AMOUNT_DIFFERS = "booked-amount-differs"
    BOOKED_WITHOUT_ORDER = "booked-without-order"
    """In the book over the settlement account, and neither order nor deposit is known."""


URGENT: Final = frozenset(
    {BreakClass.MISSING_HERE, BreakClass.MOVED_TWICE, BreakClass.AMOUNT_DIFFERS, BreakClass.BOOKED_WITHOUT_ORDER}
)
"""Money that moved without us, or otherwise than we said: somebody must look at once."""


@dataclass(frozen=True, slots=True)
class Line:
    """An order or a deposit as STP lists it."""

    key: str
    stp_id: int
    amount: int
    """Centavos."""
    account: str | None
    institution: int | None
    state: OrderState | None
    """None for a state word that nobody documents."""
    word: str
    money_back: bool = False
    """Whether its type of payment is one that brings money back."""


@dataclass(frozen=True, slots=True)
class Known:
    """An order or a deposit as we have it."""

    key: str
    payment_id: PaymentId
    tenant_id: TenantId
    amount: int
    account: str | None
    state: OrderState
    sending: Sending | None = None
    """None for a deposit."""
    institution: int | None = None
    """The sender's; None for an order."""
    of_date: bool = True
    """Whether we count it to the date that is compared."""
    settled_long_ago: bool = True
    """Whether the state is old enough for the book to have it."""
    booked: bool = True
    """Whether the book is asked about it at all."""
    given_back: bool = False
    """A deposit that STP was told to keep and that went back by a transfer of ours: STP may show it either way."""

    @property
    def expected_at_stp(self) -> bool:
        """Whether STP must list it."""
        if self.sending is None:
            return self.state in {OrderState.SETTLED, OrderState.PENDING}
        if self.state is not OrderState.PENDING:
            return self.state is not OrderState.CANCELLED
        return self.sending in {Sending.ACCEPTED, Sending.REGISTERED}


@dataclass(frozen=True, slots=True)
class Break:
    """One difference."""

    direction: Direction
    kind: BreakClass
    subject: str
    """The tracking key, for a deposit with its sender; or what the book calls the movement."""
    tenant_id: TenantId | None = None
    payment_id: PaymentId | None = None
    stp_id: int | None = None
    ours: str | None = None
    theirs: str | None = None

    @property
    def identity(self) -> tuple[Direction, BreakClass, str]:
        return self.direction, self.kind, self.subject


Booked = Mapping[str, int]
"""Centavos that left over the settlement account by payment; what came in is negative."""


def compare(
    direction: Direction, known: Sequence[Known], lines: Iterable[Line], booked: Booked | None
) -> Iterator[Break]:
    """Every difference between what we know, what STP lists and what the book says (None: there is no book of ours)."""
    listed: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        listed[_subject(direction, line.key, line.institution)].append(line)
    for one in known:
        subject = _subject(direction, one.key, one.institution)
        theirs = listed.pop(subject, [])
        yield from _against_stp(direction, subject, one, theirs)
        if booked is not None and one.booked:
            yield from _against_the_book(direction, subject, one, booked.get(one.payment_id, 0))
    for subject, unknown in listed.items():
        for line in unknown:
            if _moved(line) or line.state in {None, OrderState.PENDING}:
                yield Break(
                    direction, BreakClass.MISSING_HERE, subject, stp_id=line.stp_id, theirs=_said(line)
                )  # fmt: skip


def without_order(moved: Booked, known: Iterable[str]) -> Iterator[Break]:
    """What the book moved over the settlement account for nothing that we know."""
    for reference in sorted(moved.keys() - set(known)):
        amount = moved[reference]
        if amount:
            direction = Direction.OUT if amount > 0 else Direction.IN
            yield Break(direction, BreakClass.BOOKED_WITHOUT_ORDER, reference, ours=_pesos(abs(amount)))


def _against_stp(direction: Direction, subject: str, one: Known, theirs: Sequence[Line]) -> Iterator[Break]:
    def broken(kind: BreakClass, line: Line | None = None, ours: str = "", theirs: str = "") -> Break:
        stp_id = line.stp_id if line else None
        return Break(direction, kind, subject, one.tenant_id, one.payment_id, stp_id, ours or None, theirs or None)

    if not theirs:
        if one.of_date and one.expected_at_stp:
            yield broken(BreakClass.MISSING_AT_STP, None, f"{_pesos(one.amount)} {one.state}")
        elif one.of_date and _in_doubt(one):
            yield broken(BreakClass.NO_FINAL_STATE, None, f"{one.sending}")
        return
    moved = [line for line in theirs if _moved(line)]
    if len(moved) > 1:
        ids = ", ".join(str(line.stp_id) for line in moved)
        yield broken(BreakClass.MOVED_TWICE, moved[-1], _pesos(one.amount), f"STP's {ids}")
    line = (moved or list(theirs))[0]
    if line.amount != one.amount:
        yield broken(BreakClass.AMOUNT_DIFFERS, line, _pesos(one.amount), _pesos(line.amount))
    if _other_account(one.account, line.account):
        yield broken(BreakClass.ACCOUNT_DIFFERS, line, _masked(one.account), _masked(line.account))
    ours, said = one.state, line.state or OrderState.PENDING
    if one.sending is Sending.REJECTED:
        if said is not OrderState.CANCELLED:
            yield broken(BreakClass.STATE_DIFFERS, line, "REJECTED", line.word)
    elif ours is OrderState.PENDING and (said is ours or one.sending is None):
        yield broken(BreakClass.NO_FINAL_STATE, line, f"{one.sending or ours}", line.word)
    elif ours is not said and not (one.given_back and said is OrderState.SETTLED):
        yield broken(BreakClass.STATE_DIFFERS, line, ours, line.word)


def _against_the_book(direction: Direction, subject: str, one: Known, net: int) -> Iterator[Break]:
    moved = one.state is OrderState.SETTLED and one.sending is not Sending.REJECTED
    expected = (one.amount if direction is Direction.OUT else -one.amount) if moved else 0
    if net == expected or not one.settled_long_ago:
        return
    kind = BreakClass.BOOKED_AMOUNT_DIFFERS
    if net == 0:
        kind = BreakClass.NOT_BOOKED
    elif expected == 0:
        kind = BreakClass.BOOKED_IN_VAIN
    ours, theirs = f"booked {_pesos(abs(net))}", f"{one.state} {_pesos(abs(expected))}"
    yield Break(direction, kind, subject, one.tenant_id, one.payment_id, None, ours, theirs)


def _in_doubt(one: Known) -> bool:
    return one.state is OrderState.PENDING and one.sending in {Sending.CLAIMED, Sending.UNKNOWN, Sending.REFUSED}


def _moved(line: Line) -> bool:
    return line.state in {OrderState.SETTLED, OrderState.RETURNED}


def _other_account(ours: str | None, theirs: str | None) -> bool:
    """Whether two accounts differ. What STP shows masked, or not at all, says nothing."""
    return bool(ours) and theirs is not None and theirs.isdigit() and ours != theirs


def _subject(direction: Direction, key: str, institution: int | None) -> str:
    """Our keys are unique for ever; another bank's key is only unique together with the bank."""
    return key if direction is Direction.OUT else f"{institution}:{key}"


def _said(line: Line) -> str:
    return f"{_pesos(line.amount)} {line.word}"


def _pesos(centavos: int) -> str:
    return f"{centavos // 100}.{centavos % 100:02d}"


def _masked(account: str | None) -> str:
    return "" if account is None else f"…{account[-4:]}"
