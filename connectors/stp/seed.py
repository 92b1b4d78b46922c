"""STP's part of the seed file: whose the accounts are that deposits come in for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from connectors.stp.accounts import AccountKind
from connectors.stp.deposit_store import DepositStore, Receiver
from hub.statements import open_statements
from hub.telemetry import logger
from hub.transfer import IdentifierType, TenantId

_KINDS: Final = {
    IdentifierType.CLABE: (AccountKind.CLABE, re.compile(r"([0-9]{18})", re.ASCII)),
    IdentifierType.CARD: (AccountKind.CARD, re.compile(r"([0-9]{15,16})", re.ASCII)),
    IdentifierType.MSISDN: (AccountKind.MOBILE, re.compile(r"(?:\+?521?)?([0-9]{10})", re.ASCII)),
}

log = logger(__name__)


class SeedIdentifier(BaseModel):
    """A way to name an account."""

    model_config = ConfigDict(extra="ignore")

    type: IdentifierType
    value: str


class SeedAccount(BaseModel):
    """An account, as far as deposits look for it."""

    model_config = ConfigDict(extra="ignore")

    identifiers: list[SeedIdentifier] = []


class SeedTenant(BaseModel):
    """A tenant, as far as deposits look for its accounts."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1, max_length=64)
    clabe_prefixes: list[Annotated[str, StringConstraints(pattern=r"^[0-9]{6,17}$")]] = []
    """First digits of CLABEs that STP gave the tenant; they find accounts that are opened later too."""
    accounts: list[SeedAccount] = []


class Seed(BaseModel):
    """The file as far as the STP connector reads it."""

    model_config = ConfigDict(extra="ignore")

    tenants: list[SeedTenant]


async def seed(database_url: str, seed: Seed) -> None:
    """Say whose accounts are whose; repeating it changes nothing. A number stays with the tenant that had it first."""
    async with open_statements(database_url, 1) as database:
        taken = await DepositStore(database).put_receivers(
            receiver for tenant in seed.tenants for receiver in _receivers(tenant)
        )
        for one in taken:
            log.warning("seed.number-taken", tenant_id=one.tenant_id, kind=one.kind.name)


def _receivers(tenant: SeedTenant) -> Iterator[Receiver]:
    owner = TenantId(tenant.id)
    for prefix in tenant.clabe_prefixes:
        yield Receiver(AccountKind.CLABE, prefix, owner)
    for account in tenant.accounts:
        for identifier in account.identifiers:
            known = _KINDS.get(identifier.type)
            number = known[1].fullmatch(identifier.value) if known else None
            if known and number:
                yield Receiver(known[0], number.group(1), owner, identifier.value)
