"""When stores are due and what each run finds: schedules, runs, and a verdict on every store looked at (L25 to L31).

A schedule is a cron line in a time zone, per tenant and frequency. Somebody calls `plan` every few minutes: a frequency
whose last firing lies after its last run gets one run, however many firings were missed. A run is unique by tenant,
frequency and moment, so two who plan at once make one. From there on everything has ids that follow from the run's:
asking for a store's payment again is the same payment.

    plan → claim → select, page by page → close
"""
# ruff: noqa: S608 (values are always bound; only our own column lists are put together)

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from psycopg.types.json import Jsonb

from hub.money import Money
from hub.statements import Statements
from ledger.disbursement.model import DisbursementRefused, Frequency, Verdict, VerdictCode

RUN_REQUESTED: Final = "disbursement.run-requested"
"""The message that begins a run which a person asked for."""

ABANDONED_AFTER: Final = timedelta(days=1)
"""A run that was begun so long ago and is still open goes to whoever asks for one: its process has gone."""

_IDS: Final = uuid.UUID("6f1f6d0c-0d43-5d0e-9a5b-0b8a3a2f4c11")
_UTC_OFFSET_AHEAD: Final = timedelta(seconds=1)


class BadSchedule(DisbursementRefused):
    """The cron line or the time zone is none."""

    code = "schedule-not-allowed"


class RunUnknown(DisbursementRefused):
    """The tenant has no such run."""

    code = "run-unknown"


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron line of five fields, read in a time zone. Raises `BadSchedule`."""

    line: str
    time_zone: str

    def __post_init__(self) -> None:
        if len(self.line.split()) != 5:
            raise BadSchedule("a cron line has five fields: minute, hour, day of month, month, day of week")
        try:
            next(CronSim(self.line, datetime.now(self.zone)))
        except CronSimError as error:
            raise BadSchedule(f"the cron line is none: {error}") from None
        except StopIteration:
            raise BadSchedule("the cron line never fires") from None

    @property
    def zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise BadSchedule("the time zone is none of the tz database, such as America/Mexico_City") from None

    def last(self, moment: datetime) -> datetime:
        """The newest firing that is not after `moment`, in UTC.

        A wall time that a change of the clocks skips fires after the gap; one that comes twice fires at its first.
        """
        ahead = moment.replace(microsecond=0) + _UTC_OFFSET_AHEAD
        return next(CronSim(self.line, ahead.astimezone(self.zone), reverse=True)).astimezone(UTC)

    def next(self, moment: datetime) -> datetime:
        """The first firing after `moment`, in UTC."""
        return next(CronSim(self.line, moment.astimezone(self.zone))).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Defaults:
    """When the stores of tenants that set nothing are paid."""

    time_zone: str = "America/Mexico_City"
    lines: Mapping[Frequency, str] = field(
        default_factory=lambda: {
            Frequency.INSTANT: "30 * * * *",
            Frequency.HOURLY: "0 * * * *",
            Frequency.DAILY: "0 9 * * *",
            Frequency.WEEKLY: "0 9 * * 1",
            Frequency.MONTHLY: "0 9 1 * *",
        }
    )
    """`INSTANT` stores are paid as their updates come; their line is the sweep for what became payable otherwise."""

    def cron(self, frequency: Frequency) -> Cron:
        """Raises `BadSchedule`."""
        return Cron(self.lines[frequency], self.time_zone)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a tenant's stores of one frequency are due. Without `set_by`: by the settings."""

    frequency: Frequency
    cron: str
    time_zone: str
    next_at: datetime
    set_at: datetime | None
    set_by: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One firing of a frequency for a tenant."""

    id: str
    number: int
    """Grows with time; what pages go by."""
    tenant: str
    frequency: Frequency
    scheduled_for: datetime
    requested_by: str | None
    created_at: datetime
    process_instance_key: int | None
    claimed_at: datetime | None
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class DueStore:
    """A store that a run asks to be paid, and the payment it is from now on."""

    store: str
    payment_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """The due stores among some that were looked at. `after`: where the next page begins; None after the last."""

    due: Sequence[DueStore]
    after: str | None


@dataclass(frozen=True, slots=True)
class StoreOfRun:
    """What a run found of a store. `payment_id`: what it asked for, if anything."""

    verdict: Verdict
    payment_id: str | None
    considered_at: datetime


@dataclass(frozen=True, slots=True)
class Tally:
    """How many stores of a run got each verdict, and what those to be paid sum to."""

    stores: Mapping[VerdictCode, int]
    asked: Money


def run_id(tenant: str, frequency: Frequency, scheduled_for: datetime) -> str:
    """The id of the run of this moment, whoever makes it."""
    return str(uuid.uuid5(_IDS, f"{tenant}/{frequency}/{scheduled_for.astimezone(UTC).isoformat()}"))


def payment_of(run: str, store: str) -> str:
    """The payment of a store in a run: the same however often it is asked for."""
    return str(uuid.uuid5(_IDS, f"{run}/{store}"))


class Runs:
    """The schedules and runs of all tenants. Every method raises `hub.errors.Unavailable`; repeating one is safe."""

    def __init__(self, statements: Statements, defaults: Defaults | None = None) -> None:
        self._statements = statements
        self._defaults = defaults or Defaults()

    # --- Schedules

    async def schedules(self, tenant: str, moment: datetime | None = None) -> Sequence[Schedule]:
        """When the tenant's stores are due, by frequency."""
        rows = {Frequency(row[0]): row for row in await self._statements.rows(_SCHEDULES, {"tenant": tenant})}
        return [self._schedule(frequency, rows.get(frequency), moment or _now()) for frequency in Frequency]

    def _schedule(self, frequency: Frequency, row: Sequence[Any] | None, moment: datetime) -> Schedule:
        cron = self._defaults.cron(frequency) if row is None else Cron(row[1], row[2])
        set_at, set_by = (None, None) if row is None else (row[3], row[4])
        return Schedule(frequency, cron.line, cron.time_zone, cron.next(moment), set_at, set_by)

    async def set_schedule(self, tenant: str, frequency: Frequency, cron: str, time_zone: str, actor: str) -> Schedule:
        """From now on the tenant's stores of this frequency are due then. Raises `BadSchedule`."""
        checked = Cron(cron, time_zone)
        given = {"tenant": tenant, "frequency": frequency, "cron": cron, "zone": time_zone, "actor": actor}
        [[set_at]] = await self._statements.rows(_SET_SCHEDULE, given)
        return Schedule(frequency, cron, time_zone, checked.next(set_at), set_at, actor)

    # --- Runs

    async def request(self, tenant: str, frequency: Frequency, actor: str) -> Run:
        """A person asks for a run now, whatever the schedule says; the process that does it is told."""
        async with self._statements.connection() as connection, connection.transaction():
            moment = _now()
            made = run_id(tenant, frequency, moment)
            given = {"id": made, "tenant": tenant, "frequency": frequency, "moment": moment, "actor": actor}
            cursor = await connection.execute(_MAKE, given)
            row = await cursor.fetchone()
            if row is None:
                raise LookupError("two runs were asked for in one microsecond; ask again")
            payload = {"run_id": made, "tenant_id": tenant, "frequency": frequency}
            await connection.execute(_TELL, {"message": RUN_REQUESTED, "key": made, "payload": Jsonb(payload)})
            return _run(row)

    async def plan(self, moment: datetime | None = None) -> Sequence[Run]:
        """Make the runs that are due at `moment` and not made yet: one per tenant and frequency, the newest firing."""
        moment = moment or _now()
        made: list[Run] = []
        for tenant, frequency, line, zone, since in await self._statements.rows(_PLANNED):
            cron = self._defaults.cron(Frequency(frequency)) if line is None else Cron(line, zone)
            firing = cron.last(moment)
            if firing > since and await self._is_worth_it(tenant, frequency):
                made += await self._make(tenant, Frequency(frequency), firing)
        return made

    async def _is_worth_it(self, tenant: str, frequency: str) -> bool:
        """Instant stores are paid as their updates come: a run of theirs is made only where one was left behind."""
        given = {"tenant": tenant, "frequency": frequency}
        return frequency != Frequency.INSTANT or bool(await self._statements.rows(_PAYABLE, given))

    async def _make(self, tenant: str, frequency: Frequency, firing: datetime) -> Sequence[Run]:
        """The run of this firing, unless somebody else makes it."""
        made = run_id(tenant, frequency, firing)
        given = {"id": made, "tenant": tenant, "frequency": frequency, "moment": firing, "actor": None}
        return [_run(row) for row in await self._statements.rows(_MAKE, given)]

    async def claim(self, process_instance_key: int) -> Run | None:
        """The next open run for this process instance: the one it has already, or the oldest that nobody has."""
        given = {"key": process_instance_key, "abandoned": ABANDONED_AFTER}
        rows = await self._statements.rows(_CLAIM, given)
        return _run(rows[0]) if rows else None

    async def select(self, run: str, after: str | None = None, limit: int = 200) -> Page:
        """Look at the run's next `limit` stores, keep the verdict on each, and answer those that are to be paid.

        Asked again it answers the same stores: the first verdict stands. Raises `RunUnknown`.
        """
        async with self._statements.connection() as connection, connection.transaction():
            found = await (await connection.execute(_FIND, {"run": run})).fetchone()
            if found is None:
                raise RunUnknown(run)
            known = _run(found)
            given = {"tenant": known.tenant, "frequency": known.frequency, "after": after or "", "limit": limit}
            only_payable = known.frequency is Frequency.INSTANT and known.requested_by is None
            rows = await (await connection.execute(_LOOK, given | {"only_payable": only_payable})).fetchall()
            looked = [row[0] for row in rows]
            kept = {
                "run": run,
                "stores": looked,
                "verdicts": [row[1] for row in rows],
                "updates": [row[2] for row in rows],
                "totals": [row[3] for row in rows],
                "minima": [row[4] for row in rows],
                "payments": [payment_of(run, row[0]) if row[1] == VerdictCode.PAY else None for row in rows],
            }
            await connection.execute(_KEEP, kept)
            due = await (await connection.execute(_DUE, {"run": run, "stores": looked})).fetchall()
            return Page([DueStore(*row) for row in due], looked[-1] if len(looked) == limit else None)

    async def close(self, run: str) -> Run:
        """Every store was looked at and every due one asked for. Raises `RunUnknown`."""
        rows = await self._statements.rows(_CLOSE, {"run": run})
        if not rows:
            raise RunUnknown(run)
        return _run(rows[0])

    async def find(self, tenant: str, run: str) -> Run | None:
        """The run, or nothing when the tenant has no such one."""
        rows = await self._statements.rows(_FIND, {"run": run})
        return _run(rows[0]) if rows and rows[0][2] == tenant else None

    async def search(
        self, tenant: str, *, frequency: Frequency | None = None, before: int | None = None, limit: int = 100
    ) -> Sequence[Run]:
        """A page of the tenant's runs, newest first: those with a number below `before`, of `frequency` or any."""
        given = {"tenant": tenant, "frequency": frequency, "before": before, "limit": limit}
        rows = await self._statements.rows(_SEARCH, given)
        return [_run(row) for row in rows]

    async def tally(self, tenant: str, run: str) -> Tally:
        """How many stores got which verdict so far; empty for a run that is not the tenant's."""
        rows = await self._statements.rows(_TALLY, {"tenant": tenant, "run": run})
        asked = sum(int(total) for verdict, _, total in rows if verdict == VerdictCode.PAY)
        return Tally({VerdictCode(verdict): count for verdict, count, _ in rows}, Money(asked, "MXN"))

    async def stores(
        self, tenant: str, run: str, *, verdict: VerdictCode | None = None, after: str | None = None, limit: int = 1000
    ) -> Sequence[StoreOfRun]:
        """A page of what a run found, by store id: those after store `after`, with `verdict` or any."""
        given = {"tenant": tenant, "run": run, "verdict": verdict, "after": after or "", "limit": limit}
        return [_store(row) for row in await self._statements.rows(_STORES, given)]


def _now() -> datetime:
    return datetime.now(UTC)


def _run(row: Sequence[Any]) -> Run:
    identity, number, tenant, frequency, *rest = row
    return Run(identity, number, tenant, Frequency(frequency), *rest)


def _store(row: Sequence[Any]) -> StoreOfRun:
    store, merchant, frequency, verdict, updates, total, minimum, payment_id, considered_at = row
    found = Verdict(
        store=store,
        merchant=merchant,
        frequency=Frequency(frequency),
        code=VerdictCode(verdict),
        updates=updates,
        total=Money(total, "MXN"),
        minimum=Money(minimum, "MXN"),
    )
    return StoreOfRun(found, payment_id, considered_at)


_SCHEDULES: Final = """
    SELECT DISTINCT ON (frequency) frequency, cron, time_zone, set_at, set_by FROM disbursement.schedule
     WHERE tenant_id = %(tenant)s ORDER BY frequency, id DESC
    """
_SET_SCHEDULE: Final = """
    INSERT INTO disbursement.schedule (tenant_id, frequency, cron, time_zone, set_by)
    VALUES (%(tenant)s, %(frequency)s, %(cron)s, %(zone)s, %(actor)s) RETURNING set_at
    """
_COLUMNS: Final = (
    "id, number, tenant_id, frequency, scheduled_for, requested_by, created_at, process_instance_key, claimed_at, "
    "closed_at"
)
# Since when a firing counts: the last run that a schedule made, a newer schedule, or the first store of the frequency.
_PLANNED: Final = """
    SELECT s.tenant_id, s.frequency, c.cron, c.time_zone,
           greatest(s.first_at, c.set_at,
                    (SELECT max(r.scheduled_for) FROM disbursement.run r
                      WHERE r.tenant_id = s.tenant_id AND r.frequency = s.frequency AND r.requested_by IS NULL))
      FROM (SELECT tenant_id, frequency, min(created_at) AS first_at FROM disbursement.store GROUP BY 1, 2) s
      LEFT JOIN LATERAL (SELECT * FROM disbursement.schedule d
                          WHERE d.tenant_id = s.tenant_id AND d.frequency = s.frequency
                          ORDER BY d.id DESC LIMIT 1) c ON true
     ORDER BY 1, 2
    """
_PAYABLE: Final = """
    SELECT 1 FROM disbursement.standing
     WHERE tenant_id = %(tenant)s AND frequency = %(frequency)s AND verdict = 'PAY' LIMIT 1
    """
_MAKE: Final = f"""
    INSERT INTO disbursement.run (id, tenant_id, frequency, scheduled_for, requested_by)
    VALUES (%(id)s, %(tenant)s, %(frequency)s, %(moment)s, %(actor)s)
    ON CONFLICT DO NOTHING
    RETURNING {_COLUMNS}
    """
_TELL: Final = """
    INSERT INTO disbursement.outbox (message, correlation, payload) VALUES (%(message)s, %(key)s, %(payload)s)
    """
_CLAIM: Final = f"""
    UPDATE disbursement.run SET process_instance_key = %(key)s, claimed_at = clock_timestamp()
     WHERE id = (SELECT id FROM disbursement.run
                  WHERE closed_at IS NULL
                    AND (process_instance_key IS NULL OR process_instance_key = %(key)s
                         OR claimed_at < clock_timestamp() - %(abandoned)s)
                  ORDER BY process_instance_key = %(key)s DESC NULLS LAST, number
                  LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING {_COLUMNS}
    """
_FIND: Final = f"SELECT {_COLUMNS} FROM disbursement.run WHERE id = %(run)s"
_LOOK: Final = """
    SELECT store_id, verdict, updates, total::bigint, minimum_amount FROM disbursement.standing
     WHERE tenant_id = %(tenant)s AND frequency = %(frequency)s AND store_id > %(after)s
       AND (verdict = 'PAY' OR NOT %(only_payable)s)
     ORDER BY store_id LIMIT %(limit)s
    """
_KEEP: Final = """
    INSERT INTO disbursement.run_store (run_id, store_id, verdict, updates, total, minimum, payment_id)
    SELECT %(run)s, x.* FROM unnest(%(stores)s::text[], %(verdicts)s::text[], %(updates)s::bigint[],
                                    %(totals)s::bigint[], %(minima)s::bigint[], %(payments)s::text[]) AS x
    ON CONFLICT DO NOTHING
    """
_DUE: Final = """
    SELECT store_id, payment_id FROM disbursement.run_store
     WHERE run_id = %(run)s AND store_id = ANY (%(stores)s::text[]) AND payment_id IS NOT NULL ORDER BY store_id
    """
_CLOSE: Final = f"""
    UPDATE disbursement.run SET closed_at = coalesce(closed_at, clock_timestamp()) WHERE id = %(run)s
    RETURNING {_COLUMNS}
    """
_SEARCH: Final = f"""
    SELECT {_COLUMNS} FROM disbursement.run
     WHERE tenant_id = %(tenant)s AND (%(before)s::bigint IS NULL OR number < %(before)s::bigint)
       AND (%(frequency)s::text IS NULL OR frequency = %(frequency)s::text)
     ORDER BY number DESC LIMIT %(limit)s
    """
_TALLY: Final = """
    SELECT x.verdict, count(*), sum(x.total) FROM disbursement.run_store x JOIN disbursement.run r ON r.id = x.run_id
     WHERE r.tenant_id = %(tenant)s AND r.id = %(run)s GROUP BY 1 ORDER BY 1
    """
_STORES: Final = """
    SELECT x.store_id, s.merchant_id, s.frequency, x.verdict, x.updates, x.total, x.minimum, x.payment_id,
           x.considered_at
      FROM disbursement.run r JOIN disbursement.run_store x ON x.run_id = r.id
      JOIN disbursement.store s ON s.tenant_id = r.tenant_id AND s.id = x.store_id
     WHERE r.tenant_id = %(tenant)s AND r.id = %(run)s AND x.store_id > %(after)s
       AND (%(verdict)s::text IS NULL OR x.verdict = %(verdict)s::text)
     ORDER BY x.store_id LIMIT %(limit)s
    """
