"""The jobs of a disbursement and of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from connectors.disbursement.model import (
    CloseRun,
    Collected,
    CollectUpdates,
    DecisionSettled,
    DueStore,
    NextStep,
    Planned,
    PlanRuns,
    RecordOutcome,
    RecordSent,
    ReportTransfer,
    RequestDisbursement,
    Selected,
    SelectStores,
    SettleDecision,
    StoreDue,
)
from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.jobs import Result, handles
from hub.messages import Engine
from hub.telemetry import logger
from hub.transfer import IdentifierType, Outcome, Party, PaymentId, TenantId
from ledger.disbursement.model import OPEN, BankTransfer, NothingToPay, TransferStatus, TransitionRefused, Trigger
from ledger.disbursement.runs import Runs
from ledger.disbursement.transfers import Transfers

NOT_CONFIRMED: str = "nobody confirmed it in time"

log = logger(__name__)


class TransferMissing(LookupError):
    """The engine runs a disbursement that has no transfer: a defect, and an operator's."""


class Reporting(Protocol):
    """Makes a transfer's reports for its merchant."""

    async def make(self, tenant: str, payment_id: str) -> Sequence[object]:
        """Make what is due of them; made again they are the same."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What every transfer has in common."""

    concept: str
    confirm_within: timedelta


class DisbursementWorker:
    """Collects, records and reports disbursements."""

    def __init__(self, transfers: Transfers, reports: Reporting, terms: Terms) -> None:
        self._transfers = transfers
        self._reports = reports
        self._terms = terms

    @handles(CollectUpdates)
    async def collect_updates(self, job: CollectUpdates) -> Collected:
        key = job.facts.process_instance_key
        found = await self._transfers.collect(
            job.tenant_id, job.store_id, job.payment_id, job.trigger, run_id=job.run_id, process_instance_key=key
        )
        if isinstance(found, NothingToPay):
            log.info("disbursement.nothing-to-pay", payment_id=job.payment_id, verdict=found.verdict.code)
            return Collected(next_step=NextStep.NOTHING)
        if found.transfer.process_instance_key != key:
            log.info("disbursement.repeated", payment_id=job.payment_id)
            return Collected(next_step=NextStep.NOTHING)
        return self._order(found.transfer)

    def _order(self, transfer: BankTransfer) -> Collected:
        payee = Party(
            id_type=IdentifierType.CLABE,
            identifier=transfer.clabe,
            name=transfer.holder_name,
            tax_id=transfer.tax_id or None,
        )
        return Collected(
            next_step=_next_step(transfer),
            amount=transfer.amount.minor,
            currency=transfer.amount.currency,
            payee=payee,
            concept=self._terms.concept,
            confirm_within=f"PT{round(self._terms.confirm_within.total_seconds())}S",
        )

    @handles(SettleDecision)
    async def settle_decision(self, job: SettleDecision) -> DecisionSettled:
        transfer = await self._found(job.tenant_id, job.payment_id)
        if job.overdue and transfer.must_wait:
            transfer = await self._cancel(transfer, job)
        return DecisionSettled(next_step=_next_step(transfer))

    async def _cancel(self, transfer: BankTransfer, job: SettleDecision) -> BankTransfer:
        """Cancel what nobody decided. Somebody who decides at this very moment was first, or finds it cancelled."""
        try:
            return await self._transfers.cancel(job.tenant_id, transfer.id, "payment-hub", NOT_CONFIRMED)
        except TransitionRefused:
            return await self._found(job.tenant_id, job.payment_id)

    async def _found(self, tenant: TenantId, payment_id: PaymentId) -> BankTransfer:
        transfer = await self._transfers.find(tenant, payment_id)
        if transfer is None:
            raise TransferMissing(f"payment {payment_id} has no transfer")
        return transfer

    @handles(RecordSent)
    async def record_sent(self, job: RecordSent) -> Result:
        await self._transfers.record_sent(job.tenant_id, job.payment_id)
        return Result()

    @handles(RecordOutcome)
    async def record_outcome(self, job: RecordOutcome) -> Result:
        if job.after_settlement and (await self._found(job.tenant_id, job.payment_id)).status in OPEN:
            # The transfer's own process has been told of the settlement and is about to record it.
            raise Unavailable(f"the settlement of payment {job.payment_id} is not recorded yet")
        try:
            await self._transfers.record_outcome(
                job.tenant_id,
                job.payment_id,
                job.outcome,
                reason=job.reason,
                reason_detail=job.reason_detail,
                at=_not_ahead(job.happened_at),
            )
        except TransitionRefused:
            transfer = await self._found(job.tenant_id, job.payment_id)
            if (job.outcome, transfer.status) != (Outcome.SETTLED, TransferStatus.REJECTED):
                raise
            # STP told the return first, and then the settlement before it: the money is back.
            log.info("disbursement.overtaken", payment_id=job.payment_id)
        return Result()

    @handles(ReportTransfer)
    async def report_transfer(self, job: ReportTransfer) -> Result:
        failpoint("disbursement.report-transfer.before-make")
        await self._reports.make(job.tenant_id, job.payment_id)
        return Result()


class RunWorker:
    """Plans runs and carries them out. `page`: stores looked at in one step."""

    def __init__(self, runs: Runs, engine: Engine, page: int) -> None:
        self._runs = runs
        self._engine = engine
        self._page = page

    @handles(PlanRuns)
    async def plan_runs(self, job: PlanRuns) -> Planned:
        made = await self._runs.plan()
        failpoint("disbursement.plan-runs.after-plan")
        for each in made:
            log.info("run.made", run_id=each.id, frequency=each.frequency, scheduled_for=each.scheduled_for.isoformat())
        run = await self._runs.claim(job.facts.process_instance_key)
        failpoint("disbursement.plan-runs.after-claim")
        if run is None:
            return Planned(run_id=None)
        return Planned(run_id=run.id, tenant_id=TenantId(run.tenant), frequency=run.frequency)

    @handles(SelectStores)
    async def select_stores(self, job: SelectStores) -> Selected:
        page = await self._runs.select(job.run_id, job.after_store, self._page)
        failpoint("disbursement.select-stores.after-commit")
        due = [DueStore(store_id=each.store, payment_id=PaymentId(each.payment_id)) for each in page.due]
        return Selected(due=due, after_store=page.after)

    @handles(RequestDisbursement)
    async def request_disbursement(self, job: RequestDisbursement) -> Result:
        failpoint("disbursement.request-disbursement.before-publish")
        await self._engine.publish(
            StoreDue(
                payment_id=job.due_store.payment_id,
                tenant_id=job.tenant_id,
                store_id=job.due_store.store_id,
                trigger=Trigger(job.frequency),
                run_id=job.run_id,
            )
        )
        failpoint("disbursement.request-disbursement.after-publish")
        return Result()

    @handles(CloseRun)
    async def close_run(self, job: CloseRun) -> Result:
        run = await self._runs.close(job.run_id)
        failpoint("disbursement.close-run.after-commit")
        log.info("run.closed", run_id=run.id, frequency=run.frequency)
        return Result()


def _not_ahead(happened_at: datetime | None) -> datetime | None:
    """When the provider says it happened. Where its clock is ahead of ours: now, since it cannot have yet to happen."""
    return None if happened_at is None else min(happened_at, datetime.now(UTC))


def _next_step(transfer: BankTransfer) -> NextStep:
    if transfer.must_wait:
        return NextStep.CONFIRM
    # Also what is in transit already: sending it again sends nothing, and somebody must hear how it ends.
    return NextStep.SEND if transfer.status in OPEN else NextStep.NOTHING
