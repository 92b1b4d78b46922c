"""What we sent to STP and what we heard from it: PostgreSQL, schema `stp`.

An order's row is committed, with the exact bytes, before anything is sent; how the attempt went is written after it.
So whoever dies in between leaves a row that says "perhaps sent", and the next one looks before it repeats. Nothing that
STP says is ever overwritten: observations are only added, and the order's state moves by rank, not by arrival.

Every method is one statement and one round trip, and raises `Unavailable` when the database is away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, LiteralString

from connectors.stp import statements
from connectors.stp.model import OrderKind, OrderPurpose, OrderState, Sending, SendOutcome, digest
from connectors.stp.tracking import TrackingKey
from connectors.stp.wire import Answer, DepositNotice, FoundOrder, StatusNotice
from hub.statements import Statements
from hub.transfer import Outcome, PaymentId, TenantId


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order that is about to be sent for the first time."""

    payment_id: PaymentId
    tenant_id: TenantId
    company: str
    tracking_key: TrackingKey
    amount: int
    """Centavos."""
    payee_account: str
    body: str
    joined: str
    kind: OrderKind = OrderKind.ORDER
    deposit: str | None = None
    """The digest of the deposit that is given back; none for an order."""
    purpose: OrderPurpose = OrderPurpose.PAYMENT


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an order stands: the part of its row that observations change."""

    payment_id: PaymentId
    tenant_id: TenantId
    sending: Sending
    state: OrderState
    stp_id: int | None
    cause: int | None
    observation: str | None
    """The digest of what brought this state."""
    told: str | None
    """The digest of what the engine was last told, as far as it is written down."""
    settled_as: str | None
    """The digest of what settled it; it stays when the order is returned afterwards."""
    kind: OrderKind
    purpose: OrderPurpose
    happened_at: datetime | None
    """When this state came about, as STP says."""
    settled_at_stp: datetime | None
    """When it was settled, as STP says, also if it was returned afterwards."""

    @property
    def is_untold(self) -> bool:
        """In a final state of which the engine has not been told, as far as it is written down."""
        return self.state.is_final and self.told != self.observation and self.sending is not Sending.REJECTED

    @property
    def returned_late(self) -> bool:
        """Returned after it was settled: its payment has ended, and the return is a process of its own (L38)."""
        return self.state is OrderState.RETURNED and self.settled_as is not None


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """An order as its row has it."""

    payment_id: PaymentId
    tenant_id: TenantId
    company: str
    tracking_key: TrackingKey
    amount: int
    payee_account: str
    body: str
    operation_date: date
    sending: Sending
    sends: int
    doubts: int
    claimed_at: datetime
    stp_id: int | None
    error_id: int | None
    error_detail: str | None
    state: OrderState
    cause: int | None
    observation: str | None
    settled_as: str | None
    happened_at: datetime | None
    settled_at_stp: datetime | None
    kind: OrderKind = OrderKind.ORDER

    @property
    def happened_for_payer(self) -> datetime | None:
        """When `state_for_payer` came about, as STP says."""
        return self.happened_at if self.settled_as is None else self.settled_at_stp

    @property
    def state_for_payer(self) -> OrderState:
        """The state that ends the payer's transfer: a return after settlement is a process of its own."""
        late = self.state is OrderState.RETURNED and self.settled_as is not None
        return OrderState.SETTLED if late else self.state

    def __repr__(self) -> str:
        return f"StoredOrder({self.payment_id}, {self.sending}, {self.state})"


@dataclass(frozen=True, slots=True)
class Kept:
    """A callback in the inbox."""

    id: int
    result: CallbackResult | None
    """What became of it when it came before; nothing when it is new or was never handled."""


class CallbackResult(StrEnum):
    """What became of a callback."""

    MOVED = "moved"
    """It changed the order's state."""
    UNCHANGED = "unchanged"
    """A repeat, or news that the order's state had overtaken."""
    CONFLICT = "conflict"
    """It contradicts what is known: an operator must look."""
    TAKEN = "taken"
    """A deposit whose process begins, or a repeat of it."""
    REFUSED = "refused"
    """A deposit that was sent back at once."""
    UNKNOWN_ORDER = "unknown-order"
    UNKNOWN_STATUS = "unknown-status"
    MALFORMED = "malformed"
    FAILED = "failed"
    """A defect of ours; the body is kept."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What an observation did to its order."""

    order: Standing
    """As it is now."""
    moved: bool
    conflict: bool
    other_id: bool
    """STP names another id than before for the same key: perhaps two orders."""


@dataclass(frozen=True, slots=True)
class Unhandled:
    """A callback that was stored and not yet handled."""

    id: int
    body: bytes
    known: bool
    """Whether it was handled before and matched no order."""


ORDER_STATUS: Final = "order-status"
"""The kind of callback that tells an order's state."""

MATCHED_AGAIN_FOR: Final = timedelta(days=1)
"""How long a callback that matches no order is looked at again now and then; it is kept for ever."""

_SENDING_AFTER: Final = {
    SendOutcome.ACCEPTED: Sending.ACCEPTED,
    SendOutcome.ALREADY_REGISTERED: Sending.REGISTERED,
    SendOutcome.REJECTED: Sending.REJECTED,
    SendOutcome.NOT_SENT: Sending.NOT_SENT,
    SendOutcome.RETRYABLE: Sending.NOT_SENT,
    SendOutcome.CONFIG_ERROR: Sending.NOT_SENT,
    SendOutcome.UNKNOWN: Sending.UNKNOWN,
}


def sending_after(answer: Answer, doubts: int) -> Sending:
    """Where an order stands after this answer to its newest attempt, of `doubts` attempts that may have arrived.

    A no is believed at once only when STP documents it and no earlier attempt can have arrived. A documented no to the
    same bytes as an attempt in doubt, and an undocumented no, are verified first; both at once stay unknown.
    """
    if answer.outcome is not SendOutcome.REJECTED:
        return _SENDING_AFTER[answer.outcome]
    if answer.documented:
        return Sending.REJECTED if doubts <= 1 else Sending.REFUSED
    return Sending.REFUSED if doubts <= 1 else Sending.UNKNOWN


class OrderStore:
    """The orders of all tenants and the inbox of callbacks."""

    def __init__(self, database: Statements) -> None:
        self._database = database

    async def claim(self, new: NewOrder, operation_date: date, moment: datetime) -> StoredOrder | None:
        """Commit the order before it is sent. Nothing when there is one for this payment already."""
        given = {
            "payment_id": new.payment_id,
            "tenant_id": new.tenant_id,
            "company": new.company,
            "tracking_key": new.tracking_key,
            "amount": new.amount,
            "payee_account": new.payee_account,
            "body": new.body,
            "joined_sha256": hashlib.sha256(new.joined.encode()).hexdigest(),
            "operation_date": operation_date,
            "moment": moment,
            "kind": new.kind,
            "deposit": new.deposit,
            "purpose": new.purpose,
        }
        if await self._row(statements.CLAIM, given) is None:
            return None
        return _as_claimed(new, operation_date, moment)

    async def find(self, payment_id: PaymentId) -> StoredOrder | None:
        """The order of a payment, if it was ever claimed."""
        return await self._order(statements.FIND, {"payment_id": payment_id})

    async def claim_again(self, order: StoredOrder, operation_date: date, moment: datetime) -> StoredOrder | None:
        """Claim one more attempt. Nothing when somebody else did, or STP turned out to have the order."""
        return await self._order(
            statements.CLAIM_AGAIN,
            {
                "payment_id": order.payment_id,
                "sends": order.sends,
                "operation_date": operation_date,
                "moment": moment,
            },
        )

    async def renew(self, order: StoredOrder, new: NewOrder) -> StoredOrder | None:
        """Replace what will be sent, of an order of which certainly nothing was. Nothing when that is no longer so."""
        return await self._order(
            statements.RENEW,
            {
                "payment_id": order.payment_id,
                "sends": order.sends,
                "company": new.company,
                "amount": new.amount,
                "payee_account": new.payee_account,
                "body": new.body,
                "joined_sha256": hashlib.sha256(new.joined.encode()).hexdigest(),
            },
        )

    async def record(self, order: StoredOrder, answer: Answer, moment: datetime) -> StoredOrder:
        """Write down how an attempt went. What is already known for certain is kept."""
        recorded = await self._row(
            statements.RECORD,
            {
                "payment_id": order.payment_id,
                "sends": order.sends,
                "digest": digest("answer", order.sends, answer.outcome, answer.error_id, answer.stp_id),
                "word": answer.outcome,
                "sending": sending_after(answer, order.doubts),
                "stp_id": answer.stp_id,
                "error_id": answer.error_id,
                "detail": answer.detail or None,
                "error_text": answer.error_text or None,
                "moment": moment,
            },
        )
        if recorded is None:
            raise LookupError(f"payment {order.payment_id} has no order")
        return replace(
            order,
            sending=Sending(recorded["sending"]),
            state=OrderState(recorded["state"]),
            stp_id=recorded["stp_id"],
            doubts=recorded["doubts"],
            error_id=recorded["error_id"],
            error_detail=recorded["error_detail"],
            cause=recorded["cause"],
            observation=recorded["observation"],
            settled_as=recorded["settled_as"],
            happened_at=recorded["happened_at"],
            settled_at_stp=recorded["settled_at_stp"],
        )

    async def confirm_rejection(self, order: StoredOrder) -> StoredOrder:
        """A refusal was verified: STP does not have the order. Nothing changes if it turned out to have it."""
        confirmed = await self._order(
            statements.CONFIRM_REJECTION, {"payment_id": order.payment_id, "sends": order.sends}
        )
        return confirmed or _present(await self.find(order.payment_id), order.payment_id)

    async def reopen(self, order: StoredOrder) -> StoredOrder | None:
        """Let a return that STP certainly refused be sent once more. Nothing when it is no such return any more."""
        return await self._order(statements.REOPEN, {"payment_id": order.payment_id, "sends": order.sends})

    async def observe_inquiry(
        self, order: StoredOrder, found: FoundOrder, moment: datetime, *, told: bool
    ) -> tuple[StoredOrder, Observed]:
        """Keep what an inquiry showed. `told`: the process learns it from us now and needs no message."""
        given = {
            "payment_id": order.payment_id,
            "source": "inquiry",
            "digest": digest(found.word, found.stp_id, found.cause.code, found.cause.text),
            "word": found.word,
            "state": found.state,
            "stp_id": found.stp_id,
            "cause": found.cause.code,
            "detail": found.cause.text or None,
            "happened_at": found.settled_at,
            "callback_id": None,
            "before": _before(found.state),
            "contradicts": _contradicted(found.state),
            "moment": moment,
            "told": told,
        }
        row = await self._row(statements.OBSERVE, given)
        if row is None:
            raise LookupError(f"the order of payment {order.payment_id} has gone")
        observed = _observed(row)
        now = observed.order
        return replace(
            order,
            sending=now.sending,
            state=now.state,
            stp_id=now.stp_id,
            cause=now.cause,
            observation=now.observation,
            settled_as=now.settled_as,
            happened_at=now.happened_at,
            settled_at_stp=now.settled_at_stp,
        ), observed

    async def keep_callback(self, body: bytes, moment: datetime, kind: str = ORDER_STATUS) -> Kept:
        """Commit a callback's raw body before anything is read from it."""
        given = {"kind": kind, "body": body, "body_sha256": hashlib.sha256(body).digest(), "moment": moment}
        row = await self._row(statements.KEEP, given)
        if row is None:
            raise LookupError("the inbox returned no row")
        return Kept(row["id"], CallbackResult(row["result"]) if row["result"] else None)

    async def observe_callback(self, callback_id: int, notice: StatusNotice, moment: datetime) -> Observed | None:
        """Match a callback with its order and apply it. Nothing when no order of ours matches."""
        given = {
            "key": notice.key,
            "folio": notice.folio,
            "company": notice.company,
            "source": "callback",
            "digest": digest(notice.word, notice.stp_id, notice.cause.code, notice.cause.text),
            "word": notice.word,
            "state": notice.state,
            "stp_id": notice.stp_id,
            "cause": notice.cause.code,
            "detail": notice.cause.text or None,
            "happened_at": notice.settled_at,
            "callback_id": callback_id,
            "before": _before(notice.state),
            "contradicts": _contradicted(notice.state),
            "moment": moment,
            "told": False,
        }
        row = await self._row(statements.OBSERVE_CALLBACK, given)
        return None if row is None else _observed(row)

    async def observe_incoming(
        self, payment_id: PaymentId, callback_id: int, notice: DepositNotice, moment: datetime
    ) -> Observed:
        """Keep that an order's money came in again: it was returned, whether or not a status callback says so too."""
        given = {
            "payment_id": payment_id,
            "source": "deposit",
            "digest": digest("incoming", notice.key, notice.payment_type),
            "word": f"tipoPago {notice.payment_type}",
            "state": OrderState.RETURNED,
            "stp_id": None,  # ids of what comes in are another series than those of orders
            "cause": None,
            "detail": None,
            "happened_at": None,
            "callback_id": callback_id,
            "before": _before(OrderState.RETURNED),
            "contradicts": _contradicted(OrderState.RETURNED),
            "moment": moment,
            "told": False,
        }
        row = await self._row(statements.OBSERVE, given)
        if row is None:
            raise LookupError(f"the order of payment {payment_id} has gone")
        return _observed(row)

    async def observe_decision(
        self, tenant_id: TenantId, payment_id: PaymentId, outcome: Outcome, state: OrderState, moment: datetime
    ) -> Observed:
        """Keep what an operator decided. It moves the order as STP's word would, and never overrules that."""
        order = await self.find(payment_id)
        if order is None or order.tenant_id != tenant_id:
            raise LookupError(f"payment {payment_id} has no order at STP")
        given = {
            "payment_id": payment_id,
            "source": "operator",
            "digest": digest("operator", outcome),
            "word": outcome,
            "state": state,
            "stp_id": None,
            "cause": None,
            "detail": None,
            "happened_at": None,
            "callback_id": None,
            "before": [OrderState.PENDING],  # what settled is not returned by anybody's word but STP's
            "contradicts": _contradicted(state),
            "moment": moment,
            "told": True,
        }
        row = await self._row(statements.OBSERVE, given)
        if row is None:
            raise LookupError(f"the order of payment {payment_id} has gone")
        return _observed(row)

    async def close_callback(self, callback_id: int, result: CallbackResult, moment: datetime) -> None:
        """Write down what became of a callback."""
        await self._row(statements.CLOSE, {"callback_id": callback_id, "result": result, "moment": moment}, rows=False)

    async def unhandled_callbacks(self, before: datetime, moment: datetime, limit: int = 100) -> Sequence[Unhandled]:
        """Callbacks of before `before` whose handling broke off, or that matched no order and are due again."""
        given = {
            "kind": ORDER_STATUS,
            "before": before,
            "moment": moment,
            "since": moment - MATCHED_AGAIN_FOR,
            "limit": limit,
        }
        rows = await self._rows(statements.UNHANDLED, given)
        return [Unhandled(row["id"], bytes(row["body"]), row["result"] is not None) for row in rows]

    async def untold(self, before: datetime, limit: int = 100) -> Sequence[Standing]:
        """Orders whose final state the engine has not been told, oldest first."""
        return [_standing(row) for row in await self._rows(statements.UNTOLD, {"before": before, "limit": limit})]

    async def told(self, orders: Sequence[Standing]) -> None:
        """The engine has been told the states of these orders, all in one statement."""
        given = {
            "payment_ids": [order.payment_id for order in orders],
            "observations": [order.observation for order in orders],
        }
        await self._row(statements.TOLD, given, rows=False)

    async def _order(self, statement: LiteralString, given: dict[str, Any]) -> StoredOrder | None:
        row = await self._row(statement, given)
        return None if row is None else _stored(row)

    async def _row(
        self, statement: LiteralString, given: dict[str, Any], *, rows: bool = True
    ) -> dict[str, Any] | None:
        found = await self._rows(statement, given, rows=rows)
        return found[0] if found else None

    async def _rows(
        self, statement: LiteralString, given: dict[str, Any], *, rows: bool = True
    ) -> Sequence[dict[str, Any]]:
        async with self._database.connection() as connection:
            done = await connection.execute(statement, given)
            if not rows:
                return ()
            names = [column.name for column in done.description or ()]
            return [dict(zip(names, row, strict=True)) for row in await done.fetchall()]


def _before(state: OrderState | None) -> list[str]:
    return [] if state is None else list(OrderState.before(state))


def _contradicted(state: OrderState | None) -> list[str]:
    return [] if state is None else [other for other in OrderState if state.contradicts(other)]


def _observed(row: dict[str, Any]) -> Observed:
    return Observed(_standing(row), row["moved"], row["conflict"], row["other_id"])


def _stored(row: dict[str, Any]) -> StoredOrder:
    return StoredOrder(
        payment_id=row["payment_id"],
        tenant_id=row["tenant_id"],
        company=row["company"],
        tracking_key=row["tracking_key"],
        amount=row["amount"],
        payee_account=row["payee_account"],
        body=row["body"],
        operation_date=row["operation_date"],
        sending=Sending(row["sending"]),
        sends=row["sends"],
        doubts=row["doubts"],
        claimed_at=row["claimed_at"],
        stp_id=row["stp_id"],
        error_id=row["error_id"],
        error_detail=row["error_detail"],
        state=OrderState(row["state"]),
        cause=row["cause"],
        observation=row["observation"],
        settled_as=row["settled_as"],
        happened_at=row["happened_at"],
        settled_at_stp=row["settled_at_stp"],
        kind=OrderKind(row["kind"]),
    )


def _standing(row: dict[str, Any]) -> Standing:
    return Standing(
        payment_id=row["payment_id"],
        tenant_id=row["tenant_id"],
        sending=Sending(row["sending"]),
        state=OrderState(row["state"]),
        stp_id=row["stp_id"],
        cause=row["cause"],
        observation=row["observation"],
        told=row["told"],
        settled_as=row["settled_as"],
        kind=OrderKind(row["kind"]),
        purpose=OrderPurpose(row["purpose"]),
        happened_at=row["happened_at"],
        settled_at_stp=row["settled_at_stp"],
    )


def _as_claimed(new: NewOrder, operation_date: date, moment: datetime) -> StoredOrder:
    """The row that was just inserted."""
    return StoredOrder(
        payment_id=new.payment_id,
        tenant_id=new.tenant_id,
        company=new.company,
        tracking_key=new.tracking_key,
        amount=new.amount,
        payee_account=new.payee_account,
        body=new.body,
        operation_date=operation_date,
        sending=Sending.CLAIMED,
        sends=1,
        doubts=1,
        claimed_at=moment,
        stp_id=None,
        error_id=None,
        error_detail=None,
        state=OrderState.PENDING,
        cause=None,
        observation=None,
        settled_as=None,
        happened_at=None,
        settled_at_stp=None,
        kind=new.kind,
    )


def _present(order: StoredOrder | None, payment_id: PaymentId) -> StoredOrder:
    if order is None:
        raise LookupError(f"payment {payment_id} has no order")
    return order
