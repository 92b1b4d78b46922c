"""What a credit costs its merchant: pure reckoning, apart from disbursement (L46, L47).

A rate is a whole number of basis points (ten-thousandths). An option that carries a rate of its own is charged that: as
it stands while it is a promotion or on trial, else with the step of the credit's amount. An option without one is
charged the standard rate of its store, else of its merchant, with the steps of last month's origination, of the number
of payments and of the amount. Nothing agreed and no standard is no commission, and such a credit is not approved for
disbursement (L45). A rate never leaves 0 to 10 000; the commission is rounded half to even to the minor unit (L87).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Self

from hub.money import Money

WHOLE: Final = 10_000
"""Basis points of the whole."""


class StepOf(StrEnum):
    """What a step of the schedule looks at."""

    ORIGINATION = "ORIGINATION"
    PAYMENTS = "PAYMENTS"
    AMOUNT = "AMOUNT"


class Basis(StrEnum):
    """Where a rate comes from."""

    TRIAL = "TRIAL"
    PROMOTION = "PROMOTION"
    AGREED = "AGREED"
    STANDARD = "STANDARD"
    NONE = "NONE"


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """From `at_least` on (minor units, or payments) the rate is `basis_points` higher, or lower when negative."""

    of: StepOf
    at_least: int
    basis_points: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """A tenant's steps. Of those for one thing the highest that is reached counts, and only that."""

    steps: tuple[Step, ...] = ()

    def step(self, of: StepOf, value: int) -> int:
        """By how many basis points `value` moves the rate."""
        reached = [one for one in self.steps if one.of is of and one.at_least <= value]
        return max(reached, key=lambda one: one.at_least).basis_points if reached else 0

    @classmethod
    def of(cls, steps: Sequence[Mapping[str, Any]]) -> Self:
        """From how it is kept."""
        return cls(tuple(Step(StepOf(one["of"]), one["at_least"], one["basis_points"]) for one in steps))


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a commission may look at (L46). Amounts in minor units, rates in basis points."""

    merchant_standard: int | None
    store_standard: int | None
    origination: int
    """What the merchant's customers signed for in the calendar month before."""
    payments: int
    agreed: int | None
    """The option's own rate."""
    promotion: bool
    trial: bool
    """Whether the option's trial still runs."""
    schedule: Schedule
    amount: int = 0
    currency: str = "MXN"

    def as_json(self) -> dict[str, Any]:
        """How the trace keeps them (L57)."""
        return asdict(self)

    @property
    def standard(self) -> int | None:
        """The store's standard rate where it has one, else the merchant's."""
        return self.merchant_standard if self.store_standard is None else self.store_standard


@dataclass(frozen=True, slots=True)
class Commission:
    """A rate in basis points and what it comes to in minor units; both absent when nothing says what to charge."""

    basis: Basis
    basis_points: int | None
    amount: int | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def monthly_rate(inputs: Inputs) -> int | None:
    """The rate of an option with auto-update for a month (L50); absent without a standard."""
    if inputs.standard is None:
        return None
    return _within(
        inputs.standard
        + inputs.schedule.step(StepOf.ORIGINATION, inputs.origination)
        + inputs.schedule.step(StepOf.PAYMENTS, inputs.payments)
    )


def commission(inputs: Inputs) -> Commission:
    """The commission of a credit at its signature."""
    basis, rate = _rate(inputs)
    return Commission(basis, rate, None if rate is None else of_amount(inputs.amount, inputs.currency, rate))


def of_amount(amount: int, currency: str, basis_points: int) -> int:
    """What a rate comes to, in minor units, rounded half to even."""
    return Money(amount, currency).share(basis_points).minor


def _rate(inputs: Inputs) -> tuple[Basis, int | None]:
    by_amount = inputs.schedule.step(StepOf.AMOUNT, inputs.amount)
    if inputs.agreed is not None:
        if inputs.trial:
            return Basis.TRIAL, inputs.agreed
        if inputs.promotion:
            return Basis.PROMOTION, inputs.agreed
        return Basis.AGREED, _within(inputs.agreed + by_amount)
    monthly = monthly_rate(inputs)
    return (Basis.NONE, None) if monthly is None else (Basis.STANDARD, _within(monthly + by_amount))


def _within(basis_points: int) -> int:
    return min(max(basis_points, 0), WHOLE)
