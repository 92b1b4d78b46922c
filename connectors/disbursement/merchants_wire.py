"""Merchants, stores and bank accounts as partners, treasury and operations send and read them (L51 to L55)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Self

from pydantic import BaseModel, StrictBool

from connectors.disbursement.wire import (
    NOON,
    Amount,
    Changes,
    Clabe,
    Id,
    Name,
    Page,
    Rate,
    Subject,
    TaxId,
    decimal,
    example,
)
from ledger.disbursement import fields
from ledger.disbursement.edits import Edit
from ledger.disbursement.merchants import BankAccount, Merchant, Store
from ledger.disbursement.model import (
    Frequency,
)


class NewMerchant(BaseModel):
    """A merchant, the first step (L51)."""

    model_config = example(id="moda-norte", name="Moda del Norte", taxId="MNO010203AB1", partner="moda-norte-app")

    id: Id
    name: Name
    tax_id: TaxId
    partner: Subject | None = None

    def merchant(self) -> Merchant:
        return Merchant(self.id, self.name, self.tax_id, self.partner)


class MerchantChanges(Changes):
    """What to change of a merchant; it must be validated again (L53)."""

    model_config = example(name="Moda del Norte y Sur")

    name: Name = ""
    tax_id: TaxId = ""
    partner: Subject | None = None


class Automation(BaseModel):
    """Whether triggers fire for the merchant's stores (L30)."""

    model_config = example(enabled=False)

    enabled: StrictBool


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


class MerchantsPage(Page):
    merchants: Sequence[MerchantView]


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
    manual_confirmation: StrictBool = False
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
    manual_confirmation: StrictBool = False


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


class StoresPage(Page):
    stores: Sequence[StoreView]


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


class EditsPage(Page):
    edits: Sequence[EditView]
