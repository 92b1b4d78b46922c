"""Transfers to stores, what they pay and what came in about them, as they are read (L18 to L34)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel

from connectors.disbursement.wire import (
    NOON,
    TRANSFER,
    Page,
    example,
)
from ledger.disbursement.model import (
    BankTransfer,
    Event,
    TransferItem,
)


class TransferView(BaseModel):
    """One payment to a store. The account is the one that the store had when the transfer was made."""

    model_config = example(
        id=TRANSFER,
        storeId="norte-centro",
        amount="1184.38",
        currency="MXN",
        status="APPLIED",
        trigger="DAILY",
        runId=None,
        clabe="646180157000000017",
        holderName="Moda del Norte SA de CV",
        mustWait=False,
        confirmedBy=None,
        confirmedAt=None,
        reason=None,
        reasonDetail=None,
        createdAt=NOON,
        settledAt=NOON,
    )

    id: str
    store_id: str
    amount: str
    currency: str
    status: str
    trigger: str
    run_id: str | None
    clabe: str
    holder_name: str
    must_wait: bool
    """Somebody has yet to confirm or cancel it (L23)."""
    confirmed_by: str | None
    confirmed_at: datetime | None
    reason: str | None
    reason_detail: str | None
    created_at: datetime
    settled_at: datetime | None

    @classmethod
    def of(cls, found: BankTransfer) -> Self:
        return cls(
            id=found.id,
            store_id=found.store,
            amount=found.amount.decimal(),
            currency=found.amount.currency,
            status=found.status,
            trigger=found.trigger,
            run_id=found.run_id,
            clabe=found.clabe,
            holder_name=found.holder_name,
            must_wait=found.must_wait,
            confirmed_by=found.confirmed_by,
            confirmed_at=found.confirmed_at,
            reason=found.reason,
            reason_detail=found.reason_detail,
            created_at=found.created_at,
            settled_at=found.settled_at,
        )


class TransfersPage(Page):
    transfers: Sequence[TransferView]


class ItemView(BaseModel):
    """An update that a transfer pays or paid; `releasedAt` when it no longer does (L19)."""

    model_config = example(
        updateId="501", sequence=7, creditId="C-1001", effect="1184.38", linkedAt=NOON, releasedAt=None
    )

    update_id: str
    sequence: int
    credit_id: str | None
    effect: str
    linked_at: datetime
    released_at: datetime | None

    @classmethod
    def of(cls, item: TransferItem) -> Self:
        return cls(
            update_id=str(item.update.id),
            sequence=item.update.sequence,
            credit_id=item.update.credit,
            effect=item.update.effect.decimal(),
            linked_at=item.linked_at,
            released_at=item.released_at,
        )


class ItemsPage(Page):
    items: Sequence[ItemView]


class EventView(BaseModel):
    """What came in about a transfer and what became of it (L34)."""

    model_config = example(id="91", source="stp", kind="SETTLED", receivedAt=NOON, outcome="handled", error=None)

    id: str
    source: str
    kind: str
    received_at: datetime
    outcome: str | None
    error: str | None

    @classmethod
    def of(cls, event: Event) -> Self:
        return cls(
            id=str(event.id),
            source=event.source,
            kind=event.kind,
            received_at=event.received_at,
            outcome=event.outcome,
            error=event.error,
        )


class EventsPage(Page):
    events: Sequence[EventView]
