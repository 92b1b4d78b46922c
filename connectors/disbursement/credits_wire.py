"""Credits and deliveries as they are sent, and what became of them as it is read (L6, L10, L17, L45, L57)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from connectors.disbursement.balances_wire import Booked
from connectors.disbursement.wire import (
    NOON,
    Id,
    Page,
    PositiveAmount,
    decimal,
    example,
)
from ledger.disbursement.credits import Credit, NewCredit
from ledger.disbursement.model import (
    AmountChanged,
)
from ledger.disbursement.pricing import Trace

_CLOCKS_DIFFER: Final = timedelta(minutes=5)


def _past(moment: datetime) -> datetime:
    if moment > datetime.now(UTC) + _CLOCKS_DIFFER:
        raise ValueError("it must not lie in the future")
    return moment


PastInstant = Annotated[AwareDatetime, AfterValidator(_past)]


class CreditBody(BaseModel):
    """A credit at its signature: its option by `optionId`, or by how many `payments` it has."""

    model_config = example(
        id="C-1001", storeId="norte-centro", amount="1250.00", payments=6, signedAt="2026-03-05T12:00:00-06:00"
    )

    id: Id
    store_id: Id
    amount: PositiveAmount
    option_id: Id | None = None
    payments: Annotated[int, Field(ge=1, le=360, strict=True)] | None = None
    signed_at: PastInstant | None = None

    def credit(self) -> NewCredit:
        return NewCredit(self.id, self.store_id, self.amount, self.option_id, self.payments, self.signed_at)


class NewAmount(BaseModel):
    """The credit's amount from now on; its commission is charged at the rate of its signature (L17)."""

    model_config = example(amount="1100.00")

    amount: PositiveAmount


class Delivery(BaseModel):
    """A purchase was delivered (L6)."""

    model_config = example(creditId="C-1001", deliveredAt="2026-03-06T10:30:00-06:00")

    credit_id: Id
    delivered_at: PastInstant


class CreditView(BaseModel):
    """A credit as it stands. Without a commission it is not approved for disbursement (L45)."""

    model_config = example(
        id="C-1001",
        storeId="norte-centro",
        optionId="centro-6",
        amount="1250.00",
        commission="65.62",
        net="1184.38",
        approved=True,
        signedAt=NOON,
        contributed=True,
        cancelled=False,
        disbursed=False,
    )

    id: str
    store_id: str
    option_id: str | None
    amount: str
    commission: str | None
    net: str | None
    approved: bool
    signed_at: datetime
    contributed: bool
    cancelled: bool
    disbursed: bool

    @classmethod
    def of(cls, credit: Credit) -> Self:
        cost = credit.commission
        return cls(
            id=credit.id,
            store_id=credit.store_id,
            option_id=credit.option_id,
            amount=decimal(credit.amount),
            commission=None if cost is None else decimal(cost),
            net=None if cost is None else decimal(credit.amount - cost),
            approved=credit.approved,
            signed_at=credit.signed_at,
            contributed=credit.contributed,
            cancelled=credit.cancelled,
            disbursed=credit.disbursed,
        )


class CreditsPage(Page):
    credits: Sequence[CreditView]


class TraceView(BaseModel):
    """One computation of a commission: what went in and what came out, in basis points and minor units (L57)."""

    model_config = example(
        kind="SIGNATURE",
        inputs={"agreed": 525, "amount": 125000, "payments": 6, "promotion": False, "trial": False},
        result={"basis": "AGREED", "basis_points": 525, "amount": 6562},
        actor="operator-3",
        computedAt=NOON,
    )

    kind: str
    inputs: Mapping[str, Any]
    result: Mapping[str, Any]
    actor: str
    computed_at: datetime

    @classmethod
    def of(cls, trace: Trace) -> Self:
        return cls(
            kind=trace.kind,
            inputs=trace.inputs,
            result=trace.result,
            actor=trace.actor,
            computed_at=trace.computed_at,
        )


class TracesPage(Page):
    computations: Sequence[TraceView]


_BOOKED: Final = {
    "updateId": "502",
    "storeId": "norte-centro",
    "creditId": "C-1001",
    "type": "CREDIT_CANCELLATION",
    "sequence": 8,
    "effect": "-1184.38",
    "previousBalance": "1184.38",
    "newBalance": "0.00",
    "at": NOON,
}


class AmountChangedView(BaseModel):
    """A credit with another amount; nothing was booked when it was not contributed yet."""

    model_config = example(
        creditId="C-1001", amount="1100.00", commission="57.75", cancellation=_BOOKED, contribution=_BOOKED
    )

    credit_id: str
    amount: str
    commission: str
    cancellation: Booked | None
    contribution: Booked | None

    @classmethod
    def of(cls, changed: AmountChanged) -> Self:
        undone, anew = changed.cancellation, changed.contribution
        return cls(
            credit_id=changed.credit,
            amount=changed.amount.decimal(),
            commission=changed.commission.decimal(),
            cancellation=None if undone is None else Booked.of(undone),
            contribution=None if anew is None else Booked.of(anew),
        )
