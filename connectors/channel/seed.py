"""The channel's part of the seed file: its tenants and where their outcome callbacks may go."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from connectors.channel.store import ChannelStore
from hub.addresses import Address
from hub.money import BadMoney, Money
from hub.statements import open_statements
from hub.transfer import TenantId
from hub.webhook import checked_secret


class SeedAmountLimit(BaseModel):
    """What may wait in one currency while the account system is away; decimal strings."""

    model_config = ConfigDict(extra="forbid")

    currency: str
    each: str | None = None
    together: str | None = None

    @model_validator(mode="after")
    def _readable(self) -> Self:
        _ = self.minor
        return self

    @property
    def minor(self) -> dict[str, int]:
        """The limits there are, in minor units."""
        given = {"each": self.each, "together": self.together}
        try:
            return {name: Money.parse(text, self.currency).minor for name, text in given.items() if text is not None}
        except BadMoney as error:
            raise ValueError(str(error)) from None


class SeedStandIn(BaseModel):
    """What may wait while the account system is away (H8); what is absent is the setting's, or has no limit."""

    model_config = ConfigDict(extra="forbid")

    payments: int | None = Field(default=None, ge=0, le=2**31 - 1)
    amounts: list[SeedAmountLimit] = []


class SeedTenant(BaseModel):
    """One tenant; what others read of it (`fees`, `accounts`) is not looked at."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    name: str = Field(min_length=1, max_length=140)
    callback_secret: SecretStr | None = None
    callback_allow_list: list[str] = []
    stand_in: SeedStandIn = SeedStandIn()

    @field_validator("callback_secret")
    @classmethod
    def _usable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            checked_secret(value.get_secret_value())
        return value

    @field_validator("callback_allow_list")
    @classmethod
    def _addresses(cls, value: list[str], info: ValidationInfo) -> list[str]:
        for entry in value:
            Address.parse(entry)
        if value and info.data.get("callback_secret") is None:
            raise ValueError("callbacks are signed: callback_secret is needed too")
        return value


class Seed(BaseModel):
    """The file as far as the channel reads it."""

    model_config = ConfigDict(extra="ignore")

    tenants: list[SeedTenant]


async def seed(database_url: str, seed: Seed) -> None:
    """Add these tenants or bring them up to date; repeating it changes nothing. The schema must be there."""
    async with open_statements(database_url, 1) as database:
        store = ChannelStore(database)
        for tenant in seed.tenants:
            secret = tenant.callback_secret.get_secret_value() if tenant.callback_secret else None
            limits = {limit.currency: limit.minor for limit in tenant.stand_in.amounts}
            await store.put_tenant(
                TenantId(tenant.id),
                tenant.name,
                tenant.callback_allow_list,
                secret,
                stand_in_payments=tenant.stand_in.payments,
                stand_in_amounts=limits,
            )
