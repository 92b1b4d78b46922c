"""What reconciliation keeps: runs, the lines STP showed, receipts, breaks. PostgreSQL, schema `stp`.

A page and the note that it was read are one transaction, and so are a run's breaks and its end: whoever dies in between
leaves a run that goes on, and two who do the same run end it once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, LiteralString

from connectors.stp.breaks import Break, BreakClass, Direction, Known, Line
from connectors.stp.model import OrderState, Sending
from connectors.stp.wire import MONEY_BACK, ListedOrder, Page
from hub.statements import Statements
from hub.transfer import PaymentId, TenantId

STALE_AFTER: Final = timedelta(hours=6)
"""A run that broke off longer ago begins anew: what STP showed then may have changed."""

_MISSED_AT_MOST: Final = timedelta(days=7)
_DECIDED: Final = {"CREDITED": OrderState.SETTLED, "REFUSED": OrderState.RETURNED, None: OrderState.PENDING}

_ABANDON: Final = """
    UPDATE stp.reconciliation SET finished_at = %(moment)s, result = 'abandoned'
     WHERE company = %(company)s AND operation_date = %(day)s AND finished_at IS NULL AND started_at < %(stale)s
    """
_OPEN: Final = """
    INSERT INTO stp.reconciliation (company, operation_date, started_at) VALUES (%(company)s, %(day)s, %(moment)s)
    ON CONFLICT (company, operation_date) WHERE finished_at IS NULL DO NOTHING
    """
_FIND_OPEN: Final = """
    SELECT id, sent_pages, sent_done, received_pages, received_done FROM stp.reconciliation
     WHERE company = %(company)s AND operation_date = %(day)s AND finished_at IS NULL
    """
_KEEP_LINES: Final = """
    INSERT INTO stp.statement_line (company, direction, operation_date, stp_id, run_id, tracking_key, amount, account,
                                    institution, payment_type, word, state, cause, settled_at)
    SELECT %(company)s, %(direction)s, %(day)s, l.stp_id, %(run)s, l.tracking_key, l.amount, l.account, l.institution,
           l.payment_type, l.word, l.state, l.cause, l.settled_at
      FROM json_to_recordset(%(lines)s::json) AS l (stp_id bigint, tracking_key text, amount bigint, account text,
           institution integer, payment_type integer, word text, state text, cause integer, settled_at timestamptz)
    ON CONFLICT (company, direction, operation_date, stp_id) DO UPDATE
       SET run_id = excluded.run_id, tracking_key = excluded.tracking_key, amount = excluded.amount,
           account = excluded.account, institution = excluded.institution, payment_type = excluded.payment_type,
           word = excluded.word, state = excluded.state, cause = excluded.cause, settled_at = excluded.settled_at
    """
_KEEP_RECEIPTS: Final = """
    INSERT INTO stp.receipt (company, direction, stp_id, tracking_key, seal, url, name, tax_id, kept_at)
    SELECT %(company)s, %(direction)s, r.stp_id, r.tracking_key, r.seal, r.url, r.name, r.tax_id, %(moment)s
      FROM json_to_recordset(%(receipts)s::json) AS r (stp_id bigint, tracking_key text, seal text, url text,
           name text, tax_id text)
    ON CONFLICT DO NOTHING
    """
_COUNT_PAGE: Final[Mapping[Direction, LiteralString]] = {
    Direction.OUT: "UPDATE stp.reconciliation SET sent_pages = %(pages)s, sent_done = %(done)s WHERE id = %(run)s",
    Direction.IN: (
        "UPDATE stp.reconciliation SET received_pages = %(pages)s, received_done = %(done)s WHERE id = %(run)s"
    ),
}
_NEWS: Final = """
    SELECT o.payment_id, l.stp_id, l.word, l.state, l.cause, l.settled_at
      FROM stp.statement_line l
      JOIN stp.stp_order o ON o.tracking_key = l.tracking_key AND o.company = l.company
     WHERE l.company = %(company)s AND l.direction = 'out' AND l.operation_date = %(day)s AND l.run_id = %(run)s
       AND l.state IS NOT NULL AND l.state <> 'PENDING' AND l.state <> o.state AND o.state IN ('PENDING', 'SETTLED')
       AND o.sending <> 'REJECTED' AND l.amount = o.amount
       AND (l.account IS NULL OR l.account !~ '^[0-9]+$' OR o.payee_account = '' OR l.account = o.payee_account)
     ORDER BY l.stp_id
    """
# The current run's lines, and what other dates show of the same keys: an order sent near the rollover may be counted to
# the next date, and one key on two dates would be money that moved twice.
_LINES: Final = """
    WITH shown AS MATERIALIZED (
        SELECT l.* FROM stp.statement_line l
         WHERE l.company = %(company)s AND l.direction = %(direction)s AND l.operation_date = %(day)s
           AND l.run_id = %(run)s),
    keys AS (
        SELECT o.tracking_key FROM stp.stp_order o WHERE o.company = %(company)s AND o.operation_date = %(day)s
        UNION SELECT x.tracking_key FROM shown x)
    SELECT l.tracking_key, l.stp_id, l.amount, l.account, l.institution, l.payment_type, l.word, l.state,
           l.operation_date
      FROM shown l
    UNION ALL
    SELECT l.tracking_key, l.stp_id, l.amount, l.account, l.institution, l.payment_type, l.word, l.state,
           l.operation_date
      FROM keys k JOIN stp.statement_line l ON l.tracking_key = k.tracking_key
     WHERE %(direction)s = 'out' AND l.direction = 'out' AND l.company = %(company)s AND l.operation_date <> %(day)s
     ORDER BY operation_date, stp_id
    """
_ORDERS: Final = """
    WITH mine AS (
        SELECT o.payment_id FROM stp.stp_order o WHERE o.company = %(company)s AND o.operation_date = %(day)s
        UNION
        SELECT o.payment_id FROM stp.statement_line l JOIN stp.stp_order o ON o.tracking_key = l.tracking_key
         WHERE l.company = %(company)s AND l.direction = 'out' AND l.operation_date = %(day)s AND l.run_id = %(run)s
           AND o.company = %(company)s)
    SELECT o.payment_id, o.tenant_id, o.tracking_key, o.amount, o.payee_account, o.state, o.sending, o.kind,
           o.operation_date = %(day)s AS of_date, coalesce(o.state_at < %(grace)s, true) AS settled_long_ago
      FROM mine m JOIN stp.stp_order o ON o.payment_id = m.payment_id
     ORDER BY o.payment_id
    """
_DEPOSITS: Final = """
    SELECT d.payment_id, d.tenant_id, d.sender_institution, d.tracking_key, d.amount, d.account, d.decision, d.answer,
           coalesce(d.decided_at < %(grace)s, true) AS settled_long_ago
      FROM stp.deposit d
     WHERE d.operation_date = %(day)s
     ORDER BY d.payment_id
    """
_STATES: Final = "SELECT tracking_key, state FROM stp.stp_order WHERE tracking_key = ANY(%(keys)s)"
_REFERENCES: Final = """
    SELECT payment_id FROM stp.stp_order WHERE payment_id = ANY(%(references)s)
    UNION SELECT payment_id FROM stp.deposit WHERE payment_id = ANY(%(references)s)
    """
_END: Final = """
    UPDATE stp.reconciliation SET finished_at = %(moment)s, result = %(result)s, orders = %(orders)s,
           deposits = %(deposits)s
     WHERE id = %(run)s AND finished_at IS NULL
    RETURNING id
    """
_FILE: Final = """
    INSERT INTO stp.reconciliation_break AS b (company, operation_date, direction, class, subject, tenant_id,
           payment_id, stp_id, ours, theirs, found_in, found_at, last_seen_at)
    SELECT %(company)s, %(day)s, n.direction, n.class, n.subject, n.tenant_id, n.payment_id, n.stp_id, n.ours, n.theirs,
           %(run)s, %(moment)s, %(moment)s
      FROM json_to_recordset(%(breaks)s::json) AS n (direction text, class text, subject text, tenant_id text,
           payment_id text, stp_id bigint, ours text, theirs text)
    ON CONFLICT (company, operation_date, direction, class, subject) WHERE closed_at IS NULL DO UPDATE
       SET times = b.times + 1, last_seen_at = excluded.last_seen_at, ours = excluded.ours, theirs = excluded.theirs,
           stp_id = coalesce(excluded.stp_id, b.stp_id)
    """
_HEAL: Final = """
    UPDATE stp.reconciliation_break b SET closed_at = %(moment)s, closed_in = %(run)s
     WHERE b.company = %(company)s AND b.operation_date = %(day)s AND b.closed_at IS NULL
       AND b.class = ANY(%(checked)s) AND b.last_seen_at < %(moment)s
    """
_BREAKS: Final = """
    SELECT id, company, operation_date, direction, class AS kind, subject, tenant_id, payment_id, stp_id, ours, theirs,
           found_in, found_at, times, closed_at
      FROM stp.reconciliation_break
     WHERE (%(company)s::text IS NULL OR company = %(company)s) AND (%(day)s::date IS NULL OR operation_date = %(day)s)
       AND (%(tenant)s::text IS NULL OR tenant_id IS NULL OR tenant_id = %(tenant)s)
       AND (%(all)s OR closed_at IS NULL)
     ORDER BY operation_date, id LIMIT %(limit)s
    """
_BEGIN: Final = """
    INSERT INTO stp.reconciliation_date AS d (operation_date, process_key, begun_at)
    VALUES (%(day)s, %(process)s, %(moment)s)
    ON CONFLICT (operation_date) DO UPDATE SET process_key = d.process_key WHERE d.process_key = %(process)s
    RETURNING 1
    """
_MISSED: Final = """
    SELECT DISTINCT o.operation_date FROM stp.stp_order o
     WHERE o.operation_date < %(day)s AND o.operation_date >= %(since)s
       AND NOT EXISTS (SELECT FROM stp.reconciliation r
                        WHERE r.operation_date = o.operation_date AND r.company = o.company
                          AND r.result IN ('matched', 'breaks'))
     ORDER BY 1
    """


@dataclass(frozen=True, slots=True)
class Run:
    """One comparison of one company's date, under way."""

    id: int
    company: str
    operation_date: date
    sent_pages: int
    sent_done: bool
    received_pages: int
    received_done: bool

    def pages(self, direction: Direction) -> int:
        """How many pages are kept already."""
        return self.sent_pages if direction is Direction.OUT else self.received_pages

    def done(self, direction: Direction) -> bool:
        """Whether the last page was read."""
        return self.sent_done if direction is Direction.OUT else self.received_done


@dataclass(frozen=True, slots=True)
class News:
    """A state that STP lists and we have not heard of."""

    payment_id: PaymentId
    stp_id: int
    word: str
    state: OrderState | None
    cause: int | None
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class FiledBreak:
    """A break as it is filed. Holds no account and no name."""

    id: int
    company: str
    operation_date: date
    direction: Direction
    kind: BreakClass
    subject: str
    tenant_id: TenantId | None
    payment_id: PaymentId | None
    stp_id: int | None
    ours: str | None
    theirs: str | None
    found_in: int
    found_at: datetime
    times: int
    closed_at: datetime | None

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "company": self.company,
            "operation_date": self.operation_date.isoformat(),
            "direction": self.direction,
            "class": self.kind,
            "subject": self.subject,
            "tenant": self.tenant_id,
            "payment": self.payment_id,
            "stp_id": self.stp_id,
            "ours": self.ours,
            "theirs": self.theirs,
            "found_at": self.found_at.isoformat(),
            "times": self.times,
            "closed_at": self.closed_at and self.closed_at.isoformat(),
        }

    def __str__(self) -> str:
        differs = " / ".join(part for part in (self.ours, self.theirs) if part)
        healed = " (healed)" if self.closed_at else ""
        return f"{self.operation_date} {self.company} {self.direction:<3} {self.kind} {self.subject}: {differs}{healed}"


class ReconciliationStore:
    """Runs, lines, receipts and breaks. Raises `Unavailable` when the database is away."""

    def __init__(self, database: Statements) -> None:
        self._database = database

    # --- Runs

    async def begin(self, day: date, process_key: int, moment: datetime) -> bool:
        """Claim a date for a process instance. False when another has it."""
        return bool(await self._database.rows(_BEGIN, {"day": day, "process": process_key, "moment": moment}))

    async def missed(self, day: date) -> Sequence[date]:
        """Dates of the week before with orders that nobody compared to the end."""
        rows = await self._database.rows(_MISSED, {"day": day, "since": day - _MISSED_AT_MOST})
        return [one for (one,) in rows]

    async def open_run(self, company: str, day: date, moment: datetime) -> Run:
        """The run of this company's date that is under way, or a new one."""
        given = {"company": company, "day": day, "moment": moment, "stale": moment - STALE_AFTER}
        await self._database.rows(_ABANDON, given)
        for _ in range(5):
            await self._database.rows(_OPEN, given)
            rows = await self._database.named_rows(_FIND_OPEN, given)
            if rows:  # otherwise somebody ended it in between
                row = rows[0]
                return Run(row.id, company, day, row.sent_pages, row.sent_done, row.received_pages, row.received_done)
        raise RuntimeError("runs of one date are ended faster than they are begun")

    async def keep_page(self, run: Run, direction: Direction, number: int, page: Page, moment: datetime) -> None:
        """Keep a page's lines and receipts, and that it was read. An empty page is the last."""
        lines = {line.order.stp_id: line for line in page.lines}  # the pages of a moving set overlap
        given = {
            "company": run.company,
            "direction": direction,
            "day": run.operation_date,
            "run": run.id,
            "moment": moment,
            "lines": json.dumps([_written(line) for line in lines.values()]),
            "receipts": json.dumps([_receipt(line) for line in lines.values() if line.receipt is not None]),
            "pages": number + bool(lines),
            "done": not lines,
        }
        async with self._database.connection() as connection, connection.transaction():
            if lines:
                await connection.execute(_KEEP_LINES, given)
                await connection.execute(_KEEP_RECEIPTS, given)
            await connection.execute(_COUNT_PAGE[direction], given)

    async def finish(
        self,
        run: Run,
        breaks: Sequence[Break],
        checked: frozenset[BreakClass],
        known: Mapping[Direction, Sequence[Known]],
        moment: datetime,
    ) -> Sequence[FiledBreak]:
        """File the breaks, close those of the checked classes that healed, end the run; the breaks that are new.

        Nothing happens when somebody else ended the run meanwhile.
        """
        given = {
            "company": run.company,
            "day": run.operation_date,
            "run": run.id,
            "moment": moment,
            "result": "breaks" if breaks else "matched",
            "orders": len(known[Direction.OUT]),
            "deposits": len(known[Direction.IN]),
            "breaks": json.dumps([_filed(one) for one in {one.identity: one for one in breaks}.values()]),
            "checked": list(checked),
        }
        async with self._database.connection() as connection, connection.transaction():
            ended = await connection.execute(_END, given)
            if await ended.fetchone() is None:
                return ()
            await connection.execute(_FILE, given)
            await connection.execute(_HEAL, given)
        return [one for one in await self.open_breaks(run.company, run.operation_date) if one.found_in == run.id]

    # --- What is compared

    async def news(self, run: Run) -> Sequence[News]:
        """Final states in this run's lines that our orders do not have, where key, amount and account are ours."""
        return [
            News(PaymentId(row.payment_id), row.stp_id, row.word, OrderState(row.state), row.cause, row.settled_at)
            for row in await self._database.named_rows(_NEWS, self._of(run))
        ]

    async def lines(self, run: Run, direction: Direction) -> Sequence[Line]:
        return [
            Line(
                key=row.tracking_key,
                stp_id=row.stp_id,
                amount=row.amount,
                account=row.account,
                institution=row.institution,
                state=None if row.state is None else OrderState(row.state),
                word=row.word,
                money_back=row.payment_type in MONEY_BACK,
            )
            for row in await self._database.named_rows(_LINES, {**self._of(run), "direction": direction})
        ]

    async def orders(self, run: Run, grace: datetime) -> Sequence[Known]:
        """Our orders of the date, and those of other dates that STP lists on it."""
        return [
            Known(
                key=row.tracking_key,
                payment_id=PaymentId(row.payment_id),
                tenant_id=TenantId(row.tenant_id),
                amount=row.amount,
                account=row.payee_account or None,
                state=OrderState(row.state),
                sending=Sending(row.sending),
                of_date=row.of_date,
                settled_long_ago=row.settled_long_ago,
                booked=row.kind == "order",
            )
            for row in await self._database.named_rows(_ORDERS, {**self._of(run), "grace": grace})
        ]

    async def deposits(self, run: Run, grace: datetime) -> Sequence[tuple[TenantId | None, Known]]:
        """Deposits of the date, of every company: whose they are is known by the tenant, if at all."""
        found: list[tuple[TenantId | None, Known]] = []
        for row in await self._database.named_rows(_DEPOSITS, {"day": run.operation_date, "grace": grace}):
            tenant = None if row.tenant_id is None else TenantId(row.tenant_id)
            known = Known(
                key=row.tracking_key,
                payment_id=PaymentId(row.payment_id),
                tenant_id=tenant or TenantId(""),
                amount=row.amount,
                account=row.account or None,
                state=_DECIDED[row.decision],
                institution=row.sender_institution,
                of_date=tenant is not None,  # whose company was meant is not known of the others
                settled_long_ago=row.settled_long_ago,
                booked=tenant is not None,
                given_back=row.decision == "REFUSED" and row.answer == "confirmar",
            )
            found.append((tenant, known))
        return found

    async def states(self, keys: Sequence[str]) -> Mapping[str, str]:
        """The states of our orders under these keys."""
        return dict(await self._database.rows(_STATES, {"keys": list(keys)})) if keys else {}

    async def known_references(self, references: Sequence[str]) -> Sequence[str]:
        """Those of these payments that have an order or a deposit."""
        rows = await self._database.rows(_REFERENCES, {"references": list(references)}) if references else []
        return [reference for (reference,) in rows]

    # --- Breaks

    async def open_breaks(
        self,
        company: str | None = None,
        day: date | None = None,
        tenant: TenantId | None = None,
        *,
        healed: bool = False,
        limit: int = 10_000,
    ) -> Sequence[FiledBreak]:
        """The breaks that are open, oldest date first; `healed`: also those that were closed."""
        given = {"company": company, "day": day, "tenant": tenant, "all": healed, "limit": limit}
        return [
            FiledBreak(
                **{
                    **row._asdict(),
                    "direction": Direction(row.direction),
                    "kind": BreakClass(row.kind),
                }
            )
            for row in await self._database.named_rows(_BREAKS, given)
        ]

    def _of(self, run: Run) -> dict[str, Any]:
        return {"company": run.company, "day": run.operation_date, "run": run.id}


def _written(line: ListedOrder) -> dict[str, Any]:
    order = line.order
    return {
        "stp_id": order.stp_id,
        "tracking_key": order.key,
        "amount": _centavos(order.amount),
        "account": order.beneficiary_account,
        "institution": line.institution,
        "payment_type": line.payment_type,
        "word": order.word,
        "state": order.state,
        "cause": order.cause.code,
        "settled_at": order.settled_at and order.settled_at.isoformat(),
    }


def _receipt(line: ListedOrder) -> dict[str, Any]:
    return {
        "stp_id": line.order.stp_id,
        "tracking_key": line.order.key,
        **({} if line.receipt is None else asdict(line.receipt)),
    }


def _filed(one: Break) -> dict[str, Any]:
    return {
        "direction": one.direction,
        "class": one.kind,
        "subject": one.subject,
        "tenant_id": one.tenant_id,
        "payment_id": one.payment_id,
        "stp_id": one.stp_id,
        "ours": one.ours,
        "theirs": one.theirs,
    }


def _centavos(amount: Decimal | None) -> int:
    return 0 if amount is None else int((amount * 100).to_integral_value())
