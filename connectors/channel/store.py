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

from psycopg.errors import LockNotAvailable
from pydantic_core import to_json

from connectors.channel.model import PaymentAccepted
from connectors.channel.wire import Transfer
from hub.addresses import Address
from hub.errors import Unavailable
from hub.statements import Statements
from hub.transfer import Outcome, Party, PaymentId, Reason, TenantId
from hub.webhook import Delivery, Told

LOCK_TIMEOUT: Final = "2s"
"""How long a repeated request waits for the first one's commit before it is told 409."""

_ACCEPT: Final = """
    WITH accepted AS (
        INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, client_ref_id, amount, currency,
            payer, payee, concept, reference_number, callback_url, publish_after)
        VALUES (%(id)s, %(tenant_id)s, %(key)s, %(request_hash)s, %(client_ref_id)s, %(amount)s, %(currency)s,
            %(payer)s::jsonb, %(payee)s::jsonb, %(concept)s, %(reference_number)s, %(callback_url)s,
            now() + make_interval(secs => %(lease)s))
        ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
        RETURNING id
    )
    SELECT true, id::text, NULL FROM accepted
    UNION ALL
    SELECT false, id::text, request_hash FROM channel.payment
    WHERE tenant_id = %(tenant_id)s AND idempotency_key = %(key)s
"""
_TRANSFER: Final = """
    SELECT id::text, idempotency_key, client_ref_id, process_instance_key IS NOT NULL, outcome, reason, reason_detail,
        completed_at
    FROM channel.payment
"""
_BY_ID: Final = _TRANSFER + "WHERE id = %(id)s AND tenant_id = %(tenant_id)s"
_PARTIES: Final = "SELECT payer, payee FROM channel.payment WHERE id = %(id)s AND tenant_id = %(tenant_id)s"
_BY_KEY: Final = _TRANSFER + "WHERE tenant_id = %(tenant_id)s AND idempotency_key = %(key)s"
_CLAIM: Final = """
    WITH claimed AS (
        UPDATE channel.payment SET process_instance_key = %(instance)s, claimed_at = coalesce(claimed_at, now())
        WHERE id = %(id)s AND tenant_id = %(tenant_id)s
            AND (process_instance_key IS NULL OR process_instance_key = %(instance)s)
        RETURNING true
    )
    SELECT EXISTS (SELECT FROM claimed),
        EXISTS (SELECT FROM channel.payment WHERE id = %(id)s AND tenant_id = %(tenant_id)s)
"""
_RECORD: Final = """
    WITH recorded AS (
        UPDATE channel.payment SET outcome = %(outcome)s, reason = %(reason)s, reason_detail = %(reason_detail)s,
            outcomes = outcomes + 1, completed_at = CASE WHEN %(final)s THEN now() END
        WHERE id = %(id)s AND tenant_id = %(tenant_id)s
            AND (outcome IS NULL OR (outcome = 'UNKNOWN' AND %(final)s)
                 OR (outcome = 'SETTLED' AND %(outcome)s = 'RETURNED'))
        RETURNING id, tenant_id, outcomes, outcome, reason, reason_detail, callback_url
    ), history AS (
        INSERT INTO channel.payment_outcome (payment_id, sequence, outcome, reason, reason_detail)
        SELECT id, outcomes, outcome, reason, reason_detail FROM recorded
    ), callback AS (
        INSERT INTO channel.callback (payment_id, sequence, tenant_id, url)
        SELECT id, outcomes, tenant_id, callback_url FROM recorded WHERE callback_url IS NOT NULL
    )
    SELECT EXISTS (SELECT FROM recorded), outcome, reason
    FROM channel.payment WHERE id = %(id)s AND tenant_id = %(tenant_id)s
"""
_LEASE: Final = """
    WITH overdue AS MATERIALIZED (
        SELECT id FROM channel.payment WHERE process_instance_key IS NULL AND publish_after <= now()
        ORDER BY publish_after LIMIT %(count)s FOR UPDATE SKIP LOCKED
    )
    UPDATE channel.payment AS p SET publish_after = now() + make_interval(secs => %(lease)s)
    FROM overdue WHERE p.id = overdue.id
    RETURNING p.id::text, tenant_id, amount, currency, payer, payee, concept, reference_number, accepted_at
"""
_SETTLE: Final = """
    WITH marked AS (
        UPDATE channel.payment SET published_at = now(), publish_after = now() + make_interval(secs => %(again)s)
        WHERE id = ANY(%(ids)s::uuid[]) AND process_instance_key IS NULL
        RETURNING id
    )
    SELECT (SELECT count(*) FROM marked) + (
        SELECT count(*) FROM (
            SELECT FROM channel.payment
            WHERE process_instance_key IS NULL AND published_at > now() - make_interval(secs => %(age)s)
                AND NOT id = ANY(%(ids)s::uuid[])
            LIMIT %(most)s
        ) AS waiting
    )
"""
_HAND_BACK: Final = """
    UPDATE channel.payment SET publish_after = now()
    WHERE id = ANY(%(ids)s::uuid[]) AND published_at IS NULL AND process_instance_key IS NULL
"""
_TENANT: Final = "SELECT callback_allow_list, callback_secret IS NOT NULL FROM channel.tenant WHERE id = %(id)s"
_PUT_TENANT: Final = """
    INSERT INTO channel.tenant (id, name, callback_allow_list, callback_secret, stand_in_payments, stand_in_amounts)
    VALUES (%(id)s, %(name)s, %(callback_allow_list)s, %(callback_secret)s, %(stand_in_payments)s,
        %(stand_in_amounts)s::jsonb)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, callback_allow_list = excluded.callback_allow_list,
        callback_secret = excluded.callback_secret, stand_in_payments = excluded.stand_in_payments,
        stand_in_amounts = excluded.stand_in_amounts
    WHERE (tenant.name, tenant.callback_allow_list, tenant.callback_secret, tenant.stand_in_payments,
            tenant.stand_in_amounts)
        IS DISTINCT FROM (excluded.name, excluded.callback_allow_list, excluded.callback_secret,
            excluded.stand_in_payments, excluded.stand_in_amounts)
"""
_DUE: Final = """
    WITH next AS MATERIALIZED (
        SELECT payment_id, sequence FROM channel.callback
        WHERE state = 'DUE' AND next_attempt_at <= now() AND NOT tenant_id = ANY(%(busy)s)
        ORDER BY next_attempt_at LIMIT %(count)s FOR UPDATE SKIP LOCKED
    ), due AS (
        UPDATE channel.callback AS c
        SET attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => %(lease)s)
        FROM next WHERE c.payment_id = next.payment_id AND c.sequence = next.sequence
        RETURNING c.payment_id, c.sequence, c.tenant_id, c.url, c.attempts, c.created_at
    )
    SELECT due.payment_id::text, due.sequence, due.tenant_id, due.url, due.attempts, due.created_at,
        o.outcome, o.reason, o.reason_detail, o.recorded_at, p.idempotency_key, p.client_ref_id,
        t.callback_secret, t.callback_allow_list
    FROM due
    JOIN channel.payment_outcome o USING (payment_id, sequence)
    JOIN channel.payment p ON p.id = due.payment_id
    JOIN channel.tenant t ON t.id = due.tenant_id
"""
_CALLED: Final = """
    UPDATE channel.callback SET state = %(state)s, last_answer = %(answer)s,
        next_attempt_at = now() + make_interval(secs => %(pause)s),
        ended_at = CASE WHEN %(state)s <> 'DUE' THEN now() END
    WHERE payment_id = %(payment_id)s AND sequence = %(sequence)s AND state = 'DUE'
"""


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

    def row(self, lease: float) -> dict[str, Any]:
        """The values of its row; `lease`: seconds in which no other process publishes it."""
        payment = self.payment
        return {
            "id": payment.payment_id,
            "tenant_id": payment.tenant_id,
            "key": self.key,
            "request_hash": self.request_hash,
            "client_ref_id": self.client_ref_id,
            "amount": payment.amount,
            "currency": payment.currency,
            "payer": to_json(payment.payer).decode(),
            "payee": to_json(payment.payee).decode(),
            "concept": payment.concept,
            "reference_number": payment.reference_number,
            "callback_url": self.callback_url,
            "lease": lease,
        }


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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DueCallback(Delivery):
    """An outcome to tell, leased to us for one attempt."""

    transfer: Transfer
    sequence: int
    recorded_at: datetime

    def __repr__(self) -> str:
        return f"DueCallback({self.transfer.payment_id}, {self.sequence})"


class ChannelStore:
    """Payments, outcomes, callbacks and tenants of the schema `channel`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    # --- accepting ---

    async def accept(self, acceptance: Acceptance, lease: float) -> Known | None:
        """Commit a payment, or say which one was accepted under its key before.

        `lease`: seconds in which no other process publishes it. Raises `StillRunning`.
        """
        parameters = acceptance.row(lease)
        for _ in range(2):  # the second time sees what another request committed while the first waited for it
            try:
                found = await self._statements.rows(_ACCEPT, parameters)
            except Unavailable as error:
                if isinstance(error.__cause__, LockNotAvailable):
                    raise StillRunning from None
                raise
            if found:
                accepted, payment_id, request_hash = found[0]
                return None if accepted else Known(PaymentId(payment_id), bytes(request_hash))
        raise StillRunning

    async def find(self, tenant_id: TenantId, payment_id: str) -> Transfer | None:
        """A payment of this tenant."""
        try:
            wanted = UUID(payment_id)
        except ValueError:
            return None
        found = await self._statements.rows(_BY_ID, {"id": wanted, "tenant_id": tenant_id})
        return _transfer(found[0]) if found else None

    async def find_by_key(self, tenant_id: TenantId, key: str) -> Transfer | None:
        """The payment that this tenant handed in under this correlation id."""
        found = await self._statements.rows(_BY_KEY, {"tenant_id": tenant_id, "key": key})
        return _transfer(found[0]) if found else None

    async def parties(self, tenant_id: TenantId, payment_id: str) -> tuple[Party, Party] | None:
        """Payer and payee of a payment of this tenant, as it was handed in."""
        try:
            wanted = UUID(payment_id)
        except ValueError:
            return None
        found = await self._statements.rows(_PARTIES, {"id": wanted, "tenant_id": tenant_id})
        return (Party.model_validate(found[0][0]), Party.model_validate(found[0][1])) if found else None

    # --- handing over to the engine ---

    async def lease_overdue(self, count: int, lease: float) -> list[PaymentAccepted]:
        """Up to `count` payments that nobody has in hand, oldest first; ours for `lease` seconds."""
        found = await self._statements.rows(_LEASE, {"count": count, "lease": lease})
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
        found = await self._statements.rows(_SETTLE, {"ids": list(published), "again": again, "age": age, "most": most})
        return int(found[0][0])

    async def hand_back(self, payments: Sequence[PaymentId]) -> None:
        """Let any relay publish these at once."""
        await self._statements.rows(_HAND_BACK, {"ids": list(payments)})

    # --- jobs ---

    async def claim(self, tenant_id: TenantId, payment_id: PaymentId, instance: int) -> Claim:
        """Make this process instance the one that runs the payment."""
        found = await self._statements.rows(
            _CLAIM, {"id": UUID(payment_id), "tenant_id": tenant_id, "instance": instance}
        )
        granted, exists = found[0]
        if granted:
            return Claim.GRANTED
        return Claim.TAKEN if exists else Claim.NO_PAYMENT

    async def record_outcome(
        self, tenant_id: TenantId, payment_id: PaymentId, outcome: Outcome, reason: Reason, reason_detail: str | None
    ) -> Recorded | None:
        """Write an outcome unless a final one is written; with it its history and, if asked for, its callback.

        Only a settled payment that is returned changes its final outcome (L22). Nothing when the payment is not known.
        """
        parameters = {
            "id": UUID(payment_id),
            "tenant_id": tenant_id,
            "outcome": outcome.value,
            "reason": reason.value,
            "reason_detail": reason_detail,
            "final": outcome.is_final,
        }
        found = await self._statements.rows(_RECORD, parameters)
        if found and not found[0][0] and found[0][1] is None:
            # Somebody wrote one while we waited for the row; this statement still saw the row as it was before.
            found = await self._statements.rows(_RECORD, parameters)
        if not found:
            return None
        changed, before, before_reason = found[0]
        return Recorded(changed, Outcome(before) if before else None, Reason(before_reason) if before_reason else None)

    # --- callbacks ---

    async def lease_callbacks(self, count: int, lease: float, busy: Sequence[str]) -> list[DueCallback]:
        """Up to `count` callbacks whose time has come, none of the `busy` tenants'; ours for `lease` seconds."""
        found = await self._statements.rows(_DUE, {"count": count, "lease": lease, "busy": list(busy)})
        return [_due(row) for row in found]

    async def called(self, due: DueCallback, result: Told) -> None:
        """Note what became of an attempt."""
        await self._statements.rows(
            _CALLED,
            {
                "payment_id": due.transfer.payment_id,
                "sequence": due.sequence,
                "state": result.state.value,
                "answer": result.answer,
                "pause": result.pause,
            },
        )

    # --- tenants ---

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        """A tenant, as far as taking its payments in goes."""
        found = await self._statements.rows(_TENANT, {"id": tenant_id})
        if not found:
            return None
        allow_list, signs = found[0]
        return Tenant(tenant_id, tuple(Address.parse(entry) for entry in allow_list) if signs else ())

    async def put_tenant(
        self,
        tenant_id: TenantId,
        name: str,
        callback_allow_list: Sequence[str],
        callback_secret: str | None,
        *,
        stand_in_payments: int | None = None,
        stand_in_amounts: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """Add a tenant or bring it up to date; repeating it changes nothing.

        `stand_in_payments`: how many may wait while the account system is away, `None` for the setting;
        `stand_in_amounts`: by currency, the most `each` of them and all `together` may be, in minor units.
        """
        await self._statements.rows(
            _PUT_TENANT,
            {
                "id": tenant_id,
                "name": name,
                "callback_allow_list": list(callback_allow_list),
                "callback_secret": callback_secret,
                "stand_in_payments": stand_in_payments,
                "stand_in_amounts": to_json(stand_in_amounts or {}).decode(),
            },
        )


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
    payment_id, sequence, tenant_id, url, attempts, created_at, outcome, reason, reason_detail, recorded_at = row[:10]
    key, client_ref_id, secret, allow_list = row[10:]
    transfer = Transfer(
        payment_id=PaymentId(payment_id),
        correlation_id=key,
        client_ref_id=client_ref_id,
        claimed=True,
        outcome=Outcome(outcome),
        reason=Reason(reason),
        reason_detail=reason_detail,
        completed_at=recorded_at if Outcome(outcome).is_final else None,
    )
    return DueCallback(
        message_id=f"{payment_id}-{sequence}",
        transfer=transfer,
        sequence=sequence,
        recorded_at=recorded_at,
        receiver=tenant_id,
        url=url,
        attempt=attempts,
        created_at=created_at,
        allow_list=tuple(Address.parse(entry) for entry in allow_list),
        secret=secret,
    )
