"""What a person does at STP without a process: register and remove accounts, give a deposit back, ask for the balance.

Each is safe to repeat. Accounts already there are told as such; a deposit that may have gone back is looked for first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from connectors.stp.account_registry import (
    Account,
    AccountFileError,
    AccountRegistry,
    Registered,
    Registration,
    read_accounts,
)
from connectors.stp.client import open_stp
from connectors.stp.connector import rules
from connectors.stp.consults import ConsultBudget, Consults, Patience
from connectors.stp.dispatch import Dispatch
from connectors.stp.model import ReturnDeposit
from connectors.stp.orders import OrderStore
from connectors.stp.returns import ReturnsWorker
from connectors.stp.settings import StpSettings
from connectors.stp.tenants import profiles
from connectors.stp.wire import AccountBalance
from hub.settings import DatabaseSettings, read
from hub.statements import open_statements
from hub.transfer import TenantId


@dataclass(frozen=True, slots=True)
class Told:
    """What STP said about one account of a file."""

    account: str
    """Its last four digits."""
    registered: Registered

    @property
    def done(self) -> bool:
        return self.registered.result in {Registration.DONE, Registration.ALREADY_THERE}

    def as_json(self) -> dict[str, str | None]:
        return {"account": self.account, "result": self.registered.result, "detail": self.registered.detail or None}

    def __str__(self) -> str:
        return ": ".join(part for part in (self.account, self.registered.result, self.registered.detail) if part)


def read_account_file(file: Path, kind: str) -> list[Account]:
    """The accounts of a JSON file. Raises `AccountFileError`."""
    try:
        return read_accounts(file.read_text(encoding="utf-8-sig"), kind)
    except OSError as error:
        raise AccountFileError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AccountFileError(f"{file}: is not UTF-8 text") from None
    except AccountFileError as error:
        raise AccountFileError(f"{file}: {error}") from None


async def register_accounts(accounts: Sequence[Account], tenant: TenantId) -> list[Told]:
    """Register accounts of one kind. Raises `Unavailable`, `Uncertain`, `SettingsError`, `StpConfigurationError`."""
    async with _registry(tenant) as registry:
        return _told(accounts, await registry.register(accounts))


async def remove_accounts(accounts: Sequence[Account], tenant: TenantId) -> list[Told]:
    """Remove accounts, one call each. Raises as `register_accounts` does."""
    async with _registry(tenant) as registry:
        return _told(accounts, [await registry.remove(account) for account in accounts])


def _told(accounts: Sequence[Account], answers: Sequence[Registered]) -> list[Told]:
    return [Told(f"***{account.cuenta[-4:]}", answer) for account, answer in zip(accounts, answers, strict=True)]


@asynccontextmanager
async def _registry(tenant: TenantId) -> AsyncIterator[AccountRegistry]:
    settings = read(StpSettings)
    profile = profiles(settings).of(tenant)
    async with open_stp(settings) as stp:
        yield AccountRegistry(stp, profile.sender.company, profile.signer)


async def return_deposit(job: ReturnDeposit) -> str:
    """Give a deposit back; the tracking key of the transfer back.

    Raises `Uncertain` when nobody can say yet whether it went: doing it again looks first. `OrderRejected` when STP
    will not, `GivenBackAlready` when another payment did.
    """
    settings, database_settings = read(StpSettings), read(DatabaseSettings)
    known = profiles(settings)
    async with (
        open_statements(database_settings.url, 2) as database,
        open_stp(settings, ConsultBudget(database, settings.consults_per_hour)) as stp,
    ):
        orders = OrderStore(database)
        dispatch = Dispatch(orders, stp, known, rules(settings))
        returned = await ReturnsWorker(orders=orders, dispatch=dispatch, profiles=known).return_deposit(job)
    return returned.return_tracking_key


async def account_balance(tenant: TenantId, day: date | None = None) -> AccountBalance:
    """What is on the tenant's payer account at STP, now or at the end of a date; one of the hour's questions.

    Raises `Unavailable`, also when the hour's questions are used up, `SettingsError` and `StpConfigurationError`.
    """
    settings, database_settings = read(StpSettings), read(DatabaseSettings)
    profile = profiles(settings).of(tenant)
    async with open_statements(database_settings.url, 2) as database:
        budget = ConsultBudget(database, settings.consults_per_hour)
        async with open_stp(settings, budget) as stp:
            consults = Consults(stp, budget, Patience(wait_at_most=timedelta(seconds=5)))
            return await consults.balance(profile.sender.company, profile.sender.payer_account, profile.signer, day)
