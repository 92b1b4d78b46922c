"""One balance update: how its row is read, how it is appended, and the transaction around it (L1 to L4).

Whoever changes anything of a store locks the store's row first. That is what makes the chain of its updates gapless,
two firings one transfer, and a confirmation and a cancellation one of the two.
"""

# ruff: noqa: S608 (values are always bound; only our own column lists are put together)
from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from hub.failpoint import failpoint
from hub.money import Money
from hub.statements import Statements
from ledger.book import raise_refusal
from ledger.disbursement.model import (
    CURRENCY,
    AlreadyOverwritten,
    BalanceUpdate,
    BookUnknown,
    DisbursementRefused,
    DuplicateOperation,
    Frequency,
    NotOverwritable,
    StatusRecord,
    StoreUnknown,
    UpdateStatus,
    UpdateType,
)
from ledger.model import LedgerRefused

STORE_DUE: Final = "disbursement.store-due"
TRANSFER_DECIDED: Final = "disbursement.transfer-decided"

Connection = AsyncConnection[tuple[Any, ...]]

UPDATE_COLUMNS: Final = (
    "u.id, u.store_id, u.seq, u.type, u.effect, u.previous, u.new, u.status, u.overwritten, u.overwrites, u.credit_id, "
    "u.transfer_id, u.txn_id, u.operation, u.reason, u.actor, u.created_at"
)
UPDATE_WIDTH: Final = UPDATE_COLUMNS.count(",") + 1

_LOCK: Final = (
    "SELECT s.id, s.frequency, m.automation FROM disbursement.store s "
    "JOIN disbursement.merchant m ON m.tenant_id = s.tenant_id AND m.id = s.merchant_id "
    "WHERE s.tenant_id = %(tenant)s AND s.id = %(store)s FOR NO KEY UPDATE OF s"
)
_APPEND: Final = (
    "SELECT a.refusal, a.detail, "
    + ", ".join(f"(a.made).{name.strip()[2:]}" for name in UPDATE_COLUMNS.split(","))
    + " FROM disbursement.append_update(%(tenant)s, %(store)s, %(type)s, %(effect)s::bigint, %(status)s, "
    "%(overwrites)s::bigint, %(credit)s, %(transfer)s, %(operation)s, %(reason)s, %(actor)s, %(cause)s, "
    "%(debits)s::text[], %(credits)s::text[], %(amounts)s::bigint[], %(reference)s, %(effective_at)s::timestamptz) a"
)
_PUBLISH: Final = (
    "INSERT INTO disbursement.outbox (message, correlation, payload, publish_after) "
    "VALUES (%(message)s, %(correlation)s, %(payload)s, clock_timestamp() + %(after)s)"
)

_OPERATION: Final = re.compile(r"[!-~]{1,150}")
_RESERVED: Final = ("transfer:", "change:")
_INSTANT: Final = uuid.UUID("6f2b1c52-3f0e-5a86-9d55-0a6f0f0b7d11")

_COMPENSATION: Final[Mapping[UpdateType, UpdateType]] = {
    UpdateType.CONTRIBUTION: UpdateType.CREDIT_CANCELLATION,
    UpdateType.DISBURSEMENT: UpdateType.DISBURSEMENT_OVERRIDE,
}


@dataclass(frozen=True, slots=True)
class LockedStore:
    """A store whose row this transaction holds."""

    tenant: str
    id: str
    frequency: Frequency
    automation: bool


@dataclass(frozen=True, slots=True)
class NewUpdate:
    """An update to be appended. `legs`: debit, credit and minor units; `@` is the store's account; none when it
    compensates the update `overwrites`, whose posting is mirrored."""

    type: UpdateType
    status: UpdateStatus
    operation: str
    actor: str
    cause: str
    effect: int | None = None
    legs: Sequence[tuple[str, str, int]] = ()
    overwrites: int | None = None
    credit: str | None = None
    transfer: str | None = None
    reason: str | None = None
    reference: str | None = None
    effective_at: datetime | None = None


@asynccontextmanager
async def transaction(statements: Statements, verb: str) -> AsyncIterator[Connection]:
    """One SQL transaction. A refusal undoes it and keeps the connection, whose state is known."""
    refused: DisbursementRefused | LedgerRefused | None = None
    async with statements.connection() as connection:
        try:
            async with connection.transaction():
                yield connection
                failpoint(f"disbursement.{verb}.before-commit")
        except (DisbursementRefused, LedgerRefused) as error:
            refused = error
        except UniqueViolation as error:
            # The same operation in the same moment, on another store's lock: what each saw before was free.
            refused = DuplicateOperation(error.diag.constraint_name or "")
    if refused is not None:
        raise refused
    failpoint(f"disbursement.{verb}.after-commit")


async def lock_store(connection: Connection, tenant: str, store: str) -> LockedStore:
    """Wait for whoever else changes this store. What is read of it after this is what they left.

    Raises `StoreUnknown`.
    """
    found = await one(connection, _LOCK, {"tenant": tenant, "store": store})
    if found is None:
        raise StoreUnknown(store)
    return LockedStore(tenant, found[0], Frequency(found[1]), found[2])


async def append(connection: Connection, store: LockedStore, new: NewUpdate) -> BalanceUpdate:
    """Append an update to the store's chain and book it. The last thing a transaction does: from here on it holds
    accounts that all stores of a tenant share.

    Raises `BookUnknown` and the ledger's `LedgerRefused`.
    """
    refusal, detail, *row = await one(
        connection,
        _APPEND,
        {
            "tenant": store.tenant,
            "store": store.id,
            "type": new.type,
            "effect": new.effect,
            "status": new.status,
            "overwrites": new.overwrites,
            "credit": new.credit,
            "transfer": new.transfer,
            "operation": new.operation,
            "reason": new.reason,
            "actor": new.actor,
            "cause": new.cause,
            "debits": [debit for debit, _, _ in new.legs],
            "credits": [credit for _, credit, _ in new.legs],
            "amounts": [amount for _, _, amount in new.legs],
            "reference": new.reference,
            "effective_at": new.effective_at,
        },
    )
    if (refusal, detail) == ("account-unknown", "book"):
        raise BookUnknown(store.tenant)
    raise_refusal(refusal, detail)
    return read_update(row)


def compensation_of(update: BalanceUpdate) -> UpdateType:
    """The type of the update that compensates this one (L14 to L16).

    Raises `NotOverwritable` for the other types, and `AlreadyOverwritten`.
    """
    if update.type not in _COMPENSATION:
        raise NotOverwritable(update.type)
    if update.overwritten:
        raise AlreadyOverwritten(update.operation)
    return _COMPENSATION[update.type]


async def publish(
    connection: Connection,
    message: str,
    correlation: str,
    payload: Mapping[str, Any],
    after: timedelta = timedelta(),
) -> None:
    """Leave a message for the engine, which is published `after` this transaction is committed."""
    values = {"message": message, "correlation": correlation, "payload": Jsonb(dict(payload)), "after": after}
    await connection.execute(_PUBLISH, values)


async def publish_if_instant(
    connection: Connection, store: LockedStore, operation: str, after: timedelta = timedelta()
) -> None:
    """A pending update of a store that is paid at once asks for its transfer (L26), unless it was switched off
    (L30). Asked by the operation that made or freed the update, so that a repeat asks for the same payment."""
    if store.frequency is Frequency.INSTANT and store.automation:
        payment_id = instant_payment_id(store.tenant, operation)
        payload = {
            "payment_id": payment_id,
            "tenant_id": store.tenant,
            "store_id": store.id,
            "trigger": "INSTANT",
            "run_id": None,
        }
        await publish(connection, STORE_DUE, payment_id, payload, after)


def instant_payment_id(tenant: str, operation: str) -> str:
    """The payment that an operation on a store paid at once asks for."""
    return str(uuid.uuid5(_INSTANT, f"{tenant}/{operation}"))


def checked_operation(operation: str) -> str:
    """Raises `ValueError` for what is no operation id of a caller's."""
    if not _OPERATION.fullmatch(operation) or operation.startswith(_RESERVED):
        raise ValueError(
            "an operation id is 1 to 150 printable ASCII characters and begins with neither 'transfer:' nor 'change:'"
        )
    return operation


def read_update(row: Sequence[Any]) -> BalanceUpdate:
    """A row of `UPDATE_COLUMNS`."""
    return BalanceUpdate(
        row[0],
        row[1],
        row[2],
        UpdateType(row[3]),
        Money(row[4], CURRENCY),
        Money(row[5], CURRENCY),
        Money(row[6], CURRENCY),
        UpdateStatus(row[7]),
        *row[8:],
    )


def read_history(rows: Sequence[Any]) -> Sequence[StatusRecord]:
    """Rows of (status, at, cause, actor)."""
    return [StatusRecord(*row) for row in rows]


def checked_limit(limit: int) -> int:
    """Raises `ValueError` for a page that is empty or too large."""
    if not 1 <= limit <= 10_000:
        raise ValueError("a page has 1 to 10000 rows")
    return limit


async def one(connection: Connection, statement: LiteralString, values: Mapping[str, Any]) -> Any:
    """The first row of a statement inside a transaction, or nothing."""
    return await (await connection.execute(statement, values)).fetchone()
