"""The channel's part of the seed file: its tenants and where their outcome callbacks may go."""

from __future__ import annotations

import base64
import binascii

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from connectors.channel.addresses import Address
from connectors.channel.store import ChannelStore
from hub.statements import open_statements
from hub.transfer import TenantId

_PREFIX = "whsec_"


class SeedTenant(BaseModel):
    """One tenant; what others read of it (`fees`, `accounts`) is not looked at."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    name: str = Field(min_length=1, max_length=140)
    callback_secret: SecretStr | None = None
    callback_allow_list: list[str] = []

    @field_validator("callback_secret")
    @classmethod
    def _usable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                size = len(base64.b64decode(value.get_secret_value().removeprefix(_PREFIX), validate=True))
            except (binascii.Error, ValueError):
                raise ValueError(f"must be {_PREFIX} and base64") from None
            if not 24 <= size <= 64:
                raise ValueError("must hold 24 to 64 bytes")
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
            await store.put_tenant(TenantId(tenant.id), tenant.name, tenant.callback_allow_list, secret)
