"""What PostgreSQL knows of a payment and no record of the engine tells: read, never written, from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from exporters.privacy import mask_identifier, mask_text
from hub.money import Money
from hub.statements import Statements
from hub.transfer import STATE_OF, Outcome, TransferState
from operations_app.transfers.wire import (
    ChannelCallbackShown,
    LinkShown,
    ObservationShown,
    OrderShown,
    SchemeCallbackShown,
)
from operations_app.wire import Amount

_ACCEPTED: Final = (
    "SELECT id::text AS id, idempotency_key, client_ref_id, amount, currency, accepted_at, "
    "process_instance_key, outcome, reason, completed_at "
    "FROM channel.payment WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s)"
)
_ORDERS: Final = (
    "SELECT kind, tracking_key, amount, payee_account, sending, sends, state, stp_id, cause, error_id, error_detail, "
    "claimed_at, answered_at, settled_at FROM stp.stp_order "
    "WHERE payment_id = %(payment)s AND tenant_id = %(tenant)s"
)
_OBSERVATIONS: Final = (
    "SELECT o.source, o.word, o.state, o.cause, o.detail, o.happened_at, o.observed_at, o.callback_id "
    "FROM stp.observation o JOIN stp.stp_order s USING (payment_id) "
    "WHERE o.payment_id = %(payment)s AND s.tenant_id = %(tenant)s ORDER BY o.id LIMIT 500"
)
_SCHEME_CALLBACKS: Final = (
    "SELECT c.id, c.kind, c.times, c.result, c.received_at, c.last_received_at, c.handled_at FROM stp.callback c "
    "WHERE c.id IN ("
    "SELECT o.callback_id FROM stp.observation o JOIN stp.stp_order s USING (payment_id) "
    "WHERE o.payment_id = %(payment)s AND s.tenant_id = %(tenant)s "
    "UNION SELECT d.callback_id FROM stp.deposit d WHERE d.payment_id = %(payment)s AND d.tenant_id = %(tenant)s) "
    "ORDER BY c.id LIMIT 500"
)
_CHANNEL_CALLBACKS: Final = (
    "SELECT c.sequence, o.outcome, o.reason, c.url, c.state, c.attempts, c.last_answer, c.created_at, "
    "c.next_attempt_at, c.ended_at FROM channel.callback c JOIN channel.payment_outcome o USING (payment_id, sequence) "
    "WHERE c.payment_id = %(uuid)s AND c.tenant_id = %(tenant)s ORDER BY c.sequence"
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A payment as the channel took it in."""

    payment_id: str
    correlation_id: str
    client_ref_id: str | None
    amount: Money
    accepted_at: datetime
    claimed: bool
    outcome: Outcome | None
    reason: str | None
    completed_at: datetime | None

    @property
    def state(self) -> TransferState:
        if self.outcome is not None:
            return STATE_OF[self.outcome]
        return TransferState.PENDING if self.claimed else TransferState.RECEIVED


class PaymentRecords:
    """Reads the tables of the channel and of STP. Raises `Unavailable` when the database is away."""

    def __init__(self, database: Statements) -> None:
        self._database = database

    async def accepted(self, tenant: str, payment_ids: Sequence[str]) -> Mapping[str, Accepted]:
        """Those of these payments that the channel took in, by their ids."""
        ids = [found for one in payment_ids if (found := _uuid(one)) is not None]
        if not ids:
            return {}
        rows = await self._database.named_rows(_ACCEPTED, {"tenant": tenant, "ids": ids})
        return {
            row.id: Accepted(
                payment_id=row.id,
                correlation_id=row.idempotency_key,
                client_ref_id=row.client_ref_id,
                amount=Money(row.amount, row.currency),
                accepted_at=row.accepted_at,
                claimed=row.process_instance_key is not None,
                outcome=None if row.outcome is None else Outcome(row.outcome),
                reason=row.reason,
                completed_at=row.completed_at,
            )
            for row in rows
        }

    async def orders(self, tenant: str, payment_id: str) -> list[OrderShown]:
        """The payment's order at STP, or the order that gives it back when it is a deposit."""
        rows = await self._database.named_rows(_ORDERS, {"tenant": tenant, "payment": payment_id})
        return [
            OrderShown(
                kind=row.kind,
                tracking_key=row.tracking_key,
                amount=Amount.of(Money(row.amount, "MXN")),
                payee_account=mask_identifier(row.payee_account),
                sending=row.sending,
                sends=row.sends,
                state=row.state,
                stp_id=_text(row.stp_id),
                cause=row.cause,
                error_id=row.error_id,
                error_detail=None if row.error_detail is None else mask_text(row.error_detail),
                claimed_at=row.claimed_at,
                answered_at=row.answered_at,
                settled_at=row.settled_at,
            )
            for row in rows
        ]

    async def observations(self, tenant: str, payment_id: str) -> list[ObservationShown]:
        """What STP said of the payment's order, in the order in which we learnt of it."""
        rows = await self._database.named_rows(_OBSERVATIONS, {"tenant": tenant, "payment": payment_id})
        return [
            ObservationShown(
                source=row.source,
                word=row.word,
                state=row.state,
                cause=row.cause,
                detail=None if row.detail is None else mask_text(row.detail),
                happened_at=row.happened_at,
                observed_at=row.observed_at,
                callback_id=_text(row.callback_id),
            )
            for row in rows
        ]

    async def scheme_callbacks(self, tenant: str, payment_id: str) -> list[SchemeCallbackShown]:
        """STP's callbacks about the payment's order, or the one that announced the deposit."""
        rows = await self._database.named_rows(_SCHEME_CALLBACKS, {"tenant": tenant, "payment": payment_id})
        return [
            SchemeCallbackShown(
                callback_id=str(row.id),
                kind=row.kind,
                times=row.times,
                result=row.result,
                received_at=row.received_at,
                last_received_at=row.last_received_at,
                handled_at=row.handled_at,
            )
            for row in rows
        ]

    async def channel_callbacks(self, tenant: str, payment_id: str) -> list[ChannelCallbackShown]:
        """The callbacks by which the channel is told the payment's outcomes."""
        uuid = _uuid(payment_id)
        if uuid is None:
            return []
        rows = await self._database.named_rows(_CHANNEL_CALLBACKS, {"tenant": tenant, "uuid": uuid})
        return [
            ChannelCallbackShown(
                sequence=row.sequence,
                outcome=row.outcome,
                reason=row.reason,
                url=_without_query(row.url),
                state=row.state,
                attempts=row.attempts,
                last_answer=row.last_answer,
                created_at=row.created_at,
                next_attempt_at=row.next_attempt_at if row.state == "DUE" else None,
                ended_at=row.ended_at,
            )
            for row in rows
        ]

    async def links(self, tenant: str, payment_id: str) -> list[LinkShown]:
        """Orders at STP that give this deposit back."""
        return [
            LinkShown(
                relation="given-back-by",
                kind="deposit-return",
                tracking_key=order.tracking_key,
                state=order.state,
                money=order.amount,
            )
            for order in await self.orders(tenant, payment_id)
            if order.kind == "return"
        ]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
