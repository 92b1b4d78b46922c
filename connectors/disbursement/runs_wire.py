"""Verdicts, schedules and runs as they are sent and read (L20 to L31)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field

from connectors.disbursement.wire import (
    NOON,
    TRANSFER,
    Page,
    example,
)
from ledger.disbursement.explanations import explanation
from ledger.disbursement.model import (
    Frequency,
    Verdict,
)
from ledger.disbursement.runs import Run, Schedule, StoreOfRun, Tally


class VerdictView(BaseModel):
    """What a trigger would do with a store now, and why."""

    model_config = example(
        storeId="norte-centro",
        merchantId="moda-norte",
        frequency="DAILY",
        verdict="BELOW_MINIMUM",
        explanation="2 pending updates sum to 80.00 MXN, not more than the minimum of 100.00 MXN",
        updates=2,
        total="80.00",
        minimum="100.00",
    )

    store_id: str
    merchant_id: str
    frequency: Frequency
    verdict: str
    explanation: str
    updates: int
    total: str
    minimum: str

    @classmethod
    def of(cls, found: Verdict) -> Self:
        return cls(
            store_id=found.store,
            merchant_id=found.merchant,
            frequency=found.frequency,
            verdict=found.code,
            explanation=explanation(found),
            updates=found.updates,
            total=found.total.decimal(),
            minimum=found.minimum.decimal(),
        )


class VerdictsPage(Page):
    verdicts: Sequence[VerdictView]


class RunWanted(BaseModel):
    """A run that is to be made now, whatever the schedule says."""

    model_config = example(frequency="DAILY")

    frequency: Frequency


class RunView(BaseModel):
    """One firing of a frequency. `verdicts`: how many stores got which, where that was asked for."""

    model_config = example(
        id="0b0ad8b5-56f0-5f1d-8e4e-6f3d7b0a9d10",
        frequency="DAILY",
        scheduledFor=NOON,
        requestedBy=None,
        createdAt=NOON,
        closedAt=NOON,
        verdicts={"PAY": 2, "BELOW_MINIMUM": 1},
        asked="2184.37",
    )

    id: str
    frequency: Frequency
    scheduled_for: datetime
    requested_by: str | None
    created_at: datetime
    closed_at: datetime | None
    verdicts: Mapping[str, int] | None
    asked: str | None

    @classmethod
    def of(cls, run: Run, tally: Tally | None = None) -> Self:
        return cls(
            id=run.id,
            frequency=run.frequency,
            scheduled_for=run.scheduled_for,
            requested_by=run.requested_by,
            created_at=run.created_at,
            closed_at=run.closed_at,
            verdicts=None if tally is None else {code.value: count for code, count in tally.stores.items()},
            asked=None if tally is None else tally.asked.decimal(),
        )


class RunsPage(Page):
    runs: Sequence[RunView]


class RunStoreView(BaseModel):
    """What a run found of a store, and the transfer it asked for."""

    model_config = example(
        storeId="norte-centro",
        verdict="PAY",
        explanation="2 pending updates make a transfer of 1184.38 MXN",
        updates=2,
        total="1184.38",
        minimum="100.00",
        transferId=TRANSFER,
        consideredAt=NOON,
    )

    store_id: str
    verdict: str
    explanation: str
    updates: int
    total: str
    minimum: str
    transfer_id: str | None
    considered_at: datetime

    @classmethod
    def of(cls, found: StoreOfRun) -> Self:
        return cls(
            store_id=found.verdict.store,
            verdict=found.verdict.code,
            explanation=explanation(found.verdict),
            updates=found.verdict.updates,
            total=found.verdict.total.decimal(),
            minimum=found.verdict.minimum.decimal(),
            transfer_id=found.payment_id,
            considered_at=found.considered_at,
        )


class RunStoresPage(Page):
    stores: Sequence[RunStoreView]


class ScheduleBody(BaseModel):
    """When stores of a frequency are due."""

    model_config = example(cron="0 9 * * *", timeZone="America/Mexico_City")

    cron: Annotated[str, Field(max_length=200)]
    time_zone: Annotated[str, Field(max_length=64)]


class ScheduleView(BaseModel):
    """When stores of a frequency are due; without `setBy` it is the settings' line."""

    model_config = example(
        frequency="DAILY",
        cron="0 9 * * *",
        timeZone="America/Mexico_City",
        nextAt=NOON,
        setAt=None,
        setBy=None,
    )

    frequency: Frequency
    cron: str
    time_zone: str
    next_at: datetime
    set_at: datetime | None
    set_by: str | None

    @classmethod
    def of(cls, found: Schedule) -> Self:
        return cls(
            frequency=found.frequency,
            cron=found.cron,
            time_zone=found.time_zone,
            next_at=found.next_at,
            set_at=found.set_at,
            set_by=found.set_by,
        )


class SchedulesPage(Page):
    schedules: Sequence[ScheduleView]
