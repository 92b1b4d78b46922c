"""How actions are put together, on the views, the connectors' tables and the book."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from connectors.ams.settings import AmsSettings
from connectors.channel.store import ChannelStore
from connectors.stp.deposit_store import DepositStore
from connectors.stp.deposits import arrived
from connectors.stp.orders import OrderStore
from connectors.stp.wire import read_deposit
from hub.messages import Engine
from hub.settings import read
from hub.statements import Statements
from hub.transfer import Party, PaymentId, TenantId
from hub.zeebe.client import ZeebeEngine
from ledger.queries import LedgerQueries
from operations_app.actions.carrying import Carrying, Limits
from operations_app.actions.relay import ActionRelay
from operations_app.actions.service import Actions
from operations_app.actions.situation import Body, PaymentViews, Situations
from operations_app.actions.store import ActionStore
from operations_app.journal import Journal
from operations_app.settings import OperationsSettings
from operations_app.views import INCIDENTS, STEPS, TRANSFERS, Views

_OWN: Final = ["operator-action", "recall"]
"""Processes about a payment that are none of its own."""
_MOST: Final = 500


class ViewsOfPayments:
    """`PaymentViews` on Elasticsearch: of each family what changed last, as much as a page holds."""

    def __init__(self, views: Views) -> None:
        self._views = views

    async def transfer(self, tenant_id: TenantId, payment_id: str) -> Body | None:
        found = await self._views.get(TRANSFERS, payment_id, tenant_id)
        return None if found is None else found.body

    async def steps(self, tenant_id: TenantId, payment_id: str) -> Sequence[Body]:
        return await self._of(STEPS, tenant_id, payment_id, "elementInstanceKey")

    async def incidents(self, tenant_id: TenantId, payment_id: str) -> Sequence[Body]:
        return await self._of(INCIDENTS, tenant_id, payment_id, "incidentKey")

    async def shown_until(self, tenant_id: TenantId, payment_id: str) -> datetime | None:
        own: list[dict[str, Any]] = [{"term": {"paymentId": payment_id}}, {"terms": {"bpmnProcessId": _OWN}}]
        newest = {"newest": {"max": {"field": "startedAt"}}}
        found = (await self._views.aggregate(STEPS, tenant_id, newest, filters=own))["newest"]["value"]
        return None if found is None else datetime.fromtimestamp(found / 1000, UTC)

    async def _of(self, family: str, tenant_id: TenantId, payment_id: str, key: str) -> Sequence[Body]:
        sort: list[dict[str, Any]] = [{"position": "desc"}, {key: "desc"}]
        page = await self._views.search(
            family,
            tenant_id,
            filters=[{"term": {"paymentId": payment_id}}],
            excluded=[{"terms": {"bpmnProcessId": _OWN}}],
            sort=sort,
            size=_MOST,
            count=False,
        )
        return [hit.body for hit in page.hits]


class PartiesOfPayments:
    """Between whom payments ran: as the channel took them in, or as STP told of a deposit."""

    def __init__(self, channel: ChannelStore, deposits: DepositStore) -> None:
        self._channel = channel
        self._deposits = deposits

    async def of(self, tenant_id: TenantId, payment_id: PaymentId) -> tuple[Party, Party] | None:
        """Payer and payee; nothing when one of them is not known."""
        found = await self._channel.parties(tenant_id, payment_id)
        if found is not None:
            return found
        deposit, body = await self._deposits.find(payment_id), await self._deposits.posted(tenant_id, payment_id)
        if deposit is None or body is None:
            return None
        told = arrived(deposit, read_deposit(body))
        return None if told.payer is None else (told.payer, told.payee)


def book(ledger: Statements) -> LedgerQueries | None:
    """The book, where it is ours."""
    return LedgerQueries(ledger) if read(AmsSettings).backend == "ledger" else None


def situations(views: PaymentViews, database: Statements, ledger: LedgerQueries | None) -> Situations:
    """What tells where payments stand."""
    return Situations(views, ChannelStore(database), OrderStore(database), DepositStore(database), ledger)


def actions(
    views: Views, database: Statements, ledger: Statements, journal: Journal, settings: OperationsSettings
) -> Actions:
    """What the API and bulk operations ask for actions."""
    found = situations(ViewsOfPayments(views), database, book(ledger))
    return Actions(ActionStore(database), found, journal, settings.action_expires_after)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the worker runs."""

    carrying: Carrying
    relay: ActionRelay


def carrying(
    engine: Engine,
    *,
    views: Views,
    database: Statements,
    ledger: Statements,
    journal: Journal,
    settings: OperationsSettings,
) -> Parts:
    """What carries actions out. Raises `TypeError` for an engine that takes no repairs."""
    if not isinstance(engine, ZeebeEngine):
        raise TypeError("actions need an engine that can be repaired")
    store, shown = ActionStore(database), ViewsOfPayments(views)
    carries = Carrying(
        store=store,
        situations=situations(shown, database, book(ledger)),
        views=shown,
        parties=PartiesOfPayments(ChannelStore(database), DepositStore(database)),
        journal=journal,
        engine=engine,
        commands=engine.operate,
        limits=Limits(settings.action_confirm_within, settings.action_linked_within, settings.action_recall_within),
    )
    look_for_money = timedelta(seconds=settings.action_look_for_money_every)
    return Parts(carries, ActionRelay(store, engine, settings.action_publish_every, look_for_money))
