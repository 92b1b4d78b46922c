"""The tables of actions. What belongs together is one transaction, with the operator log's row last in it.

All raise `hub.errors.Unavailable` when the database is away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from hub.failpoint import failpoint
from hub.money import Money
from hub.statements import Statements
from hub.transfer import PaymentId, TenantId
from operations_app.actions.model import GIVING_BACK, Kind, State
from operations_app.actions.policy import DEFAULT, Policy
from operations_app.actions.possible import Asked, AskedMoney, Plan

Connection = AsyncConnection[Any]

_COLUMNS: Final = (
    "id::text, tenant_id, payment_id, kind, state, reason_code, reason, asked, plan, amount, currency, "
    "approvals_needed, requested_by, requested_at, expires_at, request_hash, linked_payment_id, answer, code, detail, "
    "tried_at, carried_out_at, confirm_by, ended_at, expires_at <= now(), confirm_by <= now()"
)
_FIND: Final[LiteralString] = f"SELECT {_COLUMNS} FROM operations.action WHERE id = %(id)s AND tenant_id = %(tenant)s"  # noqa: S608
_LOCK: Final[LiteralString] = f"{_FIND} FOR UPDATE"
_BY_KEY: Final[LiteralString] = (
    f"SELECT {_COLUMNS} FROM operations.action WHERE tenant_id = %(tenant)s AND requested_by = %(actor)s "  # noqa: S608
    "AND idempotency_key = %(key)s"
)
_OPEN_REPAIR: Final = (
    "SELECT id::text FROM operations.action WHERE tenant_id = %(tenant)s AND payment_id = %(payment)s "
    "AND ended_at IS NULL AND kind NOT IN ('recall', 'refund')"
)
_INSERT: Final = """
    INSERT INTO operations.action (id, tenant_id, payment_id, kind, state, reason_code, reason, asked, plan, amount,
        currency, approvals_needed, requested_by, expires_at, idempotency_key, request_hash, linked_payment_id)
    VALUES (%(id)s, %(tenant)s, %(payment)s, %(kind)s, %(state)s, %(reason_code)s, %(reason)s, %(asked)s, %(plan)s,
        %(amount)s, %(currency)s, %(approvals)s, %(actor)s, now() + make_interval(secs => %(expires)s), %(key)s,
        %(hash)s, %(linked)s)
"""
_MOVE: Final = """
    UPDATE operations.action SET state = %(state)s, code = %(code)s, detail = %(detail)s,
        ended_at = CASE WHEN %(ended)s THEN now() END
    WHERE id = %(id)s
"""
_TRY: Final = """
    UPDATE operations.action SET state = 'CARRYING_OUT', plan = %(plan)s, tried_at = now(),
        confirm_by = now() + make_interval(secs => %(within)s)
    WHERE id = %(id)s
"""
_CARRIED: Final = "UPDATE operations.action SET carried_out_at = now() WHERE id = %(id)s"
_ANSWER: Final = "UPDATE operations.action SET answer = %(answer)s WHERE id = %(id)s"
_APPROVE: Final = """
    INSERT INTO operations.approval (action_id, requested_by, approver, approves, note)
    VALUES (%(id)s, %(requested_by)s, %(approver)s, %(approves)s, %(note)s)
"""
_APPROVALS: Final = """
    SELECT approver, approves, note, at FROM operations.approval WHERE action_id = %(id)s ORDER BY at
"""
_POST: Final = "INSERT INTO operations.action_outbox (action_id, message) VALUES (%(id)s, %(message)s)"
_TAKE: Final = """
    INSERT INTO operations.given_back (tenant_id, payment_id, currency, original, taken)
    VALUES (%(tenant)s, %(payment)s, %(currency)s, %(original)s, 0) ON CONFLICT DO NOTHING
"""
_SET: Final = """
    UPDATE operations.given_back SET taken = %(taken)s
    WHERE tenant_id = %(tenant)s AND payment_id = %(payment)s AND %(taken)s <= original
    RETURNING taken
"""
_GIVE: Final = """
    UPDATE operations.given_back SET taken = taken - %(amount)s
    WHERE tenant_id = %(tenant)s AND payment_id = %(payment)s
"""
# What recalls and refunds of a payment took and may still take. A linked payment that was returned gave nothing back,
# and one that nobody saw settle in time took its money unless the channel knows better by now.
_TAKEN: Final = """
    SELECT coalesce(sum(a.amount), 0)::bigint FROM operations.action a
      LEFT JOIN channel.payment p ON p.tenant_id = a.tenant_id AND p.id = a.linked_payment_id::uuid
     WHERE a.tenant_id = %(tenant)s AND a.payment_id = %(payment)s AND a.kind IN ('recall', 'refund')
       AND (a.ended_at IS NULL OR (a.state = 'CONFIRMED' AND p.outcome IS DISTINCT FROM 'RETURNED')
        OR (a.state = 'FAILED' AND a.code = 'unconfirmed' AND a.linked_payment_id IS NOT NULL
            AND coalesce(p.outcome, 'UNKNOWN') IN ('UNKNOWN', 'SETTLED')))
"""
_TAKE_TURN: Final = """
    SELECT FROM operations.given_back WHERE tenant_id = %(tenant)s AND payment_id = %(payment)s FOR UPDATE
"""
_LEASE: Final = """
    WITH due AS MATERIALIZED (
        SELECT id FROM operations.action_outbox WHERE published_at IS NULL AND publish_after <= now()
        ORDER BY id LIMIT %(count)s FOR UPDATE SKIP LOCKED
    ), leased AS (
        UPDATE operations.action_outbox o SET publish_after = now() + make_interval(secs => %(lease)s)
        FROM due WHERE o.id = due.id RETURNING o.id, o.action_id, o.message
    )
    SELECT l.id, l.message, a.id::text, a.tenant_id, a.payment_id, a.kind, a.approvals_needed, a.state,
        extract(epoch FROM a.expires_at - now())::float8
    FROM leased l JOIN operations.action a ON a.id = l.action_id ORDER BY l.id
"""
_PUBLISHED: Final = "UPDATE operations.action_outbox SET published_at = now() WHERE id = %(id)s"
_LINKED: Final = """
    SELECT id::text, kind, state, payment_id, linked_payment_id, amount, currency FROM operations.action
    WHERE tenant_id = %(tenant)s AND linked_payment_id IS NOT NULL
        AND (payment_id = %(payment)s OR linked_payment_id = %(payment)s)
    ORDER BY requested_at
"""
_POLICY: Final[LiteralString] = "SELECT version, rules FROM operations.policy WHERE tenant_id = %(tenant)s"
_POLICY_FOR_CHANGE: Final[LiteralString] = f"{_POLICY} FOR UPDATE"
_PUT_POLICY: Final = """
    INSERT INTO operations.policy AS p (tenant_id, version, rules, changed_by)
    VALUES (%(tenant)s, 1, %(rules)s, %(actor)s)
    ON CONFLICT (tenant_id) DO UPDATE
        SET version = p.version + 1, rules = excluded.rules, changed_by = excluded.changed_by, changed_at = now()
    RETURNING version
"""
_LISTS: Final[Mapping[str, LiteralString]] = {
    "all": "true",
    "waiting": (
        "state = 'REQUESTED' AND expires_at > now() AND requested_by <> %(actor)s AND NOT EXISTS "
        "(SELECT FROM operations.approval p WHERE p.action_id = action.id AND p.approver = %(actor)s)"
    ),
    "mine": "requested_by = %(actor)s",
    "decided": "EXISTS (SELECT FROM operations.approval p WHERE p.action_id = action.id AND p.approver = %(actor)s)",
}


@dataclass(frozen=True, slots=True)
class Action:
    """An action as its row has it."""

    id: str
    tenant_id: TenantId
    payment_id: PaymentId
    kind: Kind
    state: State
    reason_code: str
    reason: str
    asked: Asked
    plan: Plan
    amount: int
    """Minor units that it is about."""
    currency: str
    approvals_needed: int
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    request_hash: bytes
    linked_payment_id: PaymentId | None
    answer: str | None
    code: str | None
    """Why it failed, for machines."""
    detail: str | None
    tried_at: datetime | None
    carried_out_at: datetime | None
    confirm_by: datetime | None
    ended_at: datetime | None
    expired: bool
    """Whether the time for approvals is over."""
    too_late: bool
    """Whether the time for its confirmation is over."""

    @property
    def asked_again(self) -> Asked:
        """As `asked`, with the money as it was counted then: all that was left may be more or less by now."""
        if self.kind not in GIVING_BACK:
            return self.asked
        money = Money(self.amount, self.currency)
        return Asked(money=AskedMoney(amount=money.decimal(), currency=money.currency))


@dataclass(frozen=True, slots=True)
class Approval:
    """What an approver said."""

    approver: str
    approves: bool
    note: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class NewAction:
    """An action about to be committed."""

    id: str
    tenant_id: TenantId
    payment_id: PaymentId
    kind: Kind
    reason_code: str
    reason: str
    asked: Asked
    plan: Plan
    original: int
    """Minor units of the whole payment."""
    approvals_needed: int
    actor: str
    key: str
    request_hash: bytes
    expires: float
    """Seconds in which it has to be approved."""
    linked_payment_id: PaymentId | None


@dataclass(frozen=True, slots=True)
class Due:
    """A message that the engine has to be given."""

    id: int
    message: str
    action_id: str
    tenant_id: TenantId
    payment_id: PaymentId
    kind: Kind
    approvals_needed: int
    state: State
    expires_in: float


@dataclass(frozen=True, slots=True)
class Link:
    """One payment that gives another one's money back, wholly or in part."""

    action_id: str
    kind: Kind
    state: State
    payment_id: PaymentId
    linked_payment_id: PaymentId
    amount: int
    currency: str


class RepairUnderWay(Exception):
    """Another action repairs this payment just now."""

    def __init__(self, action_id: str) -> None:
        self.action_id = action_id
        super().__init__(action_id)


class MoreThanLeft(Exception):
    """Recalls and refunds together would come to more than the payment."""


class ActionStore:
    """Actions, approvals, policies and the outbox of the schema `operations`."""

    def __init__(self, database: Statements) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction."""
        async with self._database.connection() as connection, connection.transaction():
            yield connection

    # --- reading ---

    async def find(self, tenant_id: TenantId, action_id: str) -> Action | None:
        """An action of this tenant."""
        if (wanted := _uuid(action_id)) is None:
            return None
        rows = await self._database.rows(_FIND, {"id": wanted, "tenant": tenant_id})
        return _action(rows[0]) if rows else None

    async def by_key(self, tenant_id: TenantId, actor: str, key: str) -> Action | None:
        """The action that this actor asked for under this idempotency key."""
        rows = await self._database.rows(_BY_KEY, {"tenant": tenant_id, "actor": actor, "key": key})
        return _action(rows[0]) if rows else None

    async def open_repair(self, tenant_id: TenantId, payment_id: str) -> str | None:
        """The action that repairs this payment just now."""
        rows = await self._database.rows(_OPEN_REPAIR, {"tenant": tenant_id, "payment": payment_id})
        return str(rows[0][0]) if rows else None

    async def approvals(self, action_id: str) -> list[Approval]:
        """What approvers said, in order."""
        return [Approval(*row) for row in await self._database.rows(_APPROVALS, {"id": action_id})]

    async def given_back(self, tenant_id: TenantId, payment_id: str) -> int:
        """Minor units of a payment that recalls and refunds took, or still may."""
        rows = await self._database.rows(_TAKEN, {"tenant": tenant_id, "payment": payment_id})
        return int(rows[0][0])

    async def links(self, tenant_id: TenantId, payment_id: str) -> list[Link]:
        """The payments that give this one's money back, and the one whose money this gives back."""
        rows = await self._database.rows(_LINKED, {"tenant": tenant_id, "payment": payment_id})
        return [
            Link(row[0], Kind(row[1]), State(row[2]), PaymentId(row[3]), PaymentId(row[4]), row[5], row[6])
            for row in rows
        ]

    async def listed(
        self,
        tenant_id: TenantId,
        actor: str,
        which: str,
        *,
        payment_id: str | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Action]:
        """Actions, newest first, behind the one of this time and id."""
        given: dict[str, Any] = {"tenant": tenant_id, "actor": actor, "limit": limit, "payment": payment_id}
        given |= {"at": after[0] if after else None, "id": after[1] if after else None}
        statement: LiteralString = (
            f"SELECT {_COLUMNS} FROM operations.action WHERE tenant_id = %(tenant)s AND {_LISTS[which]} "  # noqa: S608
            "AND (CAST(%(payment)s AS text) IS NULL OR payment_id = %(payment)s) "
            "AND (CAST(%(at)s AS timestamptz) IS NULL OR (requested_at, id) < (%(at)s, CAST(%(id)s AS uuid))) "
            "ORDER BY requested_at DESC, id DESC LIMIT %(limit)s"
        )
        return [_action(row) for row in await self._database.rows(statement, given)]

    # --- within a transaction ---

    async def lock(self, connection: Connection, tenant_id: TenantId, action_id: str) -> Action | None:
        """An action, kept from others until the transaction ends."""
        if (wanted := _uuid(action_id)) is None:
            return None
        done = await connection.execute(_LOCK, {"id": wanted, "tenant": tenant_id})
        row = await done.fetchone()
        return _action(row) if row else None

    async def insert(self, connection: Connection, new: NewAction) -> None:
        """Write a request, its message for the engine, and what it takes of the payment's money.

        Raises `RepairUnderWay`, `MoreThanLeft`, and `UniqueViolation` for a key that was used before.
        """
        plan = new.plan
        state = State.REQUESTED if new.approvals_needed else State.APPROVED
        values = {
            "id": new.id,
            "tenant": new.tenant_id,
            "payment": new.payment_id,
            "kind": new.kind.value,
            "state": state.value,
            "reason_code": new.reason_code,
            "reason": new.reason,
            "asked": Jsonb(new.asked.model_dump(mode="json")),
            "plan": Jsonb(plan.model_dump(mode="json")),
            "amount": plan.amount,
            "currency": plan.currency,
            "approvals": new.approvals_needed,
            "actor": new.actor,
            "expires": new.expires,
            "key": new.key,
            "hash": new.request_hash,
            "linked": new.linked_payment_id,
        }
        try:
            async with connection.transaction():
                await connection.execute(_INSERT, values)
        except UniqueViolation as error:
            if error.diag.constraint_name != "action_one_repair_at_a_time":
                raise
            rows = await (await connection.execute(_OPEN_REPAIR, values)).fetchall()
            raise RepairUnderWay(rows[0][0] if rows else "") from None
        if new.kind in GIVING_BACK:
            await connection.execute(_TAKE, values | {"original": new.original})
            await connection.execute(_TAKE_TURN, values)
            ((taken,),) = await (await connection.execute(_TAKEN, values)).fetchall()  # with this one
            if await (await connection.execute(_SET, values | {"taken": taken})).fetchone() is None:
                raise MoreThanLeft
        await self.post(connection, new.id, "requested")

    async def post(self, connection: Connection, action_id: str, message: str) -> None:
        """Leave a message for the engine."""
        await connection.execute(_POST, {"id": action_id, "message": message})

    async def move(
        self, connection: Connection, action: Action, state: State, code: str | None = None, detail: str | None = None
    ) -> None:
        """Bring an action into another state."""
        values = {"id": action.id, "state": state.value, "code": code, "detail": detail, "ended": state.is_final}
        await connection.execute(_MOVE, values)

    async def begin(self, connection: Connection, action: Action, plan: Plan, within: float) -> None:
        """Commands may reach the engine from now on; it has to be seen done within so many seconds."""
        await connection.execute(_TRY, {"id": action.id, "plan": Jsonb(plan.model_dump(mode="json")), "within": within})

    async def carried_out(self, action_id: str) -> None:
        """All commands were given."""
        await self._database.rows(_CARRIED, {"id": action_id})

    async def answer(self, connection: Connection, action: Action, answer: str) -> None:
        """Note what came of a recall."""
        await connection.execute(_ANSWER, {"id": action.id, "answer": answer})

    async def say(self, connection: Connection, action: Action, approver: str, note: str | None, *, yes: bool) -> int:
        """Write what an approver says, and count who approved. Raises `UniqueViolation` when they said it before."""
        values = {
            "id": action.id,
            "requested_by": action.requested_by,
            "approver": approver,
            "approves": yes,
            "note": note,
        }
        async with connection.transaction():
            await connection.execute(_APPROVE, values)
        rows = await (await connection.execute(_APPROVALS, {"id": action.id})).fetchall()
        return sum(1 for row in rows if row[1])

    async def give(self, connection: Connection, action: Action) -> None:
        """What a recall or refund took of its payment's money is free again."""
        if action.kind in GIVING_BACK:
            values = {"tenant": action.tenant_id, "payment": action.payment_id, "amount": action.amount}
            await connection.execute(_GIVE, values)

    # --- outbox ---

    async def lease(self, count: int, lease: float) -> list[Due]:
        """Messages that the engine was not given yet; ours for `lease` seconds."""
        rows = await self._database.rows(_LEASE, {"count": count, "lease": lease})
        failpoint("operations.actions.after-lease")
        return [
            Due(
                row[0], row[1], row[2], TenantId(row[3]), PaymentId(row[4]), Kind(row[5]), row[6], State(row[7]), row[8]
            )
            for row in rows
        ]

    async def published(self, due: Due) -> None:
        """The engine has it."""
        await self._database.rows(_PUBLISHED, {"id": due.id})

    # --- policies ---

    async def policy(self, tenant_id: TenantId) -> tuple[int, Policy]:
        """A tenant's rules and their version; version 0 are the defaults."""
        rows = await self._database.rows(_POLICY, {"tenant": tenant_id})
        return (rows[0][0], Policy.model_validate({"rules": rows[0][1]})) if rows else (0, DEFAULT)

    async def policy_for_change(self, connection: Connection, tenant_id: TenantId) -> tuple[int, Policy]:
        """As `policy`, kept from others until the transaction ends."""
        row = await (await connection.execute(_POLICY_FOR_CHANGE, {"tenant": tenant_id})).fetchone()
        return (row[0], Policy.model_validate({"rules": row[1]})) if row else (0, DEFAULT)

    async def put_policy(
        self, connection: Connection, tenant_id: TenantId, actor: str, rules: Sequence[Mapping[str, Any]]
    ) -> int:
        """Replace a tenant's rules; returns the new version."""
        values = {"tenant": tenant_id, "actor": actor, "rules": Jsonb(list(rules))}
        row = await (await connection.execute(_PUT_POLICY, values)).fetchone()
        return int(row[0]) if row else 0


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _action(row: Sequence[Any]) -> Action:
    return Action(
        id=row[0],
        tenant_id=TenantId(row[1]),
        payment_id=PaymentId(row[2]),
        kind=Kind(row[3]),
        state=State(row[4]),
        reason_code=row[5],
        reason=row[6],
        asked=Asked.model_validate(row[7]),
        plan=Plan.model_validate(row[8]),
        amount=row[9],
        currency=row[10],
        approvals_needed=row[11],
        requested_by=row[12],
        requested_at=row[13],
        expires_at=row[14],
        request_hash=bytes(row[15]),
        linked_payment_id=None if row[16] is None else PaymentId(row[16]),
        answer=row[17],
        code=row[18],
        detail=row[19],
        tried_at=row[20],
        carried_out_at=row[21],
        confirm_by=row[22],
        ended_at=row[23],
        expired=bool(row[24]),
        too_late=bool(row[25]),
    )
