"""Who changed what of a merchant, store or option, and what an edit does to their validation (L53, L57).

Validation is a chain: option, store, merchant. Whatever is edited is not validated any more, and neither is what stands
above it; what lies beneath keeps its own. Rows are locked in one order, the store before its merchant, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from pydantic_core import to_jsonable_python

Connection = AsyncConnection[tuple[Any, ...]]


class Object(StrEnum):
    """What can be edited."""

    MERCHANT = "MERCHANT"
    STORE = "STORE"
    OPTION = "OPTION"
    BANK_ACCOUNT = "BANK_ACCOUNT"
    CREDIT = "CREDIT"
    SCHEDULE = "SCHEDULE"


class Action(StrEnum):
    """What was done to it."""

    ADDED = "ADDED"
    EDITED = "EDITED"
    VALIDATED = "VALIDATED"
    RESET = "RESET"
    AUTHENTICATED = "AUTHENTICATED"
    AUTOMATION = "AUTOMATION"
    RECALCULATED = "RECALCULATED"
    STANDARD = "STANDARD"


@dataclass(frozen=True, slots=True)
class Edit:
    """One change."""

    id: int
    object: Object
    object_id: str
    action: Action
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]
    actor: str
    at: datetime


_RECORD: Final = (
    "INSERT INTO disbursement.edit (tenant_id, object, object_id, action, before, after, actor) "
    "VALUES (%(tenant)s, %(object)s, %(id)s, %(action)s, %(before)s, %(after)s, %(actor)s)"
)
_LOCK_STORE: Final = (
    "SELECT merchant_id, validated FROM disbursement.store WHERE tenant_id = %(tenant)s AND id = %(id)s FOR UPDATE"
)
_LOCK_MERCHANT: Final = (
    "SELECT validated FROM disbursement.merchant WHERE tenant_id = %(tenant)s AND id = %(id)s FOR UPDATE"
)
_RESET_STORE: Final = "UPDATE disbursement.store SET validated = false WHERE tenant_id = %(tenant)s AND id = %(id)s"
_RESET_MERCHANT: Final = (
    "UPDATE disbursement.merchant SET validated = false WHERE tenant_id = %(tenant)s AND id = %(id)s"
)


async def record(
    connection: Connection,
    tenant: str,
    changed: tuple[Object, str],
    action: Action,
    *,
    after: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
    actor: str,
) -> None:
    """Note a change beside it, in its transaction."""
    values = {
        "tenant": tenant,
        "object": changed[0],
        "id": changed[1],
        "action": action,
        "before": None if before is None else Jsonb(to_jsonable_python(before)),
        "after": Jsonb(to_jsonable_python(after)),
        "actor": actor,
    }
    await connection.execute(_RECORD, values)


async def lock_store(connection: Connection, tenant: str, store: str) -> tuple[str, bool] | None:
    """A store's merchant and whether it is validated; the row stays locked. None: there is no such store."""
    found = await (await connection.execute(_LOCK_STORE, {"tenant": tenant, "id": store})).fetchone()
    return None if found is None else (found[0], found[1])


async def lock_merchant(connection: Connection, tenant: str, merchant: str) -> bool | None:
    """Whether a merchant is validated; the row stays locked. None: there is no such merchant."""
    found = await (await connection.execute(_LOCK_MERCHANT, {"tenant": tenant, "id": merchant})).fetchone()
    return None if found is None else bool(found[0])


async def reset_store(connection: Connection, tenant: str, store: str, *, actor: str) -> None:
    """A store and its merchant are not validated any more (L53)."""
    found = await lock_store(connection, tenant, store)
    if found is None:
        return
    merchant, validated = found
    if validated:
        await connection.execute(_RESET_STORE, {"tenant": tenant, "id": store})
        await _reset(connection, tenant, (Object.STORE, store), actor)
    await reset_merchant(connection, tenant, merchant, actor=actor)


async def reset_merchant(connection: Connection, tenant: str, merchant: str, *, actor: str) -> None:
    """A merchant is not validated any more (L53)."""
    # Locked before it is looked at: whoever validates it at this moment is waited for.
    if await lock_merchant(connection, tenant, merchant):
        await connection.execute(_RESET_MERCHANT, {"tenant": tenant, "id": merchant})
        await _reset(connection, tenant, (Object.MERCHANT, merchant), actor)


async def _reset(connection: Connection, tenant: str, what: tuple[Object, str], actor: str) -> None:
    before, after = {"validated": True}, {"validated": False}
    await record(connection, tenant, what, Action.RESET, before=before, after=after, actor=actor)
