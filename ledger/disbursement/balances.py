"""The verbs that change a store's balance, and the questions about it (L1 to L17).

Each verb is one SQL transaction that begins by locking the store's row, and books in the ledger inside it. The same
`operation` with the same input answers the first update again and writes nothing; with other input it raises
`DuplicateOperation`. All raise `StoreUnknown` or `CreditUnknown`, `BookUnknown`, the ledger's own `LedgerRefused` when
an account of it is frozen or closed, and `hub.errors.Unavailable`.
"""

# ruff: noqa: S608 (values are always bound; only our own column lists are put together)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hub.money import Money
from hub.statements import Statements
from ledger.disbursement.model import (
    CURRENCY,
    AlreadyContributed,
    AlreadyOverwritten,
    AmountChanged,
    BadAmount,
    BalanceUpdate,
    CreditUnknown,
    DuplicateOperation,
    NoCommission,
    NotContributed,
    ReasonMissing,
    StatusRecord,
    StoreBalance,
    StoreUnknown,
    UpdateStatus,
    UpdateType,
)
from ledger.disbursement.updates import (
    UPDATE_COLUMNS,
    Connection,
    LockedStore,
    NewUpdate,
    append,
    checked_limit,
    checked_operation,
    compensation_of,
    lock_store,
    one,
    publish_if_instant,
    read_history,
    read_update,
    transaction,
)

_STORE_OF_CREDIT: Final = "SELECT store_id FROM disbursement.credit WHERE tenant_id = %(tenant)s AND id = %(credit)s"
_CREDIT: Final = (
    "SELECT amount, commission, disbursed FROM disbursement.credit WHERE tenant_id = %(tenant)s AND id = %(credit)s"
)
_EARLIER: Final = (
    "SELECT c.credit_id, c.amount, c.commission, " + UPDATE_COLUMNS + " FROM (SELECT) AS here "
    "LEFT JOIN disbursement.credit_change c ON c.tenant_id = %(tenant)s AND c.operation = %(operation)s "
    "LEFT JOIN disbursement.balance_update u ON u.tenant_id = %(tenant)s AND u.operation = %(operation)s"
)
_OF_CREDIT: Final = (
    "SELECT "
    + UPDATE_COLUMNS
    + " FROM disbursement.balance_update u WHERE u.tenant_id = %(tenant)s AND u.credit_id = %(credit)s ORDER BY u.seq"
)
_MADE_BY: Final = (
    "SELECT "
    + UPDATE_COLUMNS
    + " FROM disbursement.balance_update u WHERE u.tenant_id = %(tenant)s AND u.operation = %(operation)s"
)
_CHANGE_CREDIT: Final = (
    "WITH changed AS (UPDATE disbursement.credit SET amount = %(amount)s, commission = %(commission)s "
    "WHERE tenant_id = %(tenant)s AND id = %(credit)s RETURNING disbursed) "
    "INSERT INTO disbursement.credit_change (tenant_id, credit_id, amount_before, amount, commission_before, "
    "commission, disbursed_before, disbursed, operation, cause, actor) "
    "SELECT %(tenant)s, %(credit)s, %(amount_before)s, %(amount)s, %(commission_before)s, %(commission)s, disbursed, "
    "disbursed, %(operation)s, 'amount changed', %(actor)s FROM changed"
)
_BALANCE: Final = (
    "SELECT s.id, s.merchant_id, coalesce(l.new, 0), coalesce(p.total, 0)::bigint, coalesce(p.updates, 0), "
    "coalesce(t.total, 0)::bigint, coalesce(t.updates, 0), coalesce(l.seq, 0) FROM disbursement.store s "
    "LEFT JOIN LATERAL (SELECT u.seq, u.new FROM disbursement.balance_update u "
    "WHERE u.tenant_id = s.tenant_id AND u.store_id = s.id ORDER BY u.seq DESC LIMIT 1) l ON true "
    "CROSS JOIN LATERAL (SELECT sum(u.effect) AS total, count(*) AS updates FROM disbursement.balance_update u "
    "WHERE u.tenant_id = s.tenant_id AND u.store_id = s.id AND u.status = 'PENDING') p "
    "CROSS JOIN LATERAL (SELECT sum(u.effect) AS total, count(*) AS updates FROM disbursement.balance_update u "
    "WHERE u.tenant_id = s.tenant_id AND u.store_id = s.id AND u.status = 'IN_TRANSIT') t "
    "WHERE s.tenant_id = %(tenant)s AND s.id = %(store)s"
)
_PAGE: Final = (
    "SELECT "
    + UPDATE_COLUMNS
    + " FROM disbursement.balance_update u WHERE u.tenant_id = %(tenant)s AND u.store_id = %(store)s "
    "AND u.seq < coalesce(%(before)s::bigint, 9223372036854775807) ORDER BY u.seq DESC LIMIT %(limit)s"
)
_HISTORY: Final = (
    "SELECT r.status, r.at, r.cause, r.actor FROM disbursement.balance_update u "
    "JOIN disbursement.balance_update_status r ON r.update_id = u.id "
    "WHERE u.tenant_id = %(tenant)s AND u.id = %(update)s ORDER BY r.id"
)


@dataclass(frozen=True, slots=True)
class _Credit:
    """A credit as it stands, with its contribution that was not overwritten, and its last update of any kind."""

    id: str
    amount: int
    commission: int | None
    contribution: BalanceUpdate | None
    last: BalanceUpdate | None


class Balances:
    """The balances of all tenants' stores."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def contribute(self, tenant: str, credit: str, *, operation: str, actor: str) -> BalanceUpdate:
        """The purchase was delivered: owe the store the credit's amount less the commission stored on it (L6, L7).

        Raises `NoCommission`, `AlreadyContributed`, `AlreadyOverwritten` when it was cancelled since.
        """
        checked_operation(operation)
        async with transaction(self._statements, "contribute") as connection:
            store = await _lock_store_of(connection, tenant, credit)
            earlier = await _earlier(connection, tenant, operation)
            if earlier is not None:
                return _same(earlier, earlier.type is UpdateType.CONTRIBUTION and earlier.credit == credit)
            found = await _credit(connection, tenant, credit)
            if found.contribution is not None:
                raise AlreadyContributed(found.contribution.operation)
            if found.last is not None:
                raise AlreadyOverwritten(found.last.operation)
            new = _contribution(found, operation, actor, "delivered")
            await publish_if_instant(connection, store, operation)
            return await append(connection, store, new)

    async def cancel_credit(
        self, tenant: str, credit: str, *, operation: str, reason: str, actor: str
    ) -> BalanceUpdate:
        """Undo the credit's contribution, whatever became of it (L10). The balance may fall below zero.

        Raises `NotContributed`, `AlreadyOverwritten`, `ReasonMissing`.
        """
        checked_operation(operation)
        _needed(reason)
        async with transaction(self._statements, "cancel-credit") as connection:
            store = await _lock_store_of(connection, tenant, credit)
            earlier = await _earlier(connection, tenant, operation)
            if earlier is not None:
                kept = (earlier.type, earlier.credit, earlier.reason)
                return _same(earlier, kept == (UpdateType.CREDIT_CANCELLATION, credit, reason))
            contribution = _live_contribution(await _credit(connection, tenant, credit))
            await publish_if_instant(connection, store, operation)
            return await append(connection, store, _cancellation(contribution, operation, reason, actor))

    async def change_amount(
        self, tenant: str, credit: str, amount: Money, commission: Money, *, operation: str, actor: str
    ) -> AmountChanged:
        """Another amount and commission for a credit: its contribution is undone and made anew (L17). A credit that was
        not contributed yet only gets the new amount.

        Raises `BadAmount`, `NoCommission`, `AlreadyOverwritten` when the credit was cancelled.
        """
        checked_operation(operation)
        _checked_price(amount, commission)
        undo, redo = f"change:{operation}:cancellation", f"change:{operation}:contribution"
        async with transaction(self._statements, "change-amount") as connection:
            store = await _lock_store_of(connection, tenant, credit)
            if await _changed_before(connection, tenant, operation, (credit, amount.minor, commission.minor)):
                made = [await _made_by(connection, tenant, one) for one in (undo, redo)]
                return AmountChanged(credit, amount, commission, *made)
            found = await _credit(connection, tenant, credit)
            if found.commission is None:
                raise NoCommission(credit)
            contribution = None if found.last is None else _live_contribution(found)
            changed = _Credit(credit, amount.minor, commission.minor, None, None)
            await _write_change(connection, tenant, found, changed, operation=operation, actor=actor)
            if contribution is None:
                return AmountChanged(credit, amount, commission, None, None)
            await publish_if_instant(connection, store, f"change:{operation}")
            cancellation = _cancellation(contribution, undo, "amount changed", actor)
            anew = _contribution(changed, redo, actor, "amount changed")
            return AmountChanged(
                credit,
                amount,
                commission,
                await append(connection, store, cancellation),
                await append(connection, store, anew),
            )

    async def adjust(
        self, tenant: str, store: str, effect: Money, *, operation: str, reason: str, actor: str
    ) -> BalanceUpdate:
        """Treasury changes a balance by hand, in either direction (L11).

        Raises `ReasonMissing`, and `BadAmount` for zero.
        """
        checked_operation(operation)
        _needed(reason)
        if effect.currency != CURRENCY or effect.minor == 0:
            raise BadAmount("effect")
        async with transaction(self._statements, "adjust") as connection:
            locked = await lock_store(connection, tenant, store)
            earlier = await _earlier(connection, tenant, operation)
            if earlier is not None:
                kept = (earlier.type, earlier.store, earlier.effect, earlier.reason)
                return _same(earlier, kept == (UpdateType.BALANCE_ADJUSTMENT, store, effect, reason))
            await publish_if_instant(connection, locked, operation)
            return await append(connection, locked, _adjustment(effect.minor, operation, reason, actor))

    async def balance(self, tenant: str, store: str) -> StoreBalance:
        """What the store is owed, and how much of it is pending and in transit."""
        rows = await self._statements.rows(_BALANCE, {"tenant": tenant, "store": store})
        if not rows:
            raise StoreUnknown(store)
        name, merchant, balance, pending, pending_updates, moving, moving_updates, sequence = rows[0]
        return StoreBalance(
            name,
            merchant,
            Money(balance, CURRENCY),
            Money(pending, CURRENCY),
            pending_updates,
            Money(moving, CURRENCY),
            moving_updates,
            sequence,
        )

    async def updates(
        self, tenant: str, store: str, before: int | None = None, limit: int = 100
    ) -> Sequence[BalanceUpdate]:
        """A page of the store's updates, newest first: those with a sequence below `before`."""
        values = {"tenant": tenant, "store": store, "before": before, "limit": checked_limit(limit)}
        return [read_update(row) for row in await self._statements.rows(_PAGE, values)]

    async def updates_of_credit(self, tenant: str, credit: str) -> Sequence[BalanceUpdate]:
        """All updates of a credit, oldest first."""
        rows = await self._statements.rows(_OF_CREDIT, {"tenant": tenant, "credit": credit})
        return [read_update(row) for row in rows]

    async def history(self, tenant: str, update: int) -> Sequence[StatusRecord]:
        """The statuses an update had, oldest first (L13); empty for one that is not this tenant's."""
        return read_history(await self._statements.rows(_HISTORY, {"tenant": tenant, "update": update}))


def _contribution(credit: _Credit, operation: str, actor: str, cause: str) -> NewUpdate:
    if credit.commission is None:
        raise NoCommission(credit.id)
    net = credit.amount - credit.commission
    legs = [("credit-receivable", "@", net), ("credit-receivable", "commission-income", credit.commission)]
    return NewUpdate(
        UpdateType.CONTRIBUTION,
        UpdateStatus.PENDING,
        operation,
        actor,
        cause,
        effect=net,
        legs=[leg for leg in legs if leg[2]],
        credit=credit.id,
        reference=credit.id,
    )


def _cancellation(contribution: BalanceUpdate, operation: str, reason: str, actor: str) -> NewUpdate:
    return NewUpdate(
        compensation_of(contribution),
        UpdateStatus.PENDING,
        operation,
        actor,
        "credit cancelled",
        overwrites=contribution.id,
        credit=contribution.credit,
        reason=reason,
        reference=contribution.credit,
    )


def _adjustment(effect: int, operation: str, reason: str, actor: str) -> NewUpdate:
    leg = ("balance-adjustment", "@", effect) if effect > 0 else ("@", "balance-adjustment", -effect)
    return NewUpdate(
        UpdateType.BALANCE_ADJUSTMENT,
        UpdateStatus.PENDING,
        operation,
        actor,
        "adjusted by hand",
        effect=effect,
        legs=[leg],
        reason=reason,
    )


def _live_contribution(credit: _Credit) -> BalanceUpdate:
    if credit.contribution is not None:
        return credit.contribution
    if credit.last is None:
        raise NotContributed(credit.id)
    raise AlreadyOverwritten(credit.last.operation)


def _checked_price(amount: Money, commission: Money) -> None:
    if (amount.currency, commission.currency) != (CURRENCY, CURRENCY) or amount.minor <= 0:
        raise BadAmount("amount")
    if not 0 <= commission.minor <= amount.minor:
        raise BadAmount("commission")


def _needed(reason: str) -> None:
    if not reason.strip():
        raise ReasonMissing


def _same(earlier: BalanceUpdate, same: bool) -> BalanceUpdate:
    if not same:
        raise DuplicateOperation(earlier.operation)
    return earlier


async def _lock_store_of(connection: Connection, tenant: str, credit: str) -> LockedStore:
    found = await one(connection, _STORE_OF_CREDIT, {"tenant": tenant, "credit": credit})
    if found is None:
        raise CreditUnknown(credit)
    return await lock_store(connection, tenant, found[0])


async def _credit(connection: Connection, tenant: str, credit: str) -> _Credit:
    amount, commission, _ = await one(connection, _CREDIT, {"tenant": tenant, "credit": credit})
    cursor = await connection.execute(_OF_CREDIT, {"tenant": tenant, "credit": credit})
    updates = [read_update(row) for row in await cursor.fetchall()]
    live = [each for each in updates if each.type is UpdateType.CONTRIBUTION and not each.overwritten]
    return _Credit(credit, amount, commission, live[-1] if live else None, updates[-1] if updates else None)


async def _write_change(
    connection: Connection, tenant: str, before: _Credit, after: _Credit, *, operation: str, actor: str
) -> None:
    """Give a credit another amount and commission, and keep both as they were."""
    await connection.execute(
        _CHANGE_CREDIT,
        {
            "tenant": tenant,
            "credit": after.id,
            "amount_before": before.amount,
            "amount": after.amount,
            "commission_before": before.commission,
            "commission": after.commission,
            "operation": operation,
            "actor": actor,
        },
    )


async def _earlier(connection: Connection, tenant: str, operation: str) -> BalanceUpdate | None:
    """What this operation made before. Raises `DuplicateOperation` when it changed a credit's amount."""
    row = await one(connection, _EARLIER, {"tenant": tenant, "operation": operation})
    if row[0] is not None:
        raise DuplicateOperation(operation)
    return None if row[3] is None else read_update(row[3:])


async def _changed_before(connection: Connection, tenant: str, operation: str, asked: tuple[str, int, int]) -> bool:
    row = await one(connection, _EARLIER, {"tenant": tenant, "operation": operation})
    if row[3] is not None or (row[0] is not None and tuple(row[:3]) != asked):
        raise DuplicateOperation(operation)
    return row[0] is not None


async def _made_by(connection: Connection, tenant: str, operation: str) -> BalanceUpdate | None:
    row = await one(connection, _MADE_BY, {"tenant": tenant, "operation": operation})
    return None if row is None else read_update(row)
