"""Where a commission's inputs are kept, the monthly recalculation, and the trace of each computation (L46, L50, L57).

Nothing here reads or writes balances or transfers, and nothing of those reads this: what a credit costs is on the
credit (L47). Origination is what was signed for, whatever became of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from psycopg.types.json import Jsonb

from hub.statements import Statements
from hub.telemetry import logger
from ledger.disbursement.commission import Inputs, Schedule, Step, monthly_rate
from ledger.disbursement.edits import (
    Action,
    Connection,
    Object,
    lock_merchant,
    lock_store,
    record,
    reset_merchant,
    reset_store,
)
from ledger.disbursement.model import StoreUnknown
from ledger.disbursement.options import PaymentOption, locked_option
from ledger.disbursement.refusals import MerchantUnknown

log = logger(__name__)

ZONE: Final = ZoneInfo("America/Mexico_City")
"""Whose months count."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One computation: what went in and what came out (L57)."""

    id: int
    kind: str
    credit: str | None
    option: str | None
    month: date | None
    inputs: dict[str, Any]
    result: dict[str, Any]
    actor: str
    computed_at: datetime


@dataclass(frozen=True, slots=True)
class Recalculated:
    """What a month's recalculation did with the options that have auto-update."""

    month: date
    changed: tuple[str, ...]
    same: int
    """Computed, and the rate stayed."""
    before: int
    """Done for this month by an earlier recalculation."""
    on_trial: int
    without_standard: int

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "month": f"{self.month:%Y-%m}", "changed": list(self.changed)}

    def __str__(self) -> str:
        return (
            f"{self.month:%Y-%m}: {len(self.changed)} options changed, {self.same} stay, "
            f"{self.before} were done before, {self.on_trial} are on trial, "
            f"{self.without_standard} have no standard rate."
        )


_STANDARDS: Final = (
    "SELECT (SELECT c.basis_points FROM disbursement.commission_standard c WHERE c.tenant_id = %(tenant)s "
    "AND c.merchant_id = %(merchant)s AND c.store_id IS NULL ORDER BY c.id DESC LIMIT 1), "
    "(SELECT c.basis_points FROM disbursement.commission_standard c WHERE c.tenant_id = %(tenant)s "
    "AND c.merchant_id = %(merchant)s AND c.store_id = %(store)s ORDER BY c.id DESC LIMIT 1), "
    "(SELECT c.steps FROM disbursement.commission_schedule c WHERE c.tenant_id = %(tenant)s "
    "ORDER BY c.id DESC LIMIT 1), "
    "(SELECT coalesce(sum(c.amount), 0)::bigint FROM disbursement.credit c JOIN disbursement.store s "
    "ON s.tenant_id = c.tenant_id AND s.id = c.store_id AND s.merchant_id = %(merchant)s "
    "WHERE c.tenant_id = %(tenant)s AND c.signed_at >= %(since)s AND c.signed_at < %(until)s)"
)
_SET_STANDARD: Final = (
    "INSERT INTO disbursement.commission_standard (tenant_id, merchant_id, store_id, basis_points, actor) "
    "VALUES (%(tenant)s, %(merchant)s, %(store)s, %(points)s, %(actor)s)"
)
_SET_SCHEDULE: Final = (
    "INSERT INTO disbursement.commission_schedule (tenant_id, steps, actor) VALUES (%(tenant)s, %(steps)s, %(actor)s)"
)
_SCHEDULE: Final = (
    "SELECT steps FROM disbursement.commission_schedule WHERE tenant_id = %(tenant)s ORDER BY id DESC LIMIT 1"
)
_TRACE: Final = (
    "INSERT INTO disbursement.commission_trace (tenant_id, kind, credit_id, option_id, month, inputs, result, actor) "
    "VALUES (%(tenant)s, %(kind)s, %(credit)s, %(option)s, %(month)s, %(inputs)s, %(result)s, %(actor)s) "
    "ON CONFLICT DO NOTHING RETURNING id"
)
_TRACES: Final = (
    "SELECT id, kind, credit_id, option_id, month, inputs, result, actor, computed_at "
    "FROM disbursement.commission_trace "
    "WHERE tenant_id = %(tenant)s AND credit_id = %(credit)s ORDER BY id LIMIT 100"
)
_AUTO_UPDATE: Final = (
    "SELECT id FROM disbursement.payment_option WHERE tenant_id = %(tenant)s AND auto_update AND id > %(after)s "
    "ORDER BY id LIMIT 500"
)
_DONE: Final = (
    "SELECT FROM disbursement.commission_trace "
    "WHERE tenant_id = %(tenant)s AND option_id = %(option)s AND month = %(month)s AND kind = 'MONTHLY'"
)
_TAKE: Final = (
    "UPDATE disbursement.payment_option SET merchant_commission = %(points)s "
    "WHERE tenant_id = %(tenant)s AND id = %(option)s"
)
_ALL_STANDARDS: Final = (
    "SELECT DISTINCT ON (merchant_id, store_id) merchant_id, store_id, basis_points "
    "FROM disbursement.commission_standard WHERE tenant_id = %(tenant)s ORDER BY merchant_id, store_id, id DESC"
)
_ALL_ORIGINATION: Final = (
    "SELECT s.merchant_id, (date_trunc('month', c.signed_at AT TIME ZONE %(zone)s))::date AS month, "
    "sum(c.amount)::bigint FROM disbursement.credit c JOIN disbursement.store s "
    "ON s.tenant_id = c.tenant_id AND s.id = c.store_id "
    "WHERE c.tenant_id = %(tenant)s GROUP BY 1, 2"
)
_TENANTS: Final = "SELECT DISTINCT tenant_id FROM disbursement.payment_option WHERE auto_update ORDER BY tenant_id"
_TENANTS_DUE: Final = (
    "SELECT DISTINCT o.tenant_id FROM disbursement.payment_option o WHERE o.auto_update "
    "AND (o.trial_ends_at IS NULL OR o.trial_ends_at < %(at)s) "
    "AND EXISTS (SELECT FROM disbursement.commission_standard c WHERE c.tenant_id = o.tenant_id "
    "AND c.merchant_id = o.merchant_id AND (c.store_id IS NULL OR c.store_id = o.store_id)) "
    "AND NOT EXISTS (SELECT FROM disbursement.commission_trace t WHERE t.tenant_id = o.tenant_id "
    "AND t.option_id = o.id AND t.month = %(month)s AND t.kind = 'MONTHLY') ORDER BY o.tenant_id"
)


class Commissions:
    """Standard rates, the schedule of steps, and the options that follow them month by month."""

    def __init__(self, statements: Statements, zone: ZoneInfo = ZONE) -> None:
        self._statements = statements
        self._zone = zone

    async def set_standard(
        self, tenant: str, merchant: str, basis_points: int, *, store: str | None = None, actor: str
    ) -> None:
        """The standard rate of a merchant, or of one of its stores: an edit of it (L53).

        Raises `MerchantUnknown`, `StoreUnknown`.
        """
        values = {"tenant": tenant, "merchant": merchant, "store": store, "points": basis_points, "actor": actor}
        async with self._statements.connection() as connection, connection.transaction():
            if store is not None:
                found = await lock_store(connection, tenant, store)
                if found is None or found[0] != merchant:
                    raise StoreUnknown(store)
            if await lock_merchant(connection, tenant, merchant) is None:
                raise MerchantUnknown(merchant)
            (row,) = await (await connection.execute(_STANDARDS, {**values, **self._month_before(None)})).fetchall()
            present = row[0] if store is None else row[1]
            if present == basis_points:
                return
            await connection.execute(_SET_STANDARD, values)
            what = (Object.MERCHANT, merchant) if store is None else (Object.STORE, store)
            before, after = {"standard": present}, {"standard": basis_points}
            await record(connection, tenant, what, Action.STANDARD, before=before, after=after, actor=actor)
            if store is None:
                await reset_merchant(connection, tenant, merchant, actor=actor)
            else:
                await reset_store(connection, tenant, store, actor=actor)

    async def set_schedule(self, tenant: str, steps: Sequence[Step], *, actor: str) -> Schedule:
        """The tenant's steps, all of them; they count from now on."""
        kept = [asdict(step) for step in sorted(steps)]
        async with self._statements.connection() as connection, connection.transaction():
            before = await (await connection.execute(_SCHEDULE, {"tenant": tenant})).fetchone()
            if before is None or before[0] != kept:
                values = {"tenant": tenant, "steps": Jsonb(kept), "actor": actor}
                await connection.execute(_SET_SCHEDULE, values)
                what = (Object.SCHEDULE, tenant)
                was = None if before is None else {"steps": before[0]}
                after = {"steps": kept}
                await record(connection, tenant, what, Action.EDITED, before=was, after=after, actor=actor)
        return Schedule.of(kept)

    async def schedule(self, tenant: str) -> Schedule:
        """The steps in force."""
        rows = await self._statements.rows(_SCHEDULE, {"tenant": tenant})
        return Schedule.of(rows[0][0] if rows else ())

    async def traces(self, tenant: str, credit: str) -> list[Trace]:
        """How a credit's commission came about, oldest first (L57)."""
        rows = await self._statements.rows(_TRACES, {"tenant": tenant, "credit": credit})
        return [Trace(*row) for row in rows]

    async def tenants(self) -> list[str]:
        """Those that have options with auto-update."""
        return [row[0] for row in await self._statements.rows(_TENANTS)]

    async def recalculate_due(self, at: datetime | None = None) -> None:
        """Recalculate for the present month wherever an option has not taken its change yet; a timer calls this."""
        at = at or datetime.now(self._zone)
        month = at.astimezone(self._zone).date().replace(day=1)
        for (tenant,) in await self._statements.rows(_TENANTS_DUE, {"at": at, "month": month}):
            done = await self.recalculate(tenant, month, actor="timer", at=at)
            log.info("commissions.recalculated", tenant=tenant, month=f"{month:%Y-%m}", changed=len(done.changed))

    async def recalculate(self, tenant: str, month: date, *, actor: str, at: datetime | None = None) -> Recalculated:
        """Give every option with auto-update its rate for `month` (any day of it), from the origination before (L50).

        An option takes a month's change once, so repeating it, or going on after a crash, changes nothing twice. An
        option on trial keeps its own rate until the trial's end, and takes the change when it is recalculated after.
        Validation stays: the rate follows rules that were validated, nobody edited it. `at`: now, unless a test says.
        """
        month = month.replace(day=1)
        found: dict[str, list[str]] = {"changed": [], "same": [], "before": [], "on_trial": [], "without_standard": []}
        after = ""
        while page := await self._statements.rows(_AUTO_UPDATE, {"tenant": tenant, "after": after}):
            for (option,) in page:
                found[await self._recalculated(tenant, option, month, actor, at or datetime.now(self._zone))].append(
                    option
                )
            after = page[-1][0]
        counts = {name: len(found[name]) for name in ("same", "before", "on_trial", "without_standard")}
        return Recalculated(month, tuple(found["changed"]), **counts)

    async def _recalculated(self, tenant: str, option_id: str, month: date, actor: str, at: datetime) -> str:
        async with self._statements.connection() as connection, connection.transaction():
            option = await locked_option(connection, tenant, option_id)
            here = {"tenant": tenant, "option": option_id, "month": month}
            if await (await connection.execute(_DONE, here)).fetchone() is not None:
                return "before"
            if option.on_trial(at):
                return "on_trial"
            inputs = await self.inputs(connection, tenant, option, 0, at, month=month)
            points = monthly_rate(inputs)
            if points is None:
                return "without_standard"
            result = {"basis_points": points, "before": option.merchant_commission}
            await trace(
                connection, tenant, "MONTHLY", inputs.as_json(), result, option=option_id, month=month, actor=actor
            )
            if points == option.merchant_commission:
                return "same"
            await connection.execute(_TAKE, {**here, "points": points})
            what = (Object.OPTION, option_id)
            before, after = {"merchant_commission": option.merchant_commission}, {"merchant_commission": points}
            await record(connection, tenant, what, Action.RECALCULATED, before=before, after=after, actor=actor)
            return "changed"

    async def inputs(
        self,
        connection: Connection,
        tenant: str,
        option: PaymentOption,
        amount: int,
        at: datetime,
        *,
        month: date | None = None,
    ) -> Inputs:
        """All that a commission may look at, as it is kept now; `amount` in minor units."""
        values = {"tenant": tenant, "merchant": option.merchant_id, "store": option.store_id}
        span = self._month_before(month or at.astimezone(self._zone).date())
        (row,) = await (await connection.execute(_STANDARDS, {**values, **span})).fetchall()
        return Inputs(
            merchant_standard=row[0],
            store_standard=row[1],
            origination=row[3],
            payments=option.payments,
            agreed=option.merchant_commission,
            promotion=option.promotion,
            trial=option.on_trial(at),
            schedule=Schedule.of(row[2] or ()),
            amount=amount,
        )

    def _month_before(self, day: date | None) -> dict[str, datetime]:
        """The first instants of the calendar month before the one `day` is in, and of that one."""
        first = (day or datetime.now(self._zone).date()).replace(day=1)
        before = (first - timedelta(days=1)).replace(day=1)
        since, until = (datetime(one.year, one.month, 1, tzinfo=self._zone) for one in (before, first))
        return {"since": since, "until": until}


class Figures:
    """What commissions of a tenant look at besides the option, read once for many credits."""

    def __init__(
        self,
        standards: Mapping[tuple[str, str | None], int],
        origination: Mapping[tuple[str, date], int],
        schedule: Schedule,
        zone: ZoneInfo,
    ) -> None:
        self._standards = standards
        self._origination = origination
        self._schedule = schedule
        self._zone = zone

    @classmethod
    async def read(cls, connection: Connection, tenant: str, zone: ZoneInfo) -> Figures:
        """As they are kept now."""
        values = {"tenant": tenant, "zone": zone.key}
        standards = await (await connection.execute(_ALL_STANDARDS, values)).fetchall()
        signed = await (await connection.execute(_ALL_ORIGINATION, values)).fetchall()
        steps = await (await connection.execute(_SCHEDULE, values)).fetchone()
        return cls(
            {(merchant, store): points for merchant, store, points in standards},
            {(merchant, month): amount for merchant, month, amount in signed},
            Schedule.of(steps[0] if steps else ()),
            zone,
        )

    def inputs(self, option: PaymentOption, amount: int, at: datetime) -> Inputs:
        """The same as `Commissions.inputs`."""
        before = at.astimezone(self._zone).date().replace(day=1) - timedelta(days=1)
        return Inputs(
            merchant_standard=self._standards.get((option.merchant_id, None)),
            store_standard=self._standards.get((option.merchant_id, option.store_id)),
            origination=self._origination.get((option.merchant_id, before.replace(day=1)), 0),
            payments=option.payments,
            agreed=option.merchant_commission,
            promotion=option.promotion,
            trial=option.on_trial(at),
            schedule=self._schedule,
            amount=amount,
        )


async def trace(
    connection: Connection,
    tenant: str,
    kind: str,
    inputs: dict[str, Any],
    result: dict[str, Any],
    *,
    credit: str | None = None,
    option: str | None = None,
    month: date | None = None,
    actor: str,
) -> None:
    """Keep what went into a computation and what came out, in its transaction (L57)."""
    values = {"tenant": tenant, "kind": kind, "credit": credit, "option": option, "month": month, "actor": actor}
    await connection.execute(_TRACE, {**values, "inputs": Jsonb(inputs), "result": Jsonb(result)})
