"""The channel's tables. Each method is one statement and one round trip; each may be repeated without harm.

All raise `hub.errors.Unavailable` when the database is away, in which case nothing was done or repeating is safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any, Final
from uuid import UUID

import psycopg
from pydantic_core import to_json
from sqlalchemy import TextClause, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from connectors.channel.addresses import Address
from connectors.channel.model import PaymentAccepted
from connectors.channel.wire import Transfer
from hub.database import autocommit, database_errors
from hub.transfer import Outcome, Party, PaymentId, Reason, TenantId

LOCK_TIMEOUT: Final = "2s"
"""How long a repeated request waits for the first one's commit before it is told 409."""

_ACCEPT: Final = text(
    """
    INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, client_ref_id, amount, currency, payer,
        payee, concept, reference_number, callback_url, publish_after)
    VALUES (:id, :tenant_id, :key, :request_hash, :client_ref_id, :amount, :currency, CAST(:payer AS jsonb),
        CAST(:payee AS jsonb), :concept, :reference_number, :callback_url, now() + make_interval(secs => :lease))
    ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
    RETURNING true
    """
)
_FIRST: Final = text(
    "SELECT CAST(id AS text), request_hash FROM channel.payment WHERE tenant_id = :tenant_id AND idempotency_key = :key"
)
_TRANSFER: Final = """
    CAST(id AS text), idempotency_key, client_ref_id, process_instance_key IS NOT NULL, outcome, reason, reason_detail,
    completed_at
"""
_BY_ID: Final = text(f"SELECT {_TRANSFER} FROM channel.payment WHERE id = :id AND tenant_id = :tenant_id")  # noqa: S608
_BY_KEY: Final = text(
    f"SELECT {_TRANSFER} FROM channel.payment WHERE tenant_id = :tenant_id AND idempotency_key = :key"  # noqa: S608
)
_CLAIM: Final = text(
    """
    WITH claimed AS (
        UPDATE channel.payment SET process_instance_key = :instance, claimed_at = coalesce(claimed_at, now())
        WHERE id = :id AND tenant_id = :tenant_id
            AND (process_instance_key IS NULL OR process_instance_key = :instance)
        RETURNING true
    )
    SELECT EXISTS (SELECT FROM claimed), EXISTS (SELECT FROM channel.payment WHERE id = :id AND tenant_id = :tenant_id)
    """
)
_RECORD: Final = text(
    """
    WITH recorded AS (
        UPDATE channel.payment SET outcome = :outcome, reason = :reason, reason_detail = :reason_detail,
            outcomes = outcomes + 1, completed_at = CASE WHEN :final THEN now() END
        WHERE id = :id AND tenant_id = :tenant_id
            AND (outcome IS NULL OR (outcome = 'UNKNOWN' AND :final))
        RETURNING id, tenant_id, outcomes, callback_url
    ), history AS (
        INSERT INTO channel.payment_outcome (payment_id, sequence, outcome, reason, reason_detail)
        SELECT id, outcomes, :outcome, :reason, :reason_detail FROM recorded
    ), callback AS (
        INSERT INTO channel.callback (payment_id, sequence, tenant_id, url)
        SELECT id, outcomes, tenant_id, callback_url FROM recorded WHERE callback_url IS NOT NULL
    )
    SELECT EXISTS (SELECT FROM recorded), outcome, reason FROM channel.payment WHERE id = :id AND tenant_id = :tenant_id
    """
)
_LEASE: Final = text(
    """
    UPDATE channel.payment SET publish_after = now() + make_interval(secs => :lease)
    WHERE id IN (
        SELECT id FROM channel.payment WHERE process_instance_key IS NULL AND publish_after <= now()
        ORDER BY publish_after LIMIT :count FOR UPDATE SKIP LOCKED
    )
    RETURNING CAST(id AS text), tenant_id, amount, currency, payer, payee, concept, reference_number, accepted_at
    """
)
_SETTLE: Final = text(
    """
    WITH marked AS (
        UPDATE channel.payment SET published_at = now(), publish_after = now() + make_interval(secs => :again)
        WHERE id = ANY(CAST(:ids AS uuid[])) AND process_instance_key IS NULL
        RETURNING id
    )
    SELECT (SELECT count(*) FROM marked) + (
        SELECT count(*) FROM (
            SELECT FROM channel.payment
            WHERE process_instance_key IS NULL AND published_at > now() - make_interval(secs => :age)
                AND NOT id = ANY(CAST(:ids AS uuid[]))
            LIMIT :most
        ) AS waiting
    )
    """
)
_HAND_BACK: Final = text(
    "UPDATE channel.payment SET publish_after = now() WHERE id = ANY(CAST(:ids AS uuid[])) AND published_at IS NULL"
    " AND process_instance_key IS NULL"
)
_TENANT: Final = text("SELECT callback_allow_list, callback_secret IS NOT NULL FROM channel.tenant WHERE id = :id")
_PUT_TENANT: Final = text(
    """
    INSERT INTO channel.tenant (id, name, callback_allow_list, callback_secret)
    VALUES (:id, :name, :callback_allow_list, :callback_secret)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, callback_allow_list = excluded.callback_allow_list,
        callback_secret = excluded.callback_secret
    WHERE (tenant.name, tenant.callback_allow_list, tenant.callback_secret)
        IS DISTINCT FROM (excluded.name, excluded.callback_allow_list, excluded.callback_secret)
    """
)
_DUE: Final = text(
    """
    WITH due AS (
        UPDATE channel.callback SET attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => :lease)
        WHERE (payment_id, sequence) IN (
            SELECT payment_id, sequence FROM channel.callback
            WHERE state = 'DUE' AND next_attempt_at <= now() AND NOT tenant_id = ANY(:busy)
            ORDER BY next_attempt_at LIMIT :count FOR UPDATE SKIP LOCKED
        )
        RETURNING payment_id, sequence, tenant_id, url, attempts, created_at
    )
    SELECT CAST(due.payment_id AS text), due.sequence, due.tenant_id, due.url, due.attempts, due.created_at,
        o.outcome, o.reason, o.reason_detail, o.recorded_at, p.idempotency_key, p.client_ref_id,
        t.callback_secret, t.callback_allow_list
    FROM due
    JOIN channel.payment_outcome o USING (payment_id, sequence)
    JOIN channel.payment p ON p.id = due.payment_id
    JOIN channel.tenant t ON t.id = due.tenant_id
    """
)
_CALLED: Final = text(
    """
    UPDATE channel.callback SET state = :state, last_answer = :answer,
        next_attempt_at = now() + make_interval(secs => :pause), ended_at = CASE WHEN :state <> 'DUE' THEN now() END
    WHERE payment_id = CAST(:payment_id AS uuid) AND sequence = :sequence AND state = 'DUE'
    """
)


@dataclass(frozen=True, slots=True)
class Tenant:
    """What the channel needs to know of a tenant to take its payments in."""

    id: TenantId
    callbacks: tuple[Address, ...]
    """Where its outcome callbacks may go; empty when it has no secret to sign them with."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A payment about to be accepted, with what came along in headers."""

    payment: PaymentAccepted
    key: str
    request_hash: bytes
    client_ref_id: str | None
    callback_url: str | None


@dataclass(frozen=True, slots=True)
class Known:
    """The payment that was accepted under this key before."""

    payment_id: PaymentId
    request_hash: bytes


class StillRunning(Exception):
    """Another request with this key has not ended."""


class Claim(Enum):
    """What became of an attempt to claim a payment."""

    GRANTED = auto()
    TAKEN = auto()
    NO_PAYMENT = auto()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is written of a payment after an attempt to record its outcome."""

    changed: bool
    before: Outcome | None
    before_reason: Reason | None


@dataclass(frozen=True, slots=True)
class DueCallback:
    """An outcome to tell, leased to us for one attempt."""

    transfer: Transfer
    sequence: int
    recorded_at: datetime
    tenant_id: TenantId
    url: str
    attempt: int
    created_at: datetime
    allow_list: tuple[Address, ...]
    secret: str | None

    def __repr__(self) -> str:
        return f"DueCallback({self.transfer.payment_id}, {self.sequence})"


class CallbackState(Enum):
    """How a callback stands."""

    DUE = "DUE"
    DELIVERED = "DELIVERED"
    REFUSED = "REFUSED"
    GIVEN_UP = "GIVEN_UP"


def bounded(url: str) -> str:
    """The database URL with limits on waiting: for a lock, which a repeated request takes as 409, and altogether."""
    given = make_url(url)
    limits = f"-c lock_timeout={LOCK_TIMEOUT} -c statement_timeout=10s"
    if "options" in given.query:
        limits = f"{limits} {given.query['options']}"
    return given.update_query_dict({"options": limits}).render_as_string(hide_password=False)


class ChannelStore:
    """Payments, outcomes, callbacks and tenants of the schema `channel`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = autocommit(engine)

    async def _rows(self, statement: TextClause, parameters: Mapping[str, Any]) -> Sequence[Any]:
        with database_errors():
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, parameters)).all()

    async def _run(self, statement: TextClause, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        with database_errors():
            async with self._engine.connect() as connection:
                await connection.execute(statement, parameters)

    # --- accepting ---

    async def accept(self, acceptance: Acceptance, lease: float) -> Known | None:
        """Commit a payment, or say which one was accepted under its key before.

        `lease`: seconds in which no other process publishes it. Raises `StillRunning`.
        """
        payment = acceptance.payment
        parameters = {
            "id": payment.payment_id,
            "tenant_id": payment.tenant_id,
            "key": acceptance.key,
            "request_hash": acceptance.request_hash,
            "client_ref_id": acceptance.client_ref_id,
            "amount": payment.amount,
            "currency": payment.currency,
            "payer": to_json(payment.payer).decode(),
            "payee": to_json(payment.payee).decode(),
            "concept": payment.concept,
            "reference_number": payment.reference_number,
            "callback_url": acceptance.callback_url,
            "lease": lease,
        }
        try:
            if await self._rows(_ACCEPT, parameters):
                return None
        except Exception as error:
            if _waited_for_a_lock(error):
                raise StillRunning from None
            raise
        found = await self._rows(_FIRST, {"tenant_id": payment.tenant_id, "key": acceptance.key})
        return Known(PaymentId(found[0][0]), bytes(found[0][1]))

    async def find(self, tenant_id: TenantId, payment_id: str) -> Transfer | None:
        """A payment of this tenant."""
        try:
            wanted = UUID(payment_id)
        except ValueError:
            return None
        found = await self._rows(_BY_ID, {"id": wanted, "tenant_id": tenant_id})
        return _transfer(found[0]) if found else None

    async def find_by_key(self, tenant_id: TenantId, key: str) -> Transfer | None:
        """The payment that this tenant handed in under this correlation id."""
        found = await self._rows(_BY_KEY, {"tenant_id": tenant_id, "key": key})
        return _transfer(found[0]) if found else None

    # --- handing over to the engine ---

    async def lease_overdue(self, count: int, lease: float) -> list[PaymentAccepted]:
        """Up to `count` payments that nobody has in hand, oldest first; ours for `lease` seconds."""
        found = await self._rows(_LEASE, {"count": count, "lease": lease})
        return [
            PaymentAccepted(
                payment_id=row[0],
                tenant_id=row[1],
                amount=row[2],
                currency=row[3],
                payer=Party.model_validate(row[4]),
                payee=Party.model_validate(row[5]),
                concept=row[6],
                reference_number=row[7],
            )
            for row in sorted(found, key=lambda row: (row[8], row[0]))
        ]

    async def settle(self, published: Sequence[PaymentId], again: float, age: float, most: int) -> int:
        """Note what the engine was given, and count what it was given and has not begun.

        `again`: seconds until these are published again if they are not begun; `age`: those given longer ago do not
        count; `most`: it is enough to count so far.
        """
        found = await self._rows(_SETTLE, {"ids": list(published), "again": again, "age": age, "most": most})
        return int(found[0][0])

    async def hand_back(self, payments: Sequence[PaymentId]) -> None:
        """Let any relay publish these at once."""
        await self._run(_HAND_BACK, {"ids": list(payments)})

    # --- jobs ---

    async def claim(self, tenant_id: TenantId, payment_id: PaymentId, instance: int) -> Claim:
        """Make this process instance the one that runs the payment."""
        found = await self._rows(_CLAIM, {"id": UUID(payment_id), "tenant_id": tenant_id, "instance": instance})
        granted, exists = found[0]
        if granted:
            return Claim.GRANTED
        return Claim.TAKEN if exists else Claim.NO_PAYMENT

    async def record_outcome(
        self, tenant_id: TenantId, payment_id: PaymentId, outcome: Outcome, reason: Reason, reason_detail: str | None
    ) -> Recorded | None:
        """Write an outcome unless a final one is written; with it its history and, if asked for, its callback.

        Nothing when the payment is not known.
        """
        parameters = {
            "id": UUID(payment_id),
            "tenant_id": tenant_id,
            "outcome": outcome.value,
            "reason": reason.value,
            "reason_detail": reason_detail,
            "final": outcome.is_final,
        }
        found = await self._rows(_RECORD, parameters)
        if found and not found[0][0] and found[0][1] is None:
            # Somebody wrote one while we waited for the row; this statement still saw the row as it was before.
            found = await self._rows(_RECORD, parameters)
        if not found:
            return None
        changed, before, before_reason = found[0]
        return Recorded(changed, Outcome(before) if before else None, Reason(before_reason) if before_reason else None)

    # --- callbacks ---

    async def lease_callbacks(self, count: int, lease: float, busy: Sequence[TenantId]) -> list[DueCallback]:
        """Up to `count` callbacks whose time has come, none of the `busy` tenants'; ours for `lease` seconds."""
        found = await self._rows(_DUE, {"count": count, "lease": lease, "busy": list(busy)})
        return [_due(row) for row in found]

    async def called(self, due: DueCallback, state: CallbackState, answer: str, pause: float) -> None:
        """Note what became of an attempt; the next comes in `pause` seconds when it is still due."""
        await self._run(
            _CALLED,
            {
                "payment_id": due.transfer.payment_id,
                "sequence": due.sequence,
                "state": state.value,
                "answer": answer,
                "pause": pause,
            },
        )

    # --- tenants ---

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        """A tenant, as far as taking its payments in goes."""
        found = await self._rows(_TENANT, {"id": tenant_id})
        if not found:
            return None
        allow_list, signs = found[0]
        return Tenant(tenant_id, tuple(Address.parse(entry) for entry in allow_list) if signs else ())

    async def put_tenant(
        self, tenant_id: TenantId, name: str, callback_allow_list: Sequence[str], callback_secret: str | None
    ) -> None:
        """Add a tenant or bring it up to date; repeating it changes nothing."""
        await self._run(
            _PUT_TENANT,
            {
                "id": tenant_id,
                "name": name,
                "callback_allow_list": list(callback_allow_list),
                "callback_secret": callback_secret,
            },
        )


def _waited_for_a_lock(error: BaseException) -> bool:
    cause = error.__cause__ or error
    return isinstance(cause, OperationalError) and isinstance(cause.orig, psycopg.errors.LockNotAvailable)


def _transfer(row: Any) -> Transfer:
    payment_id, key, client_ref_id, claimed, outcome, reason, reason_detail, completed_at = row
    return Transfer(
        payment_id=PaymentId(payment_id),
        correlation_id=key,
        client_ref_id=client_ref_id,
        claimed=claimed,
        outcome=Outcome(outcome) if outcome else None,
        reason=Reason(reason) if reason else None,
        reason_detail=reason_detail,
        completed_at=completed_at,
    )


def _due(row: Any) -> DueCallback:
    outcome = Outcome(row.outcome)
    transfer = Transfer(
        payment_id=PaymentId(row[0]),
        correlation_id=row.idempotency_key,
        client_ref_id=row.client_ref_id,
        claimed=True,
        outcome=outcome,
        reason=Reason(row.reason),
        reason_detail=row.reason_detail,
        completed_at=row.recorded_at if outcome.is_final else None,
    )
    return DueCallback(
        transfer=transfer,
        sequence=row.sequence,
        recorded_at=row.recorded_at,
        tenant_id=TenantId(row.tenant_id),
        url=row.url,
        attempt=row.attempts,
        created_at=row.created_at,
        allow_list=tuple(Address.parse(entry) for entry in row.callback_allow_list),
        secret=row.callback_secret,
    )
