"""Payment options, and the steps by which their rates move, as they are sent and read (L46 to L54)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, StrictBool, model_validator

from connectors.disbursement.wire import (
    Changes,
    Id,
    Page,
    PositiveAmount,
    Rate,
    decimal,
    example,
    percentage,
)
from ledger.disbursement import fields
from ledger.disbursement.commission import Schedule, Step, StepOf
from ledger.disbursement.options import RATES, OptionType, PaymentOption

Code = Annotated[str, Field(min_length=1, max_length=64, pattern="^[!-~]+$")]
Payments = Annotated[int, Field(ge=1, le=360, strict=True)]
Priority = Annotated[int, Field(ge=1, le=1000, strict=True)]
MonthShift = Annotated[int, Field(ge=0, le=24, strict=True)]
Rates = dict[Literal["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3", "c0", "c1", "c2", "c3"], Rate]

_OPTION: Final = {
    "id": "centro-6",
    "storeId": "norte-centro",
    "code": "6MSI",
    "type": "INTEREST_FREE",
    "active": True,
    "payments": 6,
    "startsAt": "2026-01-01T00:00:00-06:00",
    "endsAt": "2027-01-01T00:00:00-06:00",
    "priority": 1,
    "minAmount": "500.00",
    "maxAmount": "20000.00",
    "merchantCommission": "5.25",
    "discount": "0.00",
    "firstPaymentMonthShift": 1,
    "promotion": False,
    "autoUpdate": True,
    "trial": False,
    "trialEndsAt": None,
    "rates": {"a0": "1.50"},
}


class _OptionFields(BaseModel):
    code: Code
    type: OptionType
    active: StrictBool
    payments: Payments
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    priority: Priority
    min_amount: PositiveAmount
    max_amount: PositiveAmount
    merchant_commission: Rate | None = None
    discount: Rate = 0
    first_payment_month_shift: MonthShift = 0
    promotion: StrictBool = False
    auto_update: StrictBool = False
    trial: StrictBool = False
    trial_ends_at: AwareDatetime | None = None
    rates: Rates = {}


class NewOption(_OptionFields):
    """A payment option of a store (L48), the third step (L51). Bounds of amount and time are included."""

    model_config = example(**_OPTION)

    id: Id
    store_id: Id

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.option()
        return self

    def option(self) -> PaymentOption:
        values = {name: getattr(self, name) for name in _OptionFields.model_fields}
        return PaymentOption(id=self.id, store_id=self.store_id, merchant_id="", **values)


class OptionChanges(Changes):
    """What to change of an option; it, its store and its merchant must be validated again (L53)."""

    model_config = example(active=False)

    code: Code = "-"
    type: OptionType = OptionType.INTEREST
    active: StrictBool = False
    payments: Payments = 1
    starts_at: AwareDatetime = datetime(2000, 1, 1, tzinfo=UTC)
    ends_at: AwareDatetime = datetime(2000, 1, 1, tzinfo=UTC)
    priority: Priority = 1
    min_amount: PositiveAmount = 1
    max_amount: PositiveAmount = 1
    merchant_commission: Rate | None = None
    discount: Rate = 0
    first_payment_month_shift: MonthShift = 0
    promotion: StrictBool = False
    auto_update: StrictBool = False
    trial: StrictBool = False
    trial_ends_at: AwareDatetime | None = None
    rates: Rates = Field(default={})


class OptionView(BaseModel):
    """A payment option as it stands. Without a commission of its own the standard rate is charged."""

    model_config = example(
        **{**_OPTION, "rates": dict.fromkeys(RATES, "0.00")}, merchantId="moda-norte", validated=True
    )

    id: str
    merchant_id: str
    store_id: str
    code: str
    type: OptionType
    active: bool
    payments: int
    starts_at: datetime
    ends_at: datetime
    priority: int
    min_amount: str
    max_amount: str
    merchant_commission: str | None
    discount: str
    first_payment_month_shift: int
    promotion: bool
    auto_update: bool
    trial: bool
    trial_ends_at: datetime | None
    rates: Mapping[str, str]
    validated: bool

    @classmethod
    def of(cls, option: PaymentOption) -> Self:
        plain = {
            name: getattr(option, name)
            for name in cls.model_fields
            if name not in {"min_amount", "max_amount", "merchant_commission", "discount", "rates"}
        }
        charged = option.merchant_commission
        return cls(
            **plain,
            min_amount=decimal(option.min_amount),
            max_amount=decimal(option.max_amount),
            merchant_commission=None if charged is None else percentage(charged),
            discount=percentage(option.discount),
            rates={name: percentage(points) for name, points in option.rates.items()},
        )


class OptionsPage(Page):
    options: Sequence[OptionView]


class StepBody(BaseModel):
    """From `atLeast` on the rate is `change` higher: an amount for `ORIGINATION` and `AMOUNT`, a number of payments
    for `PAYMENTS`."""

    model_config = example(of="ORIGINATION", atLeast="1000000.00", change="-0.50")

    of: StepOf
    at_least: Annotated[str, Field(max_length=24)]
    change: Annotated[str, Field(max_length=8)]

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.step()
        return self

    def step(self) -> Step:
        if self.of is not StepOf.PAYMENTS:
            at_least = fields.amount(self.at_least)
        elif self.at_least.isascii() and self.at_least.isdigit() and len(self.at_least) <= 3:
            at_least = int(self.at_least)
        else:
            raise ValueError("atLeast is a number of payments here")
        sign = -1 if self.change.startswith("-") else 1
        return Step(self.of, at_least, sign * fields.rate(self.change.removeprefix("-")))

    @classmethod
    def shown(cls, step: Step) -> Self:
        at_least = str(step.at_least) if step.of is StepOf.PAYMENTS else decimal(step.at_least)
        return cls(of=step.of, at_least=at_least, change=percentage(step.basis_points))


class CommissionSchedule(BaseModel):
    """The tenant's steps, all of them. Of those for one thing the highest that is reached counts."""

    model_config = example(
        steps=[
            {"of": "ORIGINATION", "atLeast": "1000000.00", "change": "-0.50"},
            {"of": "PAYMENTS", "atLeast": "12", "change": "1.00"},
        ]
    )

    steps: Annotated[list[StepBody], Field(max_length=100)]

    @classmethod
    def shown(cls, schedule: Schedule) -> Self:
        return cls(steps=[StepBody.shown(step) for step in schedule.steps])
