"""The tables of bulk operations. What belongs together is one transaction, the operator log's row last in it.

Workers share by leases: an item belongs to whoever took it until its time is over, then to anybody. All of them keep
one rate per operation, since the time at which the next item may begin is in its row. Raises `Unavailable`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from hub.failpoint import failpoint
from hub.statements import Statements
from hub.transfer import PaymentId, TenantId
from operations_app.bulk.model import Bulk, BulkRequest, BulkState, Chosen, Item, ItemRow, ItemState

Connection = AsyncConnection[Any]

LEASE: Final = 30.0
"""Seconds for which an item belongs to the worker that took it."""

_COUNTS: Final = (
    "coalesce((SELECT jsonb_object_agg(s.state, s.n) FROM (SELECT state, count(*) AS n FROM operations.bulk_item i "
    "WHERE i.bulk_id = b.id GROUP BY state) s), '{}')"
)
_BULK: Final[LiteralString] = (
    "SELECT b.id::text, b.tenant_id, b.kind, b.asked, b.selection, b.reason_code, b.reason, b.dry_run, b.per_second, "  # noqa: S608
    "b.at_once, b.approvals_needed, b.state, b.items, b.totals, encode(b.list_sha256, 'hex'), b.requested_by, "
    "b.requested_at, b.expires_at, b.ended_at, b.request_hash, b.state = 'REQUESTED' AND b.expires_at <= now(), "
    f"{_COUNTS} FROM operations.bulk_operation b "
)
_FIND: Final[LiteralString] = f"{_BULK} WHERE b.id = %(id)s AND b.tenant_id = %(tenant)s"
_LOCK: Final[LiteralString] = f"{_FIND} FOR UPDATE OF b"
_BY_KEY: Final[LiteralString] = (
    f"{_BULK} WHERE b.tenant_id = %(tenant)s AND b.requested_by = %(actor)s AND b.idempotency_key = %(key)s"
)
_LIST: Final[LiteralString] = (
    f"{_BULK} WHERE b.tenant_id = %(tenant)s AND (CAST(%(state)s AS text) IS NULL OR b.state = %(state)s) "
    "AND (CAST(%(at)s AS timestamptz) IS NULL OR (b.requested_at, b.id) < (%(at)s, CAST(%(after)s AS uuid))) "
    "ORDER BY b.requested_at DESC, b.id DESC LIMIT %(limit)s"
)
_INSERT: Final = """
    INSERT INTO operations.bulk_operation (id, tenant_id, kind, asked, selection, reason_code, reason, dry_run,
        per_second, at_once, approvals_needed, state, items, totals, list_sha256, requested_by, roles, expires_at,
        idempotency_key, request_hash)
    VALUES (%(id)s, %(tenant)s, %(kind)s, %(asked)s, %(selection)s, %(reason_code)s, %(reason)s, %(dry_run)s,
        %(per_second)s, %(at_once)s, %(approvals)s, %(state)s, %(items)s, %(totals)s, %(list)s, %(actor)s, %(roles)s,
        now() + make_interval(secs => %(expires)s), %(key)s, %(hash)s)
    ON CONFLICT (tenant_id, requested_by, idempotency_key) DO NOTHING RETURNING true
"""
_INSERT_ITEMS: Final = """
    INSERT INTO operations.bulk_item (bulk_id, position, payment_id, amount, currency)
    SELECT %(id)s, n, p, a, c
      FROM unnest(%(payments)s::text[], %(amounts)s::bigint[], %(currencies)s::text[]) WITH ORDINALITY AS u (p, a, c, n)
"""
_CHOOSE: Final = """
    SELECT id::text, amount, currency FROM channel.payment WHERE tenant_id = %(tenant)s AND id = ANY (%(ids)s::uuid[])
    UNION ALL
    SELECT payment_id, amount, 'MXN' FROM stp.deposit
     WHERE tenant_id = %(tenant)s AND payment_id = ANY (%(texts)s::text[])
"""
_MOVE: Final = """
    UPDATE operations.bulk_operation SET state = %(state)s, ended_at = CASE WHEN %(ended)s THEN now() END,
        next_at = greatest(next_at, now())
    WHERE id = %(id)s
"""
_APPROVE: Final = """
    INSERT INTO operations.bulk_approval (bulk_id, requested_by, approver, approves, note)
    VALUES (%(id)s, %(requested_by)s, %(approver)s, %(approves)s, %(note)s) ON CONFLICT DO NOTHING RETURNING true
"""
_APPROVED: Final = "SELECT count(*) FROM operations.bulk_approval WHERE bulk_id = %(id)s AND approves"
_CANCEL_ITEMS: Final = """
    UPDATE operations.bulk_item SET state = 'CANCELLED', changed_at = now() WHERE bulk_id = %(id)s AND state = 'PENDING'
"""
_AGAIN: Final = """
    UPDATE operations.bulk_item SET state = 'PENDING', round = round + 1, attempts = 0, action_id = NULL, code = NULL,
        detail = NULL, due_at = now(), changed_at = now()
    WHERE bulk_id = %(id)s AND state = 'FAILED'
"""
_ITEMS: Final = """
    SELECT position, payment_id, amount, currency, state, round, attempts, action_id, code, detail, changed_at
      FROM operations.bulk_item
     WHERE bulk_id = %(id)s AND position > %(after)s AND (CAST(%(state)s AS text) IS NULL OR state = %(state)s)
     ORDER BY position LIMIT %(limit)s
"""
# One operation that may begin an item now, kept from other workers until the items are taken.
_NEXT: Final = """
    SELECT b.id, b.per_second, b.at_once, greatest(0, extract(epoch FROM now() - b.next_at))::float8,
           (SELECT count(*) FROM operations.bulk_item i
             WHERE i.bulk_id = b.id AND (i.state = 'SENT' OR (i.state = 'RUNNING' AND i.due_at > now())))
      FROM operations.bulk_operation b
     WHERE b.state = 'RUNNING' AND b.next_at <= now() ORDER BY b.next_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_TAKE: Final = """
    WITH next AS MATERIALIZED (
        SELECT position FROM operations.bulk_item
         WHERE bulk_id = %(id)s AND (state = 'PENDING' OR state = 'RUNNING') AND due_at <= now()
         ORDER BY position LIMIT %(take)s FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE operations.bulk_item i
           SET state = 'RUNNING', attempts = i.attempts + 1, due_at = now() + make_interval(secs => %(lease)s),
               changed_at = now()
          FROM next WHERE i.bulk_id = %(id)s AND i.position = next.position
        RETURNING i.position, i.round, i.payment_id
    )
    SELECT t.position, t.round, t.payment_id, b.tenant_id, b.kind, b.asked, b.reason_code, b.reason, b.requested_by,
           b.roles, b.dry_run,
           ARRAY(SELECT approver FROM operations.bulk_approval a WHERE a.bulk_id = b.id AND a.approves ORDER BY at)
      FROM taken t CROSS JOIN operations.bulk_operation b WHERE b.id = %(id)s ORDER BY t.position
"""
_PACE: Final = """
    UPDATE operations.bulk_operation
       SET next_at = greatest(next_at, now() - interval '0.5 s') + make_interval(secs => %(seconds)s) WHERE id = %(id)s
"""
_MADE: Final = """
    UPDATE operations.bulk_item SET state = %(state)s, action_id = %(action)s, code = %(code)s, detail = %(detail)s,
        due_at = now(), changed_at = now()
    WHERE bulk_id = %(id)s AND position = %(position)s AND round = %(round)s AND state = 'RUNNING'
"""
_PUT_OFF: Final = """
    UPDATE operations.bulk_item SET due_at = now() + make_interval(secs => %(seconds)s)
    WHERE bulk_id = %(id)s AND position = %(position)s AND round = %(round)s AND state = 'RUNNING'
"""
_SENT: Final = """
    WITH due AS MATERIALIZED (
        SELECT bulk_id, position FROM operations.bulk_item WHERE state = 'SENT' AND due_at <= now()
         ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE operations.bulk_item i SET due_at = now() + make_interval(secs => %(pause)s)
      FROM due, operations.bulk_operation b
     WHERE i.bulk_id = due.bulk_id AND i.position = due.position AND b.id = i.bulk_id
    RETURNING b.tenant_id, i.action_id
"""
_STANDS: Final = """
    UPDATE operations.bulk_item i SET state = %(state)s, code = %(code)s, detail = %(detail)s, changed_at = now()
      FROM operations.bulk_operation b
     WHERE b.id = i.bulk_id AND b.tenant_id = %(tenant)s AND i.action_id = %(action)s AND i.state = 'SENT'
"""
_COMPLETE: Final = """
    SELECT b.id::text, b.tenant_id FROM operations.bulk_operation b
     WHERE b.state = 'RUNNING' AND NOT EXISTS (SELECT FROM operations.bulk_item i
           WHERE i.bulk_id = b.id AND i.state IN ('PENDING', 'RUNNING', 'SENT'))
     LIMIT 1 FOR UPDATE SKIP LOCKED
"""
# A worker died with an item in hand, or put it off, and the operation begins no more. A slow one has twice its time.
_LEFT: Final = """
    SELECT b.id::text FROM operations.bulk_operation b JOIN operations.bulk_item i ON i.bulk_id = b.id
     WHERE b.state = 'CANCELLED' AND i.state = 'RUNNING' AND i.due_at <= now() - make_interval(secs => %(lease)s)
     LIMIT 1
"""
_OVERDUE: Final = """
    SELECT EXISTS (SELECT FROM operations.bulk_operation WHERE state = 'REQUESTED' AND expires_at <= now())
"""
_LOCK_OVERDUE: Final = """
    SELECT id::text, tenant_id FROM operations.bulk_operation WHERE state = 'REQUESTED' AND expires_at <= now()
     ORDER BY expires_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
"""


@dataclass(frozen=True, slots=True)
class NewBulk(BulkRequest):
    """A bulk operation about to be committed."""

    chosen: Sequence[Chosen]
    requested_by: str
    roles: Sequence[str]
    key: str
    request_hash: bytes
    expires_in: float
    """Seconds that it waits for approvals."""

    @property
    def state(self) -> BulkState:
        return BulkState.REQUESTED if self.approvals_needed else BulkState.RUNNING

    @property
    def totals(self) -> dict[str, int]:
        sums: dict[str, int] = {}
        for one in self.chosen:
            sums[one.currency] = sums.get(one.currency, 0) + one.amount
        return sums

    @property
    def list_sha256(self) -> bytes:
        return hashlib.sha256(json.dumps([one.payment_id for one in self.chosen]).encode()).digest()


class BulkStore:
    """Bulk operations, their approvals and items."""

    def __init__(self, database: Statements, lease: float = LEASE) -> None:
        self.database = database
        self._lease = lease

    # --- asking ---

    async def choose(self, tenant: TenantId, ids: Sequence[str]) -> dict[str, Chosen]:
        """Those of these payments that are this tenant's, by id."""
        given = {"tenant": tenant, "ids": [one for one in map(_uuid, ids) if one], "texts": list(ids)}
        return {row[0]: Chosen(*row) for row in await self.database.rows(_CHOOSE, given)}

    async def insert(self, connection: Connection, new: NewBulk) -> bool:
        """Write an operation with its list; false when there is one under its key."""
        values = {
            "id": new.id,
            "tenant": new.tenant_id,
            "kind": new.kind,
            "asked": Jsonb(new.asked),
            "selection": Jsonb(new.selection),
            "reason_code": new.reason_code,
            "reason": new.reason,
            "dry_run": new.dry_run,
            "per_second": new.per_second,
            "at_once": new.at_once,
            "approvals": new.approvals_needed,
            "state": new.state,
            "items": len(new.chosen),
            "totals": Jsonb(new.totals),
            "list": new.list_sha256,
            "actor": new.requested_by,
            "roles": list(new.roles),
            "expires": new.expires_in,
            "key": new.key,
            "hash": new.request_hash,
        }
        if not await (await connection.execute(_INSERT, values)).fetchall():
            return False
        items = {
            "id": new.id,
            "payments": [one.payment_id for one in new.chosen],
            "amounts": [one.amount for one in new.chosen],
            "currencies": [one.currency for one in new.chosen],
        }
        await connection.execute(_INSERT_ITEMS, items)
        return True

    # --- looking ---

    async def find(self, tenant: TenantId, bulk_id: str) -> Bulk | None:
        """An operation of this tenant."""
        wanted = _uuid(bulk_id)
        if wanted is None:
            return None
        rows = await self.database.rows(_FIND, {"id": wanted, "tenant": tenant})
        return _bulk(rows[0]) if rows else None

    async def by_key(self, tenant: TenantId, actor: str, key: str) -> Bulk | None:
        """The operation that this person asked for under this key."""
        rows = await self.database.rows(_BY_KEY, {"tenant": tenant, "actor": actor, "key": key})
        return _bulk(rows[0]) if rows else None

    async def listed(
        self, tenant: TenantId, state: BulkState | None, after: Sequence[str] | None, limit: int
    ) -> list[Bulk]:
        """Newest first; `after`: instant and id of the last one before."""
        at, last = after or (None, None)
        rows = await self.database.rows(
            _LIST, {"tenant": tenant, "state": state, "at": at, "after": last, "limit": limit}
        )
        return [_bulk(row) for row in rows]

    async def items(self, bulk_id: str, state: ItemState | None, after: int, limit: int) -> list[ItemRow]:
        """Items after this position, in order."""
        given = {"id": UUID(bulk_id), "state": state, "after": after, "limit": limit}
        return [
            ItemRow(row[0], row[1], row[2], row[3], ItemState(row[4]), *row[5:])
            for row in await self.database.rows(_ITEMS, given)
        ]

    async def overdue(self) -> bool:
        """Whether the time of some request is over and it was not written down yet."""
        ((found,),) = await self.database.rows(_OVERDUE)
        return bool(found)

    # --- deciding, inside a transaction of the caller's ---

    async def lock_overdue(self, connection: Connection, most: int) -> list[tuple[str, TenantId]]:
        """Requests whose time is over and that nobody else is ending just now, kept until the transaction ends."""
        rows = await (await connection.execute(_LOCK_OVERDUE, {"most": most})).fetchall()
        return [(row[0], TenantId(row[1])) for row in rows]

    async def lock(self, connection: Connection, tenant: TenantId, bulk_id: str) -> Bulk | None:
        """The operation, kept from changing until the transaction ends."""
        wanted = _uuid(bulk_id)
        if wanted is None:
            return None
        row = await (await connection.execute(_LOCK, {"id": wanted, "tenant": tenant})).fetchone()
        return None if row is None else _bulk(row)

    async def say(
        self, connection: Connection, bulk: Bulk, approver: str, note: str | None, *, yes: bool
    ) -> int | None:
        """Write what an approver said, and count who approves; nothing when they had said something before."""
        given = {"id": bulk.id, "requested_by": bulk.requested_by, "approver": approver, "approves": yes, "note": note}
        if not await (await connection.execute(_APPROVE, given)).fetchall():
            return None
        ((count,),) = await (await connection.execute(_APPROVED, {"id": bulk.id})).fetchall()
        return int(count)

    async def move(self, connection: Connection, bulk_id: str, state: BulkState) -> None:
        """Change an operation's state; what is cancelled begins no more items."""
        ended = state not in {BulkState.REQUESTED, BulkState.RUNNING, BulkState.SUSPENDED}
        await connection.execute(_MOVE, {"id": bulk_id, "state": state, "ended": ended})
        if ended and state is not BulkState.COMPLETED:
            await connection.execute(_CANCEL_ITEMS, {"id": bulk_id})

    async def again(self, connection: Connection, bulk_id: str) -> int:
        """Let items that failed begin anew, and count them."""
        return (await connection.execute(_AGAIN, {"id": bulk_id})).rowcount

    # --- running ---

    async def lease(self, most: int) -> list[Item] | None:
        """Items of one operation that may begin now, ours until the lease ends. Nothing when no operation may."""
        async with self.database.connection() as connection, connection.transaction():
            row = await (await connection.execute(_NEXT)).fetchone()
            if row is None:
                return None
            bulk_id, per_second, at_once, waited, under_way = row
            allowed = 1 + int(min(waited, 0.5) * per_second)
            take = max(0, min(most, at_once - under_way, allowed))
            given = {"id": bulk_id, "take": take, "lease": self._lease}
            rows = await (await connection.execute(_TAKE, given)).fetchall() if take else []
            # An operation that has nothing to begin right now lets others go first.
            seconds = len(rows) / per_second if rows else 0.5
            await connection.execute(_PACE, {"id": bulk_id, "seconds": seconds})
            failpoint("operations.bulk.before-lease-commit")
        return [_item(str(bulk_id), row) for row in rows]

    async def made(
        self,
        item: Item,
        state: ItemState,
        *,
        action: str | None = None,
        code: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Write what became of an item that was leased to us."""
        given = {"id": item.bulk_id, "position": item.position, "round": item.round, "state": state}
        await self.database.rows(_MADE, given | {"action": action, "code": code, "detail": detail})

    async def put_off(self, item: Item, seconds: float) -> None:
        """Let anybody try an item again after so many seconds."""
        given = {"id": item.bulk_id, "position": item.position, "round": item.round, "seconds": seconds}
        await self.database.rows(_PUT_OFF, given)

    async def sent(self, limit: int, pause: float) -> dict[TenantId, list[str]]:
        """Actions that are to be looked at now, by tenant; looked at again after `pause` seconds."""
        found: dict[TenantId, list[str]] = {}
        for tenant, action in await self.database.rows(_SENT, {"limit": limit, "pause": pause}):
            found.setdefault(TenantId(tenant), []).append(action)
        return found

    async def stands(
        self, tenant: TenantId, action: str, state: ItemState, code: str | None, detail: str | None
    ) -> None:
        """An item's action has ended."""
        given = {"tenant": tenant, "action": action, "state": state, "code": code, "detail": detail}
        await self.database.rows(_STANDS, given)

    async def complete(self, connection: Connection) -> tuple[str, TenantId] | None:
        """A running operation of which nothing is left to do, locked."""
        row = await (await connection.execute(_COMPLETE)).fetchone()
        return None if row is None else (row[0], TenantId(row[1]))

    async def left(self, most: int) -> list[Item]:
        """Items of cancelled operations that some worker had in hand; ours until the lease ends."""
        async with self.database.connection() as connection, connection.transaction():
            row = await (await connection.execute(_LEFT, {"lease": self._lease})).fetchone()
            if row is None:
                return []
            given = {"id": row[0], "take": most, "lease": self._lease}
            return [_item(row[0], one) for one in await (await connection.execute(_TAKE, given)).fetchall()]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _bulk(row: Sequence[Any]) -> Bulk:
    fields = list(row)
    fields[11] = BulkState(row[11])
    return Bulk(*fields)


def _item(bulk_id: str, row: Sequence[Any]) -> Item:
    position, round_, payment_id, tenant, kind, asked, reason_code, reason, requested_by, roles, dry_run, approvers = (
        row
    )
    return Item(
        bulk_id=bulk_id,
        position=position,
        round=round_,
        tenant_id=TenantId(tenant),
        payment_id=PaymentId(payment_id),
        kind=kind,
        asked=asked,
        reason_code=reason_code,
        reason=reason,
        requested_by=requested_by,
        roles=roles,
        approved_by=approvers,
        dry_run=dry_run,
    )
