"""What partners, treasury and operations send and read over HTTP.

Names are in camelCase. Amounts of MXN are decimal strings, rates are percentages with two decimals, ids are strings,
instants have a time zone. A field that is not known is refused, so that a misspelt one does not lose its meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from hub.money import Money
from ledger.disbursement import fields
from ledger.disbursement.commission import Schedule, Step, StepOf
from ledger.disbursement.credits import Credit, NewCredit
from ledger.disbursement.edits import Edit
from ledger.disbursement.explanations import explanation
from ledger.disbursement.merchants import BankAccount, Merchant, Store
from ledger.disbursement.model import (
    AmountChanged,
    BalanceUpdate,
    BankTransfer,
    Event,
    Frequency,
    StatusRecord,
    StoreBalance,
    TransferItem,
    Verdict,
)
from ledger.disbursement.options import RATES, OptionType, PaymentOption
from ledger.disbursement.pricing import Trace
from ledger.disbursement.runs import Run, StoreOfRun, Tally
from ledger.disbursement.runs import Schedule as RunSchedule

_CLOCKS_DIFFER: Final = timedelta(minutes=5)
NOON: Final = "2026-03-05T12:00:00Z"
_TRANSFER: Final = "7a1f1f0e-6c1c-5b0e-9a5b-0b8a3a2f4c11"


def example(**values: Any) -> ConfigDict:
    """What a body or an answer looks like, for whoever reads the description of the service."""
    return ConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, json_schema_extra={"example": values}
    )


def _text(read: Callable[[str], Any], *, plural: str) -> BeforeValidator:
    def reading(value: Any) -> Any:
        if not isinstance(value, str):
            raise PydanticCustomError("not-text", 'write {plural} as text: "12.50", not 12.50', {"plural": plural})
        return read(value)

    return BeforeValidator(reading)


def _schema(text: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [text]})


Id = Annotated[str, AfterValidator(fields.object_id)]
Name = Annotated[str, AfterValidator(fields.name)]
TaxId = Annotated[str, AfterValidator(fields.tax_id)]
Clabe = Annotated[str, AfterValidator(fields.clabe)]
Subject = Annotated[str, Field(min_length=1, max_length=200, pattern="^[!-~]+$")]
Amount = Annotated[int, _text(fields.amount, plural="amounts"), _schema("1250.00")]
PositiveAmount = Annotated[int, _text(fields.positive_amount, plural="amounts"), _schema("1250.00")]
SignedAmount = Annotated[int, _text(fields.signed_amount, plural="amounts"), _schema("-80.00")]
Rate = Annotated[int, _text(fields.rate, plural="rates"), _schema("5.25")]
Reason = Annotated[str, AfterValidator(fields.reason)]


def decimal(minor: int) -> str:
    """Minor units of MXN as the decimal string of the wire."""
    return Money(minor, fields.CURRENCY).decimal()


def percentage(basis_points: int) -> str:
    """Basis points as the percentage of the wire: 525 is `5.25`."""
    return f"{'-' if basis_points < 0 else ''}{abs(basis_points) // 100}.{abs(basis_points) % 100:02}"


# --- Merchants and stores ---------------------------------------------------------------------------------------


class NewMerchant(BaseModel):
    """A merchant, the first step (L51)."""

    model_config = example(id="moda-norte", name="Moda del Norte", taxId="MNO010203AB1", partner="moda-norte-app")

    id: Id
    name: Name
    tax_id: TaxId
    partner: Subject | None = None

    def merchant(self) -> Merchant:
        return Merchant(self.id, self.name, self.tax_id, self.partner)


class Changes(BaseModel):
    """Fields to change; those that are absent stay."""

    def given(self) -> dict[str, Any]:
        """The changes by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class MerchantChanges(Changes):
    """What to change of a merchant; it must be validated again (L53)."""

    model_config = example(name="Moda del Norte y Sur")

    name: Name = ""
    tax_id: TaxId = ""
    partner: Subject | None = None


class Automation(BaseModel):
    """Whether triggers fire for the merchant's stores (L30)."""

    model_config = example(enabled=False)

    enabled: Annotated[bool, Field(strict=True)]


class StandardCommission(BaseModel):
    """A percentage with up to two decimals."""

    model_config = example(rate="5.25")

    rate: Rate


class MerchantView(BaseModel):
    """A merchant as it stands."""

    model_config = example(
        id="moda-norte",
        name="Moda del Norte",
        taxId="MNO010203AB1",
        partner="moda-norte-app",
        automation=True,
        validated=True,
    )

    id: str
    name: str
    tax_id: str
    partner: str | None
    automation: bool
    validated: bool

    @classmethod
    def of(cls, merchant: Merchant) -> Self:
        return cls(
            id=merchant.id,
            name=merchant.name,
            tax_id=merchant.tax_id,
            partner=merchant.partner,
            automation=merchant.automation,
            validated=merchant.validated,
        )


class NewBankAccount(BaseModel):
    """Where a store is to be paid; it begins unauthenticated (L55)."""

    model_config = example(clabe="646180157000000017", holderName="Moda del Norte SA de CV", taxId="MNO010203AB1")

    clabe: Clabe
    holder_name: Name
    tax_id: TaxId

    def account(self) -> BankAccount:
        return BankAccount(self.clabe, self.holder_name, self.tax_id)


_ACCOUNT: Final = {
    "id": "12",
    "clabe": "646180157000000017",
    "holderName": "Moda del Norte SA de CV",
    "taxId": "MNO010203AB1",
    "addedAt": NOON,
    "authenticatedAt": NOON,
    "authenticatedBy": "treasury-1",
}


class BankAccountView(BaseModel):
    """A store's bank account."""

    model_config = example(**_ACCOUNT)

    id: str
    clabe: str
    holder_name: str
    tax_id: str
    added_at: datetime | None
    authenticated_at: datetime | None
    authenticated_by: str | None

    @classmethod
    def of(cls, account: BankAccount) -> Self:
        return cls(
            id=str(account.id),
            clabe=account.clabe,
            holder_name=account.holder_name,
            tax_id=account.tax_id,
            added_at=account.added_at,
            authenticated_at=account.authenticated_at,
            authenticated_by=account.authenticated_by,
        )


class NewStore(BaseModel):
    """A store with its bank account, the second step (L51)."""

    model_config = example(
        id="norte-centro",
        merchantId="moda-norte",
        name="Moda Norte Centro",
        frequency="DAILY",
        minimumAmount="100.00",
        manualConfirmation=False,
        bankAccount={
            "clabe": "646180157000000017",
            "holderName": "Moda del Norte SA de CV",
            "taxId": "MNO010203AB1",
        },
    )

    id: Id
    merchant_id: Id
    name: Name
    frequency: Frequency
    minimum_amount: Amount = 0
    manual_confirmation: Annotated[bool, Field(strict=True)] = False
    bank_account: NewBankAccount

    def store(self) -> Store:
        return Store(
            self.id, self.merchant_id, self.name, self.frequency, self.minimum_amount, self.manual_confirmation
        )


class StoreChanges(Changes):
    """What to change of a store; it and its merchant must be validated again (L53)."""

    model_config = example(frequency="WEEKLY", minimumAmount="500.00")

    name: Name = ""
    frequency: Frequency = Frequency.DAILY
    minimum_amount: Amount = 0
    manual_confirmation: Annotated[bool, Field(strict=True)] = False


class StoreView(BaseModel):
    """A store as it stands."""

    model_config = example(
        id="norte-centro",
        merchantId="moda-norte",
        name="Moda Norte Centro",
        currency="MXN",
        frequency="DAILY",
        minimumAmount="100.00",
        manualConfirmation=False,
        validated=True,
        bankAccount=_ACCOUNT,
    )

    id: str
    merchant_id: str
    name: str
    currency: str
    frequency: Frequency
    minimum_amount: str
    manual_confirmation: bool
    validated: bool
    bank_account: BankAccountView | None

    @classmethod
    def of(cls, store: Store, account: BankAccount | None) -> Self:
        return cls(
            id=store.id,
            merchant_id=store.merchant_id,
            name=store.name,
            currency=fields.CURRENCY,
            frequency=store.frequency,
            minimum_amount=decimal(store.minimum_amount),
            manual_confirmation=store.manual_confirmation,
            validated=store.validated,
            bank_account=None if account is None else BankAccountView.of(account),
        )


class EditView(BaseModel):
    """Who changed what, with what was before and after; rates in basis points and amounts in minor units, as kept."""

    model_config = example(
        id="81",
        action="EDITED",
        before={"name": "Moda Norte"},
        after={"name": "Moda del Norte"},
        actor="operator-3",
        at=NOON,
    )

    id: str
    action: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]
    actor: str
    at: datetime

    @classmethod
    def of(cls, edit: Edit) -> Self:
        return cls(
            id=str(edit.id), action=edit.action, before=edit.before, after=edit.after, actor=edit.actor, at=edit.at
        )


# --- Options ----------------------------------------------------------------------------------------------------

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
    code: Annotated[str, Field(min_length=1, max_length=64, pattern="^[!-~]+$")]
    type: OptionType
    active: Annotated[bool, Field(strict=True)]
    payments: Annotated[int, Field(ge=1, le=360, strict=True)]
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    priority: Annotated[int, Field(ge=1, le=1000, strict=True)]
    min_amount: PositiveAmount
    max_amount: PositiveAmount
    merchant_commission: Rate | None = None
    discount: Rate = 0
    first_payment_month_shift: Annotated[int, Field(ge=0, le=24, strict=True)] = 0
    promotion: Annotated[bool, Field(strict=True)] = False
    auto_update: Annotated[bool, Field(strict=True)] = False
    trial: Annotated[bool, Field(strict=True)] = False
    trial_ends_at: AwareDatetime | None = None
    rates: dict[Literal["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3", "c0", "c1", "c2", "c3"], Rate] = {}


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

    code: Annotated[str, Field(min_length=1, max_length=64, pattern="^[!-~]+$")] = "-"
    type: OptionType = OptionType.INTEREST
    active: Annotated[bool, Field(strict=True)] = False
    payments: Annotated[int, Field(ge=1, le=360, strict=True)] = 1
    starts_at: AwareDatetime = datetime(2000, 1, 1, tzinfo=UTC)
    ends_at: AwareDatetime = datetime(2000, 1, 1, tzinfo=UTC)
    priority: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    min_amount: PositiveAmount = 1
    max_amount: PositiveAmount = 1
    merchant_commission: Rate | None = None
    discount: Rate = 0
    first_payment_month_shift: Annotated[int, Field(ge=0, le=24, strict=True)] = 0
    promotion: Annotated[bool, Field(strict=True)] = False
    auto_update: Annotated[bool, Field(strict=True)] = False
    trial: Annotated[bool, Field(strict=True)] = False
    trial_ends_at: AwareDatetime | None = None
    rates: dict[Literal["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3", "c0", "c1", "c2", "c3"], Rate] = {}


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


# --- Credits and deliveries -------------------------------------------------------------------------------------


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
    signed_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _past(self) -> Self:
        if self.signed_at is not None and self.signed_at > datetime.now(UTC) + _CLOCKS_DIFFER:
            raise ValueError("signedAt must not lie in the future")
        return self

    def credit(self) -> NewCredit:
        return NewCredit(self.id, self.store_id, self.amount, self.option_id, self.payments, self.signed_at)


class NewAmount(BaseModel):
    """The credit's amount from now on; its commission is charged at the rate of its signature (L17)."""

    model_config = example(amount="1100.00")

    amount: PositiveAmount


class ReasonBody(BaseModel):
    """Why."""

    model_config = example(reason="the customer sent the goods back")

    reason: Reason


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


class Delivery(BaseModel):
    """A purchase was delivered (L6)."""

    model_config = example(creditId="C-1001", deliveredAt="2026-03-06T10:30:00-06:00")

    credit_id: Id
    delivered_at: AwareDatetime

    @model_validator(mode="after")
    def _past(self) -> Self:
        if self.delivered_at > datetime.now(UTC) + _CLOCKS_DIFFER:
            raise ValueError("deliveredAt must not lie in the future")
        return self


class Booked(BaseModel):
    """What a request did to a store's balance; the same again when it is repeated."""

    model_config = example(
        updateId="501",
        storeId="norte-centro",
        creditId="C-1001",
        type="CONTRIBUTION",
        sequence=7,
        effect="1184.38",
        previousBalance="0.00",
        newBalance="1184.38",
        at=NOON,
    )

    update_id: str
    store_id: str
    credit_id: str | None
    type: str
    sequence: int
    effect: str
    previous_balance: str
    new_balance: str
    at: datetime

    @classmethod
    def of(cls, update: BalanceUpdate) -> Self:
        return cls(
            update_id=str(update.id),
            store_id=update.store,
            credit_id=update.credit,
            type=update.type,
            sequence=update.sequence,
            effect=update.effect.decimal(),
            previous_balance=update.previous.decimal(),
            new_balance=update.new.decimal(),
            at=update.created_at,
        )


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


# --- Balances ---------------------------------------------------------------------------------------------------


class Adjustment(BaseModel):
    """A correction by hand, with a minus sign when it takes away (L11)."""

    model_config = example(effect="-80.00", reason="fee of the returned parcel, ticket 4711")

    effect: SignedAmount
    reason: Reason


class StoreBalanceView(BaseModel):
    """What a store is owed: `balance` is `pending` and `inTransit` together."""

    model_config = example(
        storeId="norte-centro",
        currency="MXN",
        balance="1184.38",
        pending="1184.38",
        pendingUpdates=1,
        inTransit="0.00",
        inTransitUpdates=0,
        sequence=7,
    )

    store_id: str
    currency: str
    balance: str
    pending: str
    pending_updates: int
    in_transit: str
    in_transit_updates: int
    sequence: int

    @classmethod
    def of(cls, found: StoreBalance) -> Self:
        return cls(
            store_id=found.store,
            currency=found.balance.currency,
            balance=found.balance.decimal(),
            pending=found.pending.decimal(),
            pending_updates=found.pending_updates,
            in_transit=found.in_transit.decimal(),
            in_transit_updates=found.in_transit_updates,
            sequence=found.sequence,
        )


class UpdateView(BaseModel):
    """One change of a store's balance (L2)."""

    model_config = example(
        id="501",
        sequence=7,
        type="CONTRIBUTION",
        effect="1184.38",
        previousBalance="0.00",
        newBalance="1184.38",
        status="PENDING",
        overwritten=False,
        overwrites=None,
        creditId="C-1001",
        transferId=None,
        reason=None,
        actor="moda-norte-app",
        at=NOON,
    )

    id: str
    sequence: int
    type: str
    effect: str
    previous_balance: str
    new_balance: str
    status: str
    overwritten: bool
    overwrites: str | None
    credit_id: str | None
    transfer_id: str | None
    reason: str | None
    actor: str
    at: datetime

    @classmethod
    def of(cls, update: BalanceUpdate) -> Self:
        return cls(
            id=str(update.id),
            sequence=update.sequence,
            type=update.type,
            effect=update.effect.decimal(),
            previous_balance=update.previous.decimal(),
            new_balance=update.new.decimal(),
            status=update.status,
            overwritten=update.overwritten,
            overwrites=None if update.overwrites is None else str(update.overwrites),
            credit_id=update.credit,
            transfer_id=update.transfer,
            reason=update.reason,
            actor=update.actor,
            at=update.created_at,
        )


class StatusView(BaseModel):
    """A status that something had, and why (L13)."""

    model_config = example(status="PENDING", at=NOON, cause="contribution", actor="moda-norte-app")

    status: str
    at: datetime
    cause: str
    actor: str

    @classmethod
    def of(cls, record: StatusRecord) -> Self:
        return cls(status=record.status, at=record.at, cause=record.cause, actor=record.actor)


# --- Transfers and runs -----------------------------------------------------------------------------------------


class TransferView(BaseModel):
    """One payment to a store. The account is the one that the store had when the transfer was made."""

    model_config = example(
        id=_TRANSFER,
        storeId="norte-centro",
        amount="1184.38",
        currency="MXN",
        status="APPLIED",
        trigger="DAILY",
        runId=None,
        clabe="646180157000000017",
        holderName="Moda del Norte SA de CV",
        mustWait=False,
        confirmedBy=None,
        confirmedAt=None,
        reason=None,
        reasonDetail=None,
        createdAt=NOON,
        settledAt=NOON,
    )

    id: str
    store_id: str
    amount: str
    currency: str
    status: str
    trigger: str
    run_id: str | None
    clabe: str
    holder_name: str
    must_wait: bool
    """Somebody has yet to confirm or cancel it (L23)."""
    confirmed_by: str | None
    confirmed_at: datetime | None
    reason: str | None
    reason_detail: str | None
    created_at: datetime
    settled_at: datetime | None

    @classmethod
    def of(cls, found: BankTransfer) -> Self:
        return cls(
            id=found.id,
            store_id=found.store,
            amount=found.amount.decimal(),
            currency=found.amount.currency,
            status=found.status,
            trigger=found.trigger,
            run_id=found.run_id,
            clabe=found.clabe,
            holder_name=found.holder_name,
            must_wait=found.must_wait,
            confirmed_by=found.confirmed_by,
            confirmed_at=found.confirmed_at,
            reason=found.reason,
            reason_detail=found.reason_detail,
            created_at=found.created_at,
            settled_at=found.settled_at,
        )


class ItemView(BaseModel):
    """An update that a transfer pays or paid; `releasedAt` when it no longer does (L19)."""

    model_config = example(
        updateId="501", sequence=7, creditId="C-1001", effect="1184.38", linkedAt=NOON, releasedAt=None
    )

    update_id: str
    sequence: int
    credit_id: str | None
    effect: str
    linked_at: datetime
    released_at: datetime | None

    @classmethod
    def of(cls, item: TransferItem) -> Self:
        return cls(
            update_id=str(item.update.id),
            sequence=item.update.sequence,
            credit_id=item.update.credit,
            effect=item.update.effect.decimal(),
            linked_at=item.linked_at,
            released_at=item.released_at,
        )


class EventView(BaseModel):
    """What came in about a transfer and what became of it (L34)."""

    model_config = example(id="91", source="stp", kind="SETTLED", receivedAt=NOON, outcome="handled", error=None)

    id: str
    source: str
    kind: str
    received_at: datetime
    outcome: str | None
    error: str | None

    @classmethod
    def of(cls, event: Event) -> Self:
        return cls(
            id=str(event.id),
            source=event.source,
            kind=event.kind,
            received_at=event.received_at,
            outcome=event.outcome,
            error=event.error,
        )


class VerdictView(BaseModel):
    """What a trigger would do with a store now, and why."""

    model_config = example(
        storeId="norte-centro",
        merchantId="moda-norte",
        frequency="DAILY",
        verdict="BELOW_MINIMUM",
        explanation="2 pending updates sum to 80.00 MXN, not more than the minimum of 100.00 MXN",
        updates=2,
        total="80.00",
        minimum="100.00",
    )

    store_id: str
    merchant_id: str
    frequency: Frequency
    verdict: str
    explanation: str
    updates: int
    total: str
    minimum: str

    @classmethod
    def of(cls, found: Verdict) -> Self:
        return cls(
            store_id=found.store,
            merchant_id=found.merchant,
            frequency=found.frequency,
            verdict=found.code,
            explanation=explanation(found),
            updates=found.updates,
            total=found.total.decimal(),
            minimum=found.minimum.decimal(),
        )


class RunWanted(BaseModel):
    """A run that is to be made now, whatever the schedule says."""

    model_config = example(frequency="DAILY")

    frequency: Frequency


class RunView(BaseModel):
    """One firing of a frequency. `verdicts`: how many stores got which, where that was asked for."""

    model_config = example(
        id="0b0ad8b5-56f0-5f1d-8e4e-6f3d7b0a9d10",
        frequency="DAILY",
        scheduledFor=NOON,
        requestedBy=None,
        createdAt=NOON,
        closedAt=NOON,
        verdicts={"PAY": 2, "BELOW_MINIMUM": 1},
        asked="2184.37",
    )

    id: str
    frequency: Frequency
    scheduled_for: datetime
    requested_by: str | None
    created_at: datetime
    closed_at: datetime | None
    verdicts: Mapping[str, int] | None
    asked: str | None

    @classmethod
    def of(cls, run: Run, tally: Tally | None = None) -> Self:
        return cls(
            id=run.id,
            frequency=run.frequency,
            scheduled_for=run.scheduled_for,
            requested_by=run.requested_by,
            created_at=run.created_at,
            closed_at=run.closed_at,
            verdicts=None if tally is None else {code.value: count for code, count in tally.stores.items()},
            asked=None if tally is None else tally.asked.decimal(),
        )


class RunStoreView(BaseModel):
    """What a run found of a store, and the transfer it asked for."""

    model_config = example(
        storeId="norte-centro",
        verdict="PAY",
        explanation="2 pending updates make a transfer of 1184.38 MXN",
        updates=2,
        total="1184.38",
        minimum="100.00",
        transferId=_TRANSFER,
        consideredAt=NOON,
    )

    store_id: str
    verdict: str
    explanation: str
    updates: int
    total: str
    minimum: str
    transfer_id: str | None
    considered_at: datetime

    @classmethod
    def of(cls, found: StoreOfRun) -> Self:
        return cls(
            store_id=found.verdict.store,
            verdict=found.verdict.code,
            explanation=explanation(found.verdict),
            updates=found.verdict.updates,
            total=found.verdict.total.decimal(),
            minimum=found.verdict.minimum.decimal(),
            transfer_id=found.payment_id,
            considered_at=found.considered_at,
        )


class ScheduleBody(BaseModel):
    """When stores of a frequency are due."""

    model_config = example(cron="0 9 * * *", timeZone="America/Mexico_City")

    cron: Annotated[str, Field(max_length=200)]
    time_zone: Annotated[str, Field(max_length=64)]


class ScheduleView(BaseModel):
    """When stores of a frequency are due; without `setBy` it is the settings' line."""

    model_config = example(
        frequency="DAILY",
        cron="0 9 * * *",
        timeZone="America/Mexico_City",
        nextAt=NOON,
        setAt=None,
        setBy=None,
    )

    frequency: Frequency
    cron: str
    time_zone: str
    next_at: datetime
    set_at: datetime | None
    set_by: str | None

    @classmethod
    def of(cls, found: RunSchedule) -> Self:
        return cls(
            frequency=found.frequency,
            cron=found.cron,
            time_zone=found.time_zone,
            next_at=found.next_at,
            set_at=found.set_at,
            set_by=found.set_by,
        )


# --- Pages ------------------------------------------------------------------------------------------------------


class _Page(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    next_cursor: str | None = None
    """Give it as `cursor` for the next page; absent on the last."""


class MerchantsPage(_Page):
    merchants: Sequence[MerchantView]


class StoresPage(_Page):
    stores: Sequence[StoreView]


class OptionsPage(_Page):
    options: Sequence[OptionView]


class CreditsPage(_Page):
    credits: Sequence[CreditView]


class EditsPage(_Page):
    edits: Sequence[EditView]


class TracesPage(_Page):
    computations: Sequence[TraceView]


class UpdatesPage(_Page):
    updates: Sequence[UpdateView]


class StatusesPage(_Page):
    statuses: Sequence[StatusView]


class TransfersPage(_Page):
    transfers: Sequence[TransferView]


class ItemsPage(_Page):
    items: Sequence[ItemView]


class EventsPage(_Page):
    events: Sequence[EventView]


class VerdictsPage(_Page):
    verdicts: Sequence[VerdictView]


class RunsPage(_Page):
    runs: Sequence[RunView]


class RunStoresPage(_Page):
    stores: Sequence[RunStoreView]


class SchedulesPage(_Page):
    schedules: Sequence[ScheduleView]
