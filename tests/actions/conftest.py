"""A desk at which operators ask for actions: real tables, and documents of the views as a test tells them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.channel.model import AcceptLinkedPayment
from connectors.channel.store import ChannelStore
from connectors.stp.deposit_store import DepositStore
from connectors.stp.orders import OrderStore
from hub.messages import Message, Published
from hub.migrations import migrate
from hub.statements import Statements, open_statements
from hub.transfer import IdentifierType, Party, PaymentId, TenantId
from hub.zeebe.refusals import EngineRefused
from ledger.queries import LedgerQueries
from operations_app.actions.carrying import Carrying, Limits
from operations_app.actions.model import Kind, ReasonCode
from operations_app.actions.possible import Asked
from operations_app.actions.relay import ActionRelay
from operations_app.actions.service import Actions, Actor, Request
from operations_app.actions.situation import Situations
from operations_app.actions.store import Action, ActionStore
from operations_app.journal import Journal

TENANT = TenantId("acme")
MARIA, CARLOS, SOFIA = (Actor(name, TENANT, ("operator",)) for name in ("maria", "carlos", "sofia"))
ANA, BRUNO = (Party(id_type=IdentifierType.ACCOUNT_ID, identifier=name) for name in ("ana", "bruno"))


_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass
class Shown:
    """What the views show."""

    transfers: dict[str, dict[str, Any]] = field(default_factory=dict)
    shown_steps: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    shown_incidents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    until: datetime | None = _LAST

    async def transfer(self, tenant_id: TenantId, payment_id: str) -> Mapping[str, Any] | None:
        found = self.transfers.get(payment_id)
        return found if found is not None and found["tenantId"] == tenant_id else None

    async def steps(self, tenant_id: TenantId, payment_id: str) -> Sequence[Mapping[str, Any]]:
        return self.shown_steps.get(payment_id, [])

    async def incidents(self, tenant_id: TenantId, payment_id: str) -> Sequence[Mapping[str, Any]]:
        return self.shown_incidents.get(payment_id, [])

    async def shown_until(self, tenant_id: TenantId, payment_id: str) -> datetime | None:
        return self.until

    def stuck(self, element: str = "quote-transfer", payment: str | None = None, amount: int = 1000) -> str:
        """A payment with an incident."""
        payment = payment or str(uuid.uuid4())
        self.transfers[payment] = self._transfer(payment, amount) | {"processState": "ACTIVE"}
        self.shown_incidents[payment] = [
            {
                "incidentKey": "501",
                "state": "OPEN",
                "bpmnProcessId": "payer-transfer",
                "elementId": element,
                "processInstanceKey": "100",
                "rootInstanceKey": "100",
                "elementInstanceKey": "400",
                "jobKey": "500",
                "errorType": "JOB_NO_RETRIES",
            }
        ]
        return payment

    def settled(self, amount: int = 1000, rail: str = "rail-on-us") -> str:
        """A payment that has ended."""
        payment = str(uuid.uuid4())
        ended = {"processState": "COMPLETED", "outcome": "SETTLED", "rail": rail}
        self.transfers[payment] = self._transfer(payment, amount) | ended
        return payment

    def resolved(self, payment: str) -> None:
        """The engine has resolved the payment's incident."""
        self.shown_incidents[payment][0]["state"] = "RESOLVED"
        self.transfers[payment]["position"] += 1

    @staticmethod
    def _transfer(payment: str, amount: int) -> dict[str, Any]:
        return {
            "paymentId": payment,
            "tenantId": TENANT,
            "position": 7,
            "processId": "payer-transfer",
            "direction": "OUTGOING",
            "amount": amount,
            "currency": "MXN",
        }


@dataclass
class Gateway:
    """Notes what the engine is given, and refuses what it is told to."""

    messages: list[Message] = field(default_factory=list)
    commands: list[tuple[str, int]] = field(default_factory=list)
    refuses: bool = False

    async def publish(self, message: Message) -> Published:
        known = any(one.message_id == message.message_id for one in self.messages)
        self.messages.append(message)
        return Published.ALREADY_THERE if known else Published.NEW

    async def retry(self, incident_key: int, job_key: int | None = None) -> None:
        self._note("retry", incident_key)

    async def set_variables(self, scope_key: int, variables: Mapping[str, Any], local: bool = False) -> int:
        self._note("set-variables", scope_key)
        return 1

    async def modify_instance(
        self, instance_key: int, *, activate: Sequence[Any] = (), terminate: Sequence[int] = ()
    ) -> None:
        self._note("move", terminate[0])

    def _note(self, command: str, key: int) -> None:
        if self.refuses:
            raise EngineRefused(command, "gone")
        self.commands.append((command, key))


_ENDED = """
    INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, amount, currency, payer, payee, concept,
        publish_after, process_instance_key, outcome, reason)
    VALUES (CAST(%(id)s AS uuid), %(tenant)s, CAST(%(id)s AS text), 'x', %(amount)s, 'MXN', '{}', '{}', 'rent',
        now(), 1, %(outcome)s, 'none')
"""


@dataclass
class Desk:
    """Everything around actions but the views and the engine."""

    database: Statements
    shown: Shown
    gateway: Gateway
    actions: Actions
    carrying: Carrying
    relay: ActionRelay
    store: ActionStore

    async def ask(
        self,
        payment: str,
        kind: Kind = Kind.RETRY,
        by: Actor = MARIA,
        key: str | None = None,
        position: int | None = None,
        **asked: Any,
    ) -> Action:
        wanted = Request(
            payment, kind, ReasonCode.OTHER, "the reason is a test", Asked(**asked), key or uuid.uuid4().hex, position
        )
        return (await self.actions.request(by, wanted))[0]

    async def settled(self, amount: int = 1000, rail: str = "rail-on-us") -> str:
        """A payment that has ended, and whose outcome the channel was told."""
        payment = self.shown.settled(amount, rail)
        given = {"id": payment, "tenant": TENANT, "amount": amount, "outcome": "SETTLED"}
        await self.database.rows(_ENDED, given)
        return payment

    async def came_to(self, linked_payment: str | None, outcome: str) -> None:
        """The payment that gives money back was accepted, and this became of it."""
        given = {"id": linked_payment, "tenant": TENANT, "amount": 1, "outcome": outcome}
        await self.database.rows(_ENDED, given)

    async def log(self, action: Action) -> list[tuple[str, str, str]]:
        """Who did what to an action, and what it came to."""
        rows = await self.database.rows(
            "SELECT actor, action, outcome FROM operations.act WHERE target = %(target)s ORDER BY seq",
            {"target": f"action:{action.id}"},
        )
        return [tuple(row) for row in rows]


def linked(payment: str) -> AcceptLinkedPayment:
    """Bruno gives Ana something back."""
    return AcceptLinkedPayment(
        linked_payment_id=PaymentId(payment),
        tenant_id=TENANT,
        payer=BRUNO,
        payee=ANA,
        amount=1,
        currency="MXN",
        concept="DEVOLUCION",
    )


class ItsParties:
    """Ana paid Bruno."""

    async def of(self, tenant_id: TenantId, payment_id: PaymentId) -> tuple[Party, Party] | None:
        return ANA, BRUNO


@asynccontextmanager
async def open_desk(url: str, shown: Shown, gateway: Gateway, expires: float = 600) -> AsyncIterator[Desk]:
    async with open_statements(url, 8) as database:
        store, journal = ActionStore(database), Journal(database)
        channel = ChannelStore(database)
        situations = Situations(shown, channel, OrderStore(database), DepositStore(database), LedgerQueries(database))
        carrying = Carrying(
            store=store,
            situations=situations,
            views=shown,
            parties=ItsParties(),
            journal=journal,
            engine=gateway,
            commands=gateway,
            limits=Limits(confirm=600, linked=600, recall=600),
        )
        yield Desk(
            database,
            shown,
            gateway,
            Actions(store, situations, journal, expires),
            carrying,
            ActionRelay(store, gateway, 0.1, timedelta(hours=1)),
            store,
        )


@pytest.fixture
def linked_payment() -> Callable[[str], AcceptLinkedPayment]:
    return linked


@pytest.fixture(scope="module")
def tables(new_database: Callable[[], str]) -> str:
    url = new_database()
    for component in ("ledger", "connectors.channel", "connectors.stp", "operations_app"):
        migrate(f"{component}.migrations", url)
    return url


@pytest.fixture
async def desk(tables: str) -> AsyncIterator[Desk]:
    async with open_desk(tables, Shown(), Gateway()) as opened:
        yield opened
