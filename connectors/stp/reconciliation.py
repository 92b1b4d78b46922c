"""Ledger = our orders = STP: the pages STP shows, what we have, what the book says, and every break filed.

    open a run, or go on with the one that broke off          one per company and date at a time
    read STP's pages, each kept as it comes                    a run that dies goes on at the next page
    adopt what STP knows and we had not heard                  as an inquiry would
    compare, file new breaks, close those that healed          one transaction ends the run

Nothing is mended here but news that was lost: a break is for people. Doing it twice files nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final, Protocol

from prometheus_client import Gauge

from connectors.stp.breaks import (
    URGENT,
    BeginReconciliation,
    Booked,
    Break,
    BreakClass,
    DateReconciled,
    Direction,
    Known,
    Line,
    ReconcileDate,
    ReconciliationBegun,
    compare,
    without_order,
)
from connectors.stp.calendar import MEXICO_CITY, ROLLOVER, is_banking_day, operation_date
from connectors.stp.consults import RECEIVED, SENT, Consults
from connectors.stp.dispatch import Clock, alert, now, report
from connectors.stp.model import OrderState, Sending
from connectors.stp.orders import OrderStore
from connectors.stp.reconciliation_store import FiledBreak, ReconciliationStore, Run
from connectors.stp.signature import Signer
from connectors.stp.wire import Cause, FoundOrder
from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.jobs import handles
from hub.telemetry import logger
from hub.transfer import TenantId

_open_breaks = Gauge("payhub_stp_open_breaks", "Breaks found by the last comparison of a date.", ("company", "kind"))
_AT_ONCE: Final = 2000
_READS_FOR: Final = timedelta(minutes=8)
"""Less than the job's time-out: whoever has not read all pages by then lets the next attempt go on."""
_IN_THE_BOOK: Final = frozenset(
    {
        BreakClass.NOT_BOOKED,
        BreakClass.BOOKED_IN_VAIN,
        BreakClass.BOOKED_AMOUNT_DIFFERS,
        BreakClass.BOOKED_WITHOUT_ORDER,
    }
)

log = logger(__name__)


class SettlementBook(Protocol):
    """What our own book says went over the settlement account. Centavos; what came in is negative."""

    async def net(self, book: str, references: Sequence[str]) -> Mapping[str, int]:
        """What each payment moved in all."""
        ...

    async def moved(self, book: str, since: datetime, until: datetime) -> Mapping[str, int]:
        """What was booked in a time, by payment."""
        ...

    async def books(self) -> Sequence[str]:
        """The tenants that have a settlement account."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """One company at STP."""

    company: str
    signer: Signer
    tenants: frozenset[TenantId] | None
    """Whose orders it carries; None: every tenant's that is in no other."""
    others: frozenset[TenantId] = frozenset()
    """Tenants that have a company of their own."""

    def carries(self, tenant: TenantId) -> bool:
        return tenant not in self.others if self.tenants is None else tenant in self.tenants


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison of one company's date came to."""

    company: str
    operation_date: date
    orders: int
    deposits: int
    open_breaks: Sequence[FiledBreak]

    @property
    def matched(self) -> bool:
        return not self.open_breaks


def last_closed(moment: datetime) -> date:
    """The operation date that ended last."""
    return _banking_day_before(operation_date(moment))


def _banking_day_before(day: date) -> date:
    day -= timedelta(days=1)
    while not is_banking_day(day):
        day -= timedelta(days=1)
    return day


class Reconciliation:
    """Compares dates. Raises `Unavailable` when STP, the database or the book is away; going on later is safe."""

    def __init__(
        self,
        *,
        store: ReconciliationStore,
        orders: OrderStore,
        consults: Consults,
        accounts: Sequence[Account],
        book: SettlementBook | None,
        booking_grace: timedelta = timedelta(minutes=10),
        clock: Clock = now,
    ) -> None:
        self._store = store
        self._orders = orders
        self._consults = consults
        self._accounts = accounts
        self._book = book
        self._booking_grace = booking_grace
        self._clock = clock

    async def reconcile(self, day: date, tenant: TenantId | None = None) -> Sequence[Reconciled]:
        """Compare one operation date for every company, or for the one that carries a tenant's orders."""
        return [
            await self._company(account, day) for account in self._accounts if tenant is None or account.carries(tenant)
        ]

    async def _company(self, account: Account, day: date) -> Reconciled:
        run = await self._store.open_run(account.company, day, self._clock())
        await self._read_pages(run, account.signer)
        await self._adopt_news(run)
        known = await self._known(run, account)
        breaks = await self._breaks(run, account, known)
        checked = frozenset(BreakClass) if self._book is not None else frozenset(BreakClass) - _IN_THE_BOOK
        failpoint("stp.reconcile-date.before-finish")
        new = await self._store.finish(run, breaks, checked, known, self._clock())
        failpoint("stp.reconcile-date.after-finish")
        for one in new:
            if one.kind in URGENT:
                alert("reconciliation", break_class=one.kind, payment_id=one.payment_id, stp_id=one.stp_id)
        left = await self._store.open_breaks(company=account.company, day=day)
        for kind in BreakClass:
            _open_breaks.labels(account.company, kind).set(sum(one.kind is kind for one in left))
        counted = {direction: len(found) for direction, found in known.items()}
        log.info("reconciled", operation_date=day.isoformat(), orders=counted[Direction.OUT], open_breaks=len(left))
        return Reconciled(account.company, day, counted[Direction.OUT], counted[Direction.IN], left)

    # --- STP's side

    async def _read_pages(self, run: Run, signer: Signer) -> None:
        began = time.monotonic()
        for direction, kind in ((Direction.OUT, SENT), (Direction.IN, RECEIVED)):
            if run.done(direction):
                continue
            first = run.pages(direction)
            async for number, page in self._consults.pages(run.company, kind, run.operation_date, signer, first):
                await self._store.keep_page(run, direction, number, page, self._clock())
                failpoint("stp.reconcile-date.after-page")
                if page.lines and time.monotonic() - began > _READS_FOR.total_seconds():
                    raise Unavailable("STP lists more pages; they are read by the next attempt")

    async def _adopt_news(self, run: Run) -> None:
        """What STP shows as final and we had not heard: take it over as an inquiry does; the process hears of it."""
        for news in await self._store.news(run):
            order = await self._orders.find(news.payment_id)
            if order is None or news.state is None or not order.state.can_become(news.state):
                continue
            if order.sending is Sending.REJECTED:
                continue
            found = FoundOrder(
                key=order.tracking_key,
                stp_id=news.stp_id,
                word=news.word,
                state=news.state,
                amount=None,
                beneficiary_account=None,
                cause=Cause(news.cause),
                settled_at=news.settled_at,
            )
            _, observed = await self._orders.observe_inquiry(order, found, self._clock(), told=False)
            report(observed, news.word, unknown_status=False, source="reconciliation")

    # --- Our side

    async def _known(self, run: Run, account: Account) -> Mapping[Direction, Sequence[Known]]:
        grace = self._clock() - self._booking_grace
        deposits = [
            deposit
            for tenant, deposit in await self._store.deposits(run, grace)
            if tenant is None or account.carries(tenant)
        ]
        return {Direction.OUT: await self._store.orders(run, grace), Direction.IN: deposits}

    async def _breaks(self, run: Run, account: Account, known: Mapping[Direction, Sequence[Known]]) -> Sequence[Break]:
        found: list[Break] = []
        for direction in Direction:
            lines = await self._store.lines(run, direction)
            if direction is Direction.IN:
                lines, returned = await self._without_returns(lines)
                found += returned
            booked = await self._booked(known[direction])
            found += compare(direction, known[direction], lines, booked)
        if self._book is not None:
            found += await self._without_order(run, account)
        return found

    async def _without_returns(self, lines: Sequence[Line]) -> tuple[list[Line], list[Break]]:
        """Orders of ours that came back are also listed as received, under our own key; they are no deposits."""
        ours = await self._store.states([line.key for line in lines if line.money_back])
        kept = [line for line in lines if not (line.money_back and line.key in ours)]
        differing = [
            Break(Direction.IN, BreakClass.STATE_DIFFERS, line.key, stp_id=line.stp_id, ours=ours[line.key],
                  theirs="came back")
            for line in lines
            if line.money_back and line.key in ours and ours[line.key] != OrderState.RETURNED
        ]  # fmt: skip
        return kept, differing

    async def _booked(self, known: Sequence[Known]) -> Booked | None:
        if self._book is None:
            return None
        references: dict[TenantId, list[str]] = {}
        for one in (one for one in known if one.booked):
            references.setdefault(one.tenant_id, []).append(one.payment_id)
        booked: dict[str, int] = {}
        for tenant, wanted in references.items():
            for start in range(0, len(wanted), _AT_ONCE):
                booked.update(await self._book.net(tenant, wanted[start : start + _AT_ONCE]))
        return booked

    async def _without_order(self, run: Run, account: Account) -> Sequence[Break]:
        if self._book is None:
            return ()
        since, until = (
            datetime.combine(day, ROLLOVER, MEXICO_CITY)
            for day in (_banking_day_before(run.operation_date), run.operation_date)
        )
        found: list[Break] = []
        for tenant in await self._book.books():
            if account.carries(TenantId(tenant)):
                moved = await self._book.moved(tenant, since, until)
                known = await self._store.known_references(list(moved))
                found += [replace(one, tenant_id=TenantId(tenant)) for one in without_order(moved, known)]
        return found


class ReconciliationWorker:
    """The two jobs of the process that compares."""

    def __init__(
        self,
        reconciliation: Reconciliation,
        store: ReconciliationStore,
        again_after: timedelta = timedelta(days=1),
        clock: Clock = now,
    ) -> None:
        self._reconciliation = reconciliation
        self._store = store
        self._again_after = again_after
        self._clock = clock

    @handles(BeginReconciliation)
    async def begin_reconciliation(self, job: BeginReconciliation) -> ReconciliationBegun:
        """Claim the date that ended last for this process instance."""
        moment = self._clock()
        day = last_closed(moment)
        mine = await self._store.begin(day, job.facts.process_instance_key, moment)
        again = f"PT{round(self._again_after.total_seconds())}S"
        return ReconciliationBegun(reconciliation_date=day if mine else None, reconcile_again_after=again)

    @handles(ReconcileDate)
    async def reconcile_date(self, job: ReconcileDate) -> DateReconciled:
        """Compare the date, and before it those of the week before that nobody compared."""
        for missed in await self._store.missed(job.reconciliation_date):
            await self._reconciliation.reconcile(missed)
        done = await self._reconciliation.reconcile(job.reconciliation_date)
        return DateReconciled(
            reconciliations=job.reconciliations + 1, open_breaks=sum(len(one.open_breaks) for one in done)
        )
