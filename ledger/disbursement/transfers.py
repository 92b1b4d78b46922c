"""Bank transfers to stores: made of pending updates, sent, and recorded as the provider tells (L18 to L44).

Each verb is one SQL transaction that begins by locking the store's row, so two firings at once make one transfer (L31)
and a late callback meets a settled state. What is refused changes nothing and is kept in the log of events (L21).
"""

# ruff: noqa: S608 (values are always bound; only our own column lists are put together)
from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

from hub.money import Money
from hub.statements import Statements
from ledger.disbursement.eligibility import VERDICT_COLUMNS, read_verdict
from ledger.disbursement.events import EventLog
from ledger.disbursement.model import (
    CURRENCY,
    OPEN,
    BankTransfer,
    Collected,
    DuplicateOperation,
    Event,
    NothingToPay,
    Outcome,
    OutcomeUnknown,
    ReasonMissing,
    Recorded,
    StatusRecord,
    TransferItem,
    TransferStatus,
    TransferUnknown,
    TransitionRefused,
    Trigger,
    UpdateStatus,
    UpdateType,
    VerdictCode,
)
from ledger.disbursement.updates import (
    TRANSFER_DECIDED,
    UPDATE_COLUMNS,
    UPDATE_WIDTH,
    Connection,
    LockedStore,
    NewUpdate,
    append,
    checked_limit,
    compensation_of,
    lock_store,
    one,
    publish,
    publish_if_instant,
    read_history,
    read_update,
    transaction,
)

CANCELLED_BY_HAND: Final = "CANCELLED_BY_HAND"
"""The reason of a transfer that a person, or the end of the time to confirm it, cancelled."""

FIRST_PAUSE: Final = timedelta(minutes=1)
LONGEST_PAUSE: Final = timedelta(hours=1)
"""How long what a failed transfer of a store paid at once freed waits for the next; it doubles each time in a row."""

_ACTOR: Final = "payment-hub"
_PAYMENT_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_WAITING: Final = TransferStatus.WAITING_FOR_CONFIRMATION
_TARGET: Final[Mapping[Outcome, TransferStatus]] = {
    Outcome.SETTLED: TransferStatus.APPLIED,
    Outcome.CANCELLED: TransferStatus.CANCELLED,
    Outcome.RETURNED: TransferStatus.REJECTED,
    Outcome.REJECTED: TransferStatus.CANCELLED,
}
_TRANSFER_COLUMNS: Final = (
    "t.id, t.number, t.store_id, t.amount, t.status, t.trigger, t.run_id, t.clabe, t.holder_name, t.tax_id, "
    "t.needs_confirmation, t.confirmed_by, t.confirmed_at, t.process_instance_key, t.reason, t.reason_detail, "
    "t.created_at, t.settled_at"
)
_BY_ID: Final = (
    "SELECT t.tenant_id, (SELECT count(*) FROM disbursement.bank_transfer_item i WHERE i.transfer_id = t.id), "
    + _TRANSFER_COLUMNS
    + " FROM disbursement.bank_transfer t WHERE t.id = %(id)s"
)
_FIND: Final = (
    "SELECT "
    + _TRANSFER_COLUMNS
    + " FROM disbursement.bank_transfer t WHERE t.tenant_id = %(tenant)s AND t.id = %(id)s"
)
_STORE_OF: Final = "SELECT store_id FROM disbursement.bank_transfer WHERE tenant_id = %(tenant)s AND id = %(id)s"
_ADOPT: Final = "UPDATE disbursement.bank_transfer SET process_instance_key = %(key)s WHERE id = %(id)s"
_STANDING: Final = (
    "SELECT CASE WHEN %(trigger)s = 'MANUAL' THEN n.verdict_by_hand "
    "WHEN %(trigger)s <> n.frequency THEN 'OTHER_FREQUENCY' ELSE n.verdict END, "
    + VERDICT_COLUMNS
    + " FROM disbursement.standing n WHERE n.tenant_id = %(tenant)s AND n.store_id = %(store)s"
)
# All of it in one statement: the store's pending updates are in the transfer or there is no transfer (L18, L27).
_COLLECT: Final = (
    "WITH taken AS (UPDATE disbursement.balance_update u SET status = 'IN_TRANSIT' "
    "WHERE u.tenant_id = %(tenant)s AND u.store_id = %(store)s AND u.status = 'PENDING' RETURNING u.id, u.effect), "
    "made AS (INSERT INTO disbursement.bank_transfer (id, tenant_id, store_id, amount, currency, trigger, run_id, "
    "clabe, holder_name, tax_id, needs_confirmation, process_instance_key) "
    "SELECT %(id)s, n.tenant_id, n.store_id, (SELECT sum(effect) FROM taken), n.currency, %(trigger)s, %(run_id)s, "
    "n.clabe, n.holder_name, n.tax_id, n.manual_confirmation, %(key)s "
    "FROM disbursement.standing n WHERE n.tenant_id = %(tenant)s AND n.store_id = %(store)s RETURNING *), "
    "recorded AS (INSERT INTO disbursement.bank_transfer_status (transfer_id, status, cause, actor) "
    "SELECT id, status, %(cause)s, %(actor)s FROM made), "
    "linked AS (INSERT INTO disbursement.bank_transfer_item (update_id, transfer_id) SELECT id, %(id)s FROM taken), "
    "told AS (INSERT INTO disbursement.balance_update_status (update_id, status, cause, actor) "
    "SELECT id, 'IN_TRANSIT', 'transfer ' || %(id)s, %(actor)s FROM taken) "
    "SELECT (SELECT count(*) FROM taken), " + _TRANSFER_COLUMNS + " FROM made t"
)
_BECOME: Final = (
    "WITH changed AS (UPDATE disbursement.bank_transfer SET status = %(status)s, reason = %(reason)s, "
    "reason_detail = %(reason_detail)s, settled_at = %(settled_at)s WHERE id = %(id)s RETURNING id, status) "
    "INSERT INTO disbursement.bank_transfer_status (transfer_id, status, cause, actor) "
    "SELECT id, status, %(cause)s, %(actor)s FROM changed"
)
_CONFIRM: Final = (
    "UPDATE disbursement.bank_transfer SET confirmed_by = %(actor)s, confirmed_at = clock_timestamp() "
    "WHERE id = %(id)s RETURNING confirmed_by, confirmed_at"
)
_APPLY_UPDATES: Final = (
    "WITH applied AS (UPDATE disbursement.balance_update u SET status = 'APPLIED' "
    "FROM disbursement.bank_transfer_item i WHERE i.transfer_id = %(id)s AND i.released_at IS NULL "
    "AND u.id = i.update_id RETURNING u.id) "
    "INSERT INTO disbursement.balance_update_status (update_id, status, cause, actor) "
    "SELECT id, 'APPLIED', %(cause)s, %(actor)s FROM applied"
)
_RELEASE_UPDATES: Final = (
    "WITH released AS (UPDATE disbursement.bank_transfer_item SET released_at = clock_timestamp() "
    "WHERE transfer_id = %(id)s AND released_at IS NULL RETURNING update_id), "
    "freed AS (UPDATE disbursement.balance_update u SET status = 'PENDING' FROM released r "
    "WHERE u.id = r.update_id RETURNING u.id) "
    "INSERT INTO disbursement.balance_update_status (update_id, status, cause, actor) "
    "SELECT id, 'PENDING', %(cause)s, %(actor)s FROM freed"
)
# A credit is disbursed while a contribution of it is applied; asked after the updates have their new status.
_FLAG_CREDITS: Final = (
    "WITH flagged AS (UPDATE disbursement.credit c SET disbursed = NOT c.disbursed "
    "WHERE c.tenant_id = %(tenant)s AND c.id IN (SELECT u.credit_id FROM disbursement.bank_transfer_item i "
    "JOIN disbursement.balance_update u ON u.id = i.update_id AND u.type = 'CONTRIBUTION' "
    "WHERE i.transfer_id = %(id)s) AND c.disbursed <> EXISTS (SELECT FROM disbursement.balance_update u "
    "WHERE u.tenant_id = c.tenant_id AND u.credit_id = c.id AND u.type = 'CONTRIBUTION' AND u.status = 'APPLIED') "
    "RETURNING c.*) "
    "INSERT INTO disbursement.credit_change (tenant_id, credit_id, amount_before, amount, commission_before, "
    "commission, disbursed_before, disbursed, cause, actor) "
    "SELECT tenant_id, id, amount, amount, commission, commission, NOT disbursed, disbursed, %(cause)s, %(actor)s "
    "FROM flagged"
)
# How many of a store's transfers in a row the provider did not pay; more than counted make no difference.
_FAILED_IN_A_ROW: Final = (
    "SELECT count(*) FROM (SELECT FROM disbursement.bank_transfer t "
    "WHERE t.tenant_id = %(tenant)s AND t.store_id = %(store)s AND t.status IN ('CANCELLED', 'REJECTED') "
    "AND t.reason IS DISTINCT FROM %(by_hand)s AND t.number > coalesce((SELECT max(a.number) "
    "FROM disbursement.bank_transfer a WHERE a.tenant_id = %(tenant)s AND a.store_id = %(store)s "
    "AND a.status = 'APPLIED'), 0) LIMIT 8) f"
)
_DISBURSEMENT: Final = (
    "SELECT "
    + UPDATE_COLUMNS
    + " FROM disbursement.balance_update u WHERE u.transfer_id = %(id)s AND u.type = 'DISBURSEMENT'"
)
_ITEMS: Final = (
    "SELECT " + UPDATE_COLUMNS + ", i.linked_at, i.released_at FROM disbursement.bank_transfer_item i "
    "JOIN disbursement.balance_update u ON u.id = i.update_id "
    "WHERE i.transfer_id = %(id)s AND u.tenant_id = %(tenant)s AND u.seq > %(after)s ORDER BY u.seq LIMIT %(limit)s"
)
_HISTORY: Final = (
    "SELECT r.status, r.at, r.cause, r.actor FROM disbursement.bank_transfer t "
    "JOIN disbursement.bank_transfer_status r ON r.transfer_id = t.id "
    "WHERE t.tenant_id = %(tenant)s AND t.id = %(id)s ORDER BY r.id"
)
_FILTERS: Final[dict[str, LiteralString]] = {
    "store": "AND t.store_id = %(store)s ",
    "merchant": "AND EXISTS (SELECT FROM disbursement.store s WHERE s.tenant_id = t.tenant_id AND s.id = t.store_id "
    "AND s.merchant_id = %(merchant)s) ",
    "status": "AND t.status = %(status)s ",
    "run_id": "AND t.run_id = %(run_id)s ",
    "before": "AND t.number < %(before)s ",
}


class Transfers:
    """The transfers of all tenants. Every method raises `hub.errors.Unavailable`; repeating one is always safe."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._events = EventLog(statements)

    async def collect(
        self,
        tenant: str,
        store: str,
        payment_id: str,
        trigger: Trigger,
        *,
        run_id: str | None = None,
        process_instance_key: int | None = None,
    ) -> Collected | NothingToPay:
        """Make one transfer of all the store's pending updates, if it is to be paid at all (L27 to L30, L55).

        `payment_id` (a UUID in lower case) is chosen by whoever asks: asking again answers the transfer it made. Raises
        `StoreUnknown`, and `DuplicateOperation` when the id is another store's.
        """
        if not _PAYMENT_ID.fullmatch(payment_id):
            raise ValueError("a payment id is a UUID in lower case")
        values = {
            "tenant": tenant,
            "store": store,
            "id": payment_id,
            "trigger": trigger,
            "run_id": run_id,
            "key": process_instance_key,
            "cause": f"collected by {trigger}",
            "actor": _ACTOR,
        }
        async with transaction(self._statements, "collect") as connection:
            await lock_store(connection, tenant, store)
            earlier = await one(connection, _BY_ID, {"id": payment_id})
            if earlier is not None:
                return await _collected_before(connection, earlier, values)
            verdict = read_verdict(await one(connection, _STANDING, values))
            if verdict.code is not VerdictCode.PAY:
                return NothingToPay(verdict)
            row = await one(connection, _COLLECT, values)
            return Collected(_read(row[1:]), row[0], again=False)

    async def record_sent(self, tenant: str, payment_id: str) -> Recorded:
        """The provider took the order (L24). Also right, and without effect, once the outcome is known.

        Raises `TransferUnknown`, `TransitionRefused` for a cancelled transfer and for one nobody has confirmed.
        """
        async with self._changing(tenant, payment_id, "record-sent", _ACTOR) as (connection, transfer):
            if transfer.must_wait or transfer.status is TransferStatus.CANCELLED:
                raise _refused(transfer, TransferStatus.IN_TRANSIT)
            if transfer.status is not _WAITING:
                return Recorded.REPEATED
            await _order_taken(connection, transfer)
        return Recorded.CHANGED

    async def record_outcome(
        self,
        tenant: str,
        payment_id: str,
        outcome: str,
        *,
        reason: str | None = None,
        reason_detail: str | None = None,
        at: datetime | None = None,
        source: str = "stp",
    ) -> Recorded:
        """What became of the order: a word of `Outcome` (L35 to L38, L44). `at` (with a zone): when, by the provider.

        The event is logged in a transaction of its own before it is handled, and what became of it after (L34). A
        repeat changes nothing (L41). Raises `TransferUnknown`, `TransitionRefused`, `OutcomeUnknown`.
        """
        if at is not None and at.tzinfo is None:
            raise ValueError("at needs a time zone")
        payload = {"reason": reason, "reason_detail": reason_detail, "at": None if at is None else at.isoformat()}
        async with self._events.handling(tenant, source, outcome, payment_id, payload) as handling:
            if outcome not in Outcome.__members__:
                raise OutcomeUnknown(outcome)
            async with transaction(self._statements, "record-outcome") as connection:
                store, transfer = await _lock_transfer(connection, tenant, payment_id)
                target = _TARGET[Outcome(outcome)]
                if transfer.status is target:
                    handling.outcome = "repeated"
                elif target is TransferStatus.APPLIED:
                    await _settle(connection, store, transfer, at)
                else:
                    ended = replace(transfer, status=target, reason=reason, reason_detail=reason_detail)
                    await _end(connection, store, transfer, ended, at)
        return Recorded.CHANGED if handling.outcome == "handled" else Recorded.REPEATED

    async def confirm(self, tenant: str, payment_id: str, actor: str) -> BankTransfer:
        """An authorised person lets a waiting transfer go (L23); the process is told. Confirming again changes nothing.

        Raises `TransferUnknown`, `TransitionRefused` when it waits for nobody.
        """
        async with self._changing(tenant, payment_id, "confirm", actor) as (connection, transfer):
            if transfer.confirmed_at is not None:
                return transfer
            if not transfer.must_wait:
                raise TransitionRefused(f"{transfer.status} -> confirmed")
            await publish(connection, TRANSFER_DECIDED, payment_id, _decision(tenant, payment_id, "CONFIRMED", actor))
            by, at = await one(connection, _CONFIRM, {"id": payment_id, "actor": actor})
        return replace(transfer, confirmed_by=by, confirmed_at=at)

    async def cancel(self, tenant: str, payment_id: str, actor: str, reason: str) -> BankTransfer:
        """Cancel a transfer that waits for a person (L23); its updates are pending again; the process is told.

        Cancelling again changes nothing. Raises `TransferUnknown`, `ReasonMissing`, `TransitionRefused` when it was
        confirmed or waits for nobody.
        """
        if not reason.strip():
            raise ReasonMissing
        async with self._changing(tenant, payment_id, "cancel", actor) as (connection, transfer):
            if transfer.status is TransferStatus.CANCELLED and transfer.reason == CANCELLED_BY_HAND:
                return transfer
            if not transfer.must_wait:
                raise _refused(transfer, TransferStatus.CANCELLED)
            cancelled = replace(
                transfer, status=TransferStatus.CANCELLED, reason=CANCELLED_BY_HAND, reason_detail=reason
            )
            await _become(connection, cancelled, "cancelled by hand", actor)
            await _release(connection, transfer, actor)
            await publish(connection, TRANSFER_DECIDED, payment_id, _decision(tenant, payment_id, "CANCELLED", actor))
        return cancelled

    async def find(self, tenant: str, payment_id: str) -> BankTransfer | None:
        """The transfer, or nothing when the tenant has no such one."""
        rows = await self._statements.rows(_FIND, {"tenant": tenant, "id": payment_id})
        return _read(rows[0]) if rows else None

    async def search(
        self,
        tenant: str,
        *,
        store: str | None = None,
        merchant: str | None = None,
        status: TransferStatus | None = None,
        run_id: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[BankTransfer]:
        """A page of transfers, newest first: those with a number below `before`."""
        asked = {"store": store, "merchant": merchant, "status": status, "run_id": run_id, "before": before}
        query: LiteralString = (
            "SELECT " + _TRANSFER_COLUMNS + " FROM disbursement.bank_transfer t WHERE t.tenant_id = %(tenant)s "
        )
        for name, given in asked.items():
            if given is not None:
                query += _FILTERS[name]
        query += "ORDER BY t.number DESC LIMIT %(limit)s"
        values = {"tenant": tenant, **asked, "limit": checked_limit(limit)}
        return [_read(row) for row in await self._statements.rows(query, values)]

    async def items(self, tenant: str, payment_id: str, after: int = 0, limit: int = 1000) -> Sequence[TransferItem]:
        """What a transfer was made of, by sequence; a page of those above `after`. Also after its release."""
        values = {"tenant": tenant, "id": payment_id, "after": after, "limit": checked_limit(limit)}
        rows = await self._statements.rows(_ITEMS, values)
        return [TransferItem(read_update(row[:UPDATE_WIDTH]), *row[UPDATE_WIDTH:]) for row in rows]

    async def history(self, tenant: str, payment_id: str) -> Sequence[StatusRecord]:
        """The statuses a transfer had, oldest first (L13); empty for one that is not this tenant's."""
        return read_history(await self._statements.rows(_HISTORY, {"tenant": tenant, "id": payment_id}))

    async def events(self, tenant: str, payment_id: str) -> Sequence[Event]:
        """What came in about a transfer, refused and repeated events included, oldest first (L34)."""
        return await self._events.about(tenant, payment_id)

    @asynccontextmanager
    async def _changing(
        self, tenant: str, payment_id: str, verb: str, actor: str
    ) -> AsyncIterator[tuple[Connection, BankTransfer]]:
        """The transfer with its store locked, in one transaction; what is refused is logged after it (L21)."""
        try:
            async with transaction(self._statements, verb) as connection:
                yield connection, (await _lock_transfer(connection, tenant, payment_id))[1]
        except (TransferUnknown, TransitionRefused):
            async with self._events.handling(tenant, _ACTOR, verb, payment_id, {"actor": actor}):
                raise


async def _collected_before(connection: Connection, earlier: Any, asked: Mapping[str, Any]) -> Collected:
    tenant, updates, transfer = earlier[0], earlier[1], _read(earlier[2:])
    if (tenant, transfer.store) != (asked["tenant"], asked["store"]):
        raise DuplicateOperation(transfer.id)
    if transfer.process_instance_key is None and asked["key"] is not None:
        await connection.execute(_ADOPT, {"id": transfer.id, "key": asked["key"]})
        transfer = replace(transfer, process_instance_key=asked["key"])
    return Collected(transfer, updates, again=True)


async def _settle(connection: Connection, store: LockedStore, transfer: BankTransfer, at: datetime | None) -> None:
    """L35: the updates are applied, the credits flagged, the disbursement booked. Raises `TransitionRefused`."""
    if transfer.status not in OPEN or transfer.must_wait:
        raise _refused(transfer, TransferStatus.APPLIED)
    if transfer.status is _WAITING:
        await _order_taken(connection, transfer)
    settled_at = at or datetime.now(UTC)
    await _become(
        connection, replace(transfer, status=TransferStatus.APPLIED, settled_at=settled_at), "settled", _ACTOR
    )
    values = {"tenant": store.tenant, "id": transfer.id, "cause": f"transfer {transfer.id} settled", "actor": _ACTOR}
    await connection.execute(_APPLY_UPDATES, values)
    await connection.execute(_FLAG_CREDITS, values)
    disbursement = NewUpdate(
        UpdateType.DISBURSEMENT,
        UpdateStatus.APPLIED,
        f"transfer:{transfer.id}:disbursement",
        _ACTOR,
        "settled",
        effect=-transfer.amount.minor,
        legs=[("@", "stp-settlement", transfer.amount.minor)],
        transfer=transfer.id,
        reference=transfer.id,
        effective_at=at,
    )
    await append(connection, store, disbursement)


async def _end(
    connection: Connection,
    store: LockedStore,
    transfer: BankTransfer,
    ended: BankTransfer,
    at: datetime | None,
) -> None:
    """L36 to L38, L44: nothing was paid, or it came back; the updates are free again. Raises `TransitionRefused`."""
    returned = ended.status is TransferStatus.REJECTED
    was_applied = transfer.status is TransferStatus.APPLIED
    if transfer.status not in OPEN and not (returned and was_applied):
        raise _refused(transfer, ended.status)
    if transfer.status is _WAITING and returned:
        if transfer.must_wait:
            raise _refused(transfer, ended.status)
        await _order_taken(connection, transfer)
    await _become(connection, ended, ended.status.lower(), _ACTOR)
    await _release(connection, transfer, _ACTOR)
    await _ask_again(connection, store, transfer)
    if was_applied:
        await _override(connection, store, ended, at)


async def _ask_again(connection: Connection, store: LockedStore, transfer: BankTransfer) -> None:
    """L26, L39: what the provider did not pay a store that is paid at once asks for the next transfer, but not at once:
    an account that refuses is not to be asked again and again."""
    values = {"tenant": store.tenant, "store": store.id, "by_hand": CANCELLED_BY_HAND}
    failed = max((await one(connection, _FAILED_IN_A_ROW, values))[0], 1)
    pause = min(FIRST_PAUSE * 2 ** (failed - 1), LONGEST_PAUSE)
    await publish_if_instant(connection, store, f"transfer:{transfer.id}:again", pause)


async def _order_taken(connection: Connection, transfer: BankTransfer) -> None:
    """L24. Also when the order's fate is heard of before the answer to it: the provider must have taken it."""
    await _become(connection, replace(transfer, status=TransferStatus.IN_TRANSIT), "order taken", _ACTOR)


async def _override(connection: Connection, store: LockedStore, transfer: BankTransfer, at: datetime | None) -> None:
    """L38 and L40: what was disbursed is owed again, and the credits are not disbursed any more."""
    values = {"tenant": store.tenant, "id": transfer.id, "cause": f"transfer {transfer.id} returned", "actor": _ACTOR}
    await connection.execute(_FLAG_CREDITS, values)
    disbursement = read_update(await one(connection, _DISBURSEMENT, {"id": transfer.id}))
    override = NewUpdate(
        compensation_of(disbursement),
        UpdateStatus.APPLIED,
        f"transfer:{transfer.id}:override",
        _ACTOR,
        "returned",
        overwrites=disbursement.id,
        transfer=transfer.id,
        reason=transfer.reason or "returned",
        reference=transfer.id,
        effective_at=at,
    )
    await append(connection, store, override)


async def _release(connection: Connection, transfer: BankTransfer, actor: str) -> None:
    """L36, L37: the updates are pending again, free for the next transfer (L19, L39)."""
    values = {"id": transfer.id, "cause": f"released by transfer {transfer.id}", "actor": actor}
    await connection.execute(_RELEASE_UPDATES, values)


async def _become(connection: Connection, transfer: BankTransfer, cause: str, actor: str) -> None:
    """Write the transfer's new status, with its reason and time of settlement, and record it (L13)."""
    values = {
        "id": transfer.id,
        "status": transfer.status,
        "reason": transfer.reason,
        "reason_detail": transfer.reason_detail,
        "settled_at": transfer.settled_at,
        "cause": cause,
        "actor": actor,
    }
    await connection.execute(_BECOME, values)


async def _lock_transfer(connection: Connection, tenant: str, payment_id: str) -> tuple[LockedStore, BankTransfer]:
    """The transfer as it is once its store is locked. Raises `TransferUnknown`."""
    values = {"tenant": tenant, "id": payment_id}
    found = await one(connection, _STORE_OF, values)
    if found is None:
        raise TransferUnknown(payment_id)
    store = await lock_store(connection, tenant, found[0])
    return store, _read(await one(connection, _FIND, values))


def _refused(transfer: BankTransfer, target: TransferStatus) -> TransitionRefused:
    waiting = " (nobody confirmed it)" if transfer.must_wait else ""
    return TransitionRefused(f"{transfer.status}{waiting} -> {target}")


def _decision(tenant: str, payment_id: str, decision: str, actor: str) -> dict[str, str]:
    return {"tenant_id": tenant, "payment_id": payment_id, "decision": decision, "decided_by": actor}


def _read(row: Sequence[Any]) -> BankTransfer:
    """A row of `_TRANSFER_COLUMNS`."""
    return BankTransfer(
        row[0], row[1], row[2], Money(row[3], CURRENCY), TransferStatus(row[4]), Trigger(row[5]), *row[6:]
    )
