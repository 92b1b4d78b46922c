"""Where a payment stands: what the views show of its process, and what the connectors' tables and the book know.

The views are late by up to two seconds. They find the keys; the engine itself refuses a command to a key that is gone,
so what happened meanwhile makes an action fail and never makes it hit something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from connectors.channel.store import ChannelStore
from connectors.stp.deposit_store import DepositDecision, DepositStore
from connectors.stp.model import OrderKind, Sending
from connectors.stp.orders import OrderStore
from hub.transfer import Outcome, PaymentId, Rail, TenantId
from ledger.queries import LedgerQueries

Body = Mapping[str, Any]


class PaymentViews(Protocol):
    """What is asked of the views; each answer is of this tenant's only."""

    async def transfer(self, tenant_id: TenantId, payment_id: str) -> Body | None:
        """The payment's document, as of now."""
        ...

    async def steps(self, tenant_id: TenantId, payment_id: str) -> Sequence[Body]:
        """The steps of the payment's processes, as of half a second ago."""
        ...

    async def incidents(self, tenant_id: TenantId, payment_id: str) -> Sequence[Body]:
        """The incidents of the payment's processes, resolved ones too, as of half a second ago."""
        ...

    async def shown_until(self, tenant_id: TenantId, payment_id: str) -> datetime | None:
        """When the newest step that is shown of the actions' own processes about this payment began."""
        ...


class StuckBy(StrEnum):
    """Why a payment does not go on."""

    INCIDENT = "incident"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Stuck:
    """One place where a payment stands and does not go on by itself."""

    by: StuckBy
    process_id: str
    element_id: str
    instance_key: int
    root_key: int
    """The instance that called this one, directly or not; itself when nobody did."""
    step_key: int
    """The element instance."""
    incident_key: int | None = None
    job_key: int | None = None
    error_type: str | None = None

    @property
    def place(self) -> tuple[str, str]:
        return self.process_id, self.element_id


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that decides what can be done with a payment."""

    tenant_id: TenantId
    payment_id: PaymentId
    position: int
    """The version of the payment's document."""
    process_id: str
    process_state: str
    direction: str
    amount: int
    """Minor units."""
    currency: str
    rail: Rail | None
    outcome: Outcome | None
    """As the channel was told."""
    stuck: tuple[Stuck, ...]
    booked: frozenset[str] | None
    """What the book shows: `hold`, `capture`, `release`, `credit`, `reverse`. Nothing when the book is not ours."""
    order: Sending | None = None
    """Where the payment's order at STP stands."""
    kept: bool = False
    """It is written that the deposit is kept."""
    given_back: int = 0
    """Minor units that recalls and refunds took, or still may."""

    @property
    def may_have_left(self) -> bool:
        """Whether an order may be at STP."""
        return self.order not in _CERTAINLY_NOT_SENT


_CERTAINLY_NOT_SENT: Final = frozenset({None, Sending.NOT_SENT, Sending.REJECTED})

WAITS: Final = frozenset({"EVENT_BASED_GATEWAY"})
"""Elements at which a payment waits for somebody."""


class Situations:
    """Reads situations. `ledger`: nothing where the account system keeps its own book."""

    def __init__(
        self,
        views: PaymentViews,
        channel: ChannelStore,
        orders: OrderStore,
        deposits: DepositStore,
        ledger: LedgerQueries | None,
    ) -> None:
        self._views = views
        self._channel = channel
        self._orders = orders
        self._deposits = deposits
        self._ledger = ledger

    async def of(self, tenant_id: TenantId, payment_id: str, given_back: int = 0) -> Situation | None:
        """How a payment of this tenant stands. Nothing when the views know none."""
        transfer = await self._views.transfer(tenant_id, payment_id)
        if transfer is None or "processId" not in transfer:
            return None
        payment = PaymentId(payment_id)
        steps = await self._views.steps(tenant_id, payment_id)
        incidents = await self._views.incidents(tenant_id, payment_id)
        order = await self._orders.find(payment)
        deposit = await self._deposits.find(payment)
        told = await self._channel.find(tenant_id, payment_id)
        mine = order is not None and order.tenant_id == tenant_id and order.kind is OrderKind.ORDER
        return Situation(
            tenant_id=tenant_id,
            payment_id=payment,
            position=transfer["position"],
            process_id=transfer["processId"],
            process_state=transfer["processState"],
            direction=transfer.get("direction", ""),
            amount=transfer.get("amount", 0),
            currency=transfer.get("currency", ""),
            rail=Rail(transfer["rail"]) if transfer.get("rail") in set(Rail) else None,
            outcome=told.outcome if told is not None else None,
            stuck=tuple(stuck_in(steps, incidents)),
            booked=await self._booked(tenant_id, payment),
            order=order.sending if mine and order is not None else None,
            kept=deposit is not None and deposit.decision is DepositDecision.CREDITED,
            given_back=given_back,
        )

    async def accepted(self, tenant_id: TenantId, payment_id: str) -> bool:
        """Whether the channel took in a payment of this tenant, which the views may not show yet."""
        return await self._channel.find(tenant_id, payment_id) is not None

    async def _booked(self, tenant_id: TenantId, payment: PaymentId) -> frozenset[str] | None:
        if self._ledger is None:
            return None
        prefix = f"{payment}:"
        found = await self._ledger.payment(tenant_id, payment)
        return frozenset(one.operation.removeprefix(prefix) for one in found if one.operation.startswith(prefix))


def stuck_in(steps: Sequence[Body], incidents: Sequence[Body]) -> list[Stuck]:
    """The places at which a payment is stuck: its open incidents, or the waits where it stands.

    A payment is in one place at a time, so where the two families of documents disagree, one of them is late.
    """
    active = {step["elementInstanceKey"]: step for step in steps if step.get("state") in {"ACTIVATING", "ACTIVE"}}
    found = [
        Stuck(
            StuckBy.INCIDENT,
            incident["bpmnProcessId"],
            incident["elementId"],
            int(incident["processInstanceKey"]),
            _root(incident),
            int(incident["elementInstanceKey"]),
            int(incident["incidentKey"]),
            int(incident["jobKey"]) if "jobKey" in incident else None,
            incident["errorType"],
        )
        for incident in incidents
        if incident["state"] == "OPEN"
    ]
    at_incident = {one.root_key for one in found}
    waits = [
        Stuck(
            StuckBy.WAIT,
            step["bpmnProcessId"],
            step["elementId"],
            int(step["processInstanceKey"]),
            _root(step),
            int(key),
        )
        for key, step in active.items()
        if step.get("elementType") in WAITS and _root(step) not in at_incident
    ]
    return sorted(found, key=lambda one: one.step_key) + sorted(waits, key=lambda one: one.step_key)


def _root(body: Body) -> int:
    return int(body.get("rootInstanceKey") or body["processInstanceKey"])
