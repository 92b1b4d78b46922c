"""The stores' part of the seed file: merchants with their stores, accounts and options (docs/seed.md).

What is there already is left as it is, whatever the file says: merchants, stores and options are changed by editing
them. What the file brings in new is validated and its accounts authenticated, as the file vouches for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hub.statements import open_statements
from ledger.disbursement import fields
from ledger.disbursement.edits import Connection
from ledger.disbursement.merchants import (
    BankAccount,
    Merchant,
    Store,
    add_merchant,
    add_store,
    authenticate_present_account,
    find_merchant,
    find_store,
    validate_merchant,
    validate_store,
)
from ledger.disbursement.model import DisbursementRefused, Frequency, StoreUnknown
from ledger.disbursement.options import OptionType, PaymentOption, add_option, find_option, validate_option
from ledger.disbursement.refusals import MerchantUnknown, OptionUnknown

_ACTOR: Final = "seed"


def _read(read: Callable[[str], Any]) -> BeforeValidator:
    def reading(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError('must be text, as in "12.50"')  # noqa: TRY004 -- a TypeError would not be told
        return read(value)

    return BeforeValidator(reading)


Id = Annotated[str, _read(fields.object_id)]
Name = Annotated[str, _read(fields.name)]
TaxId = Annotated[str, _read(fields.tax_id)]
Amount = Annotated[int, _read(fields.amount)]
PositiveAmount = Annotated[int, _read(fields.positive_amount)]
Rate = Annotated[int, _read(fields.rate)]


class _Seed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AccountSeed(_Seed):
    """Where a store is paid."""

    clabe: Annotated[str, _read(fields.clabe)]
    holder_name: Name
    tax_id: TaxId


class OptionSeed(_Seed):
    """A payment option; amounts and rates are decimal strings."""

    id: Id
    code: Annotated[str, Field(min_length=1, max_length=64)]
    type: OptionType = OptionType.INTEREST_FREE
    payments: Annotated[int, Field(ge=1, le=360)]
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    priority: Annotated[int, Field(ge=1, le=1000)] = 1
    min_amount: PositiveAmount
    max_amount: PositiveAmount
    merchant_commission: Rate | None = None
    auto_update: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.option("", "")
        return self

    def option(self, merchant: str, store: str) -> PaymentOption:
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return PaymentOption(merchant_id=merchant, store_id=store, active=True, **values)


class StoreSeed(_Seed):
    """A store with its account and options; `frequency` in capital letters, as the API has it."""

    id: Id
    name: Name
    frequency: Frequency
    minimum_amount: Amount = 0
    manual_confirmation: bool = False
    bank_account: AccountSeed
    options: Annotated[tuple[OptionSeed, ...], Field(min_length=1)]

    def store(self, merchant: str) -> Store:
        return Store(self.id, merchant, self.name, self.frequency, self.minimum_amount, self.manual_confirmation)


class MerchantSeed(_Seed):
    """A merchant with its stores."""

    id: Id
    name: Name
    tax_id: TaxId
    partner: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    stores: Annotated[tuple[StoreSeed, ...], Field(min_length=1)]


class TenantSeed(BaseModel):
    """A tenant; what others read of it is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    merchants: tuple[MerchantSeed, ...] = ()


class Seed(BaseModel):
    """The file as far as stores are concerned."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tenants: tuple[TenantSeed, ...]


class StoresNotSeeded(Exception):
    """A store of the file cannot be added; the text names it. Nothing of its tenant was."""


async def seed(url: str, wanted: Seed) -> None:
    """Add what is not there, a tenant in one transaction. Raises `StoresNotSeeded`, `hub.errors.Unavailable`."""
    tenants = [tenant for tenant in wanted.tenants if tenant.merchants]
    if not tenants:
        return
    async with open_statements(url, 1) as statements:
        for tenant in tenants:
            async with statements.connection() as connection, connection.transaction():
                for merchant in tenant.merchants:
                    await _merchant(connection, tenant.id, merchant)


async def _merchant(connection: Connection, tenant: str, wanted: MerchantSeed) -> None:
    new = Merchant(wanted.id, wanted.name, wanted.tax_id, wanted.partner)
    try:
        await find_merchant(connection, tenant, wanted.id)
        fresh = False
    except MerchantUnknown:
        fresh = await add_merchant(connection, tenant, new, actor=_ACTOR)
    for store in wanted.stores:
        try:
            await _store(connection, tenant, wanted.id, store)
        except DisbursementRefused as refused:
            raise StoresNotSeeded(f"tenant {tenant}, store {store.id}: {refused}") from None
    if fresh:
        await validate_merchant(connection, tenant, wanted.id, actor=_ACTOR)


async def _store(connection: Connection, tenant: str, merchant: str, wanted: StoreSeed) -> None:
    try:
        await find_store(connection, tenant, wanted.id)
    except StoreUnknown:
        account = BankAccount(wanted.bank_account.clabe, wanted.bank_account.holder_name, wanted.bank_account.tax_id)
        await add_store(connection, tenant, wanted.store(merchant), account, actor=_ACTOR)
        await authenticate_present_account(connection, tenant, wanted.id, actor=_ACTOR)
        fresh = True
    else:
        fresh = False
    for option in wanted.options:
        try:
            await find_option(connection, tenant, option.id)
        except OptionUnknown:
            await add_option(connection, tenant, option.option(merchant, wanted.id), actor=_ACTOR)
            await validate_option(connection, tenant, option.id, actor=_ACTOR)
    if fresh:
        await validate_store(connection, tenant, wanted.id, actor=_ACTOR)
