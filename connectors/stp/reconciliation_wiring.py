"""How reconciliation is put together: for the worker, and for `payhub stp reconcile` and `payhub stp breaks`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta

from connectors.stp.client import open_stp
from connectors.stp.consults import Asked, ConsultBudget, Consults, Patience
from connectors.stp.dispatch import Profiles
from connectors.stp.orders import OrderStore
from connectors.stp.reconciliation import Account, Reconciled, Reconciliation, SettlementBook
from connectors.stp.reconciliation_store import FiledBreak, ReconciliationStore
from connectors.stp.settings import StpSettings
from connectors.stp.tenants import profiles
from hub.settings import DatabaseSettings, read
from hub.statements import Statements, open_statements
from hub.transfer import TenantId
from ledger.settings import LedgerSettings
from ledger.settlements import Settlements


def accounts(known: Profiles) -> list[Account]:
    """Each company at STP once, with the tenants whose orders it carries."""
    found: dict[str, Account] = {}
    everyone, listed = known.everyone, known.by_tenant
    for tenant, profile in listed.items():
        company = profile.sender.company
        carried = frozenset({tenant}) | (found[company].tenants or frozenset() if company in found else frozenset())
        found[company] = Account(company, profile.signer, carried)
    if everyone is not None:
        company = everyone.sender.company
        others = frozenset(tenant for tenant, profile in listed.items() if profile.sender.company != company)
        found[company] = Account(company, everyone.signer, None, others)
    return list(found.values())


@asynccontextmanager
async def open_book(settings: StpSettings) -> AsyncIterator[SettlementBook | None]:
    """Our own ledger, when there is one to compare with."""
    if not settings.reconcile_ledger or not os.environ.get("PAYHUB_LEDGER_DATABASE_URL"):
        yield None
        return
    async with open_statements(read(LedgerSettings).database_url, 2, statement_timeout="60s") as ledger:
        yield Settlements(ledger)


def reconciliation(
    settings: StpSettings,
    *,
    database: Statements,
    stp: Asked,
    budget: ConsultBudget,
    known: Profiles,
    book: SettlementBook | None,
) -> Reconciliation:
    """Compares dates as the settings say."""
    return Reconciliation(
        store=ReconciliationStore(database),
        orders=OrderStore(database),
        consults=Consults(stp, budget, Patience(between_pages=timedelta(seconds=settings.page_pause))),
        accounts=accounts(known),
        book=book,
        booking_grace=timedelta(seconds=settings.booking_grace),
    )


async def reconcile_now(day: date, tenant: str | None = None) -> Sequence[Reconciled]:
    """Compare one operation date, for every company or for a tenant's.

    Raises `Unavailable`, `SettingsError`, and `StpConfigurationError` for a tenant that has no company.
    """
    settings, database_settings = read(StpSettings), read(DatabaseSettings)
    known = profiles(settings)
    if tenant is not None:
        known.of(TenantId(tenant))
    async with (
        open_statements(database_settings.url, 2, statement_timeout="60s") as database,
        open_book(settings) as book,
    ):
        budget = ConsultBudget(database, settings.consults_per_hour)
        async with open_stp(settings, budget) as stp:
            comparing = reconciliation(settings, database=database, stp=stp, budget=budget, known=known, book=book)
            return await comparing.reconcile(day, TenantId(tenant) if tenant else None)


async def filed_breaks(day: date | None, tenant: str | None, *, healed: bool) -> Sequence[FiledBreak]:
    """The breaks that are open, or all that were ever filed. Raises `Unavailable`, `SettingsError`."""
    async with open_statements(read(DatabaseSettings).url, 1) as database:
        store = ReconciliationStore(database)
        return await store.open_breaks(day=day, tenant=TenantId(tenant) if tenant else None, healed=healed)
