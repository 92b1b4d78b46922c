"""Balances of stores and what changes them, as they are sent and read (L1 to L13)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel

from connectors.disbursement.wire import (
    NOON,
    Page,
    Reason,
    SignedAmount,
    example,
)
from ledger.disbursement.model import (
    BalanceUpdate,
    StatusRecord,
    StoreBalance,
)


class Adjustment(BaseModel):
    """A correction by hand, with a minus sign when it takes away (L11)."""

    model_config = example(effect="-80.00", reason="fee of the returned parcel, ticket 4711")

    effect: SignedAmount
    reason: Reason


class Booked(BaseModel):
    """What a request did to a store's balance; the same again when it is repeated."""

    model_config = example(
        updateId="501",
        storeId="norte-centro",
        creditId="C-1001",
        type="CONTRIBUTION",
        sequence=7,
        effect="1184.38",
        previousBalance="0.00",
        newBalance="1184.38",
        at=NOON,
    )

    update_id: str
    store_id: str
    credit_id: str | None
    type: str
    sequence: int
    effect: str
    previous_balance: str
    new_balance: str
    at: datetime

    @classmethod
    def of(cls, update: BalanceUpdate) -> Self:
        return cls(
            update_id=str(update.id),
            store_id=update.store,
            credit_id=update.credit,
            type=update.type,
            sequence=update.sequence,
            effect=update.effect.decimal(),
            previous_balance=update.previous.decimal(),
            new_balance=update.new.decimal(),
            at=update.created_at,
        )


class StoreBalanceView(BaseModel):
    """What a store is owed: `balance` is `pending` and `inTransit` together."""

    model_config = example(
        storeId="norte-centro",
        currency="MXN",
        balance="1184.38",
        pending="1184.38",
        pendingUpdates=1,
        inTransit="0.00",
        inTransitUpdates=0,
        sequence=7,
    )

    store_id: str
    currency: str
    balance: str
    pending: str
    pending_updates: int
    in_transit: str
    in_transit_updates: int
    sequence: int

    @classmethod
    def of(cls, found: StoreBalance) -> Self:
        return cls(
            store_id=found.store,
            currency=found.balance.currency,
            balance=found.balance.decimal(),
            pending=found.pending.decimal(),
            pending_updates=found.pending_updates,
            in_transit=found.in_transit.decimal(),
            in_transit_updates=found.in_transit_updates,
            sequence=found.sequence,
        )


class UpdateView(BaseModel):
    """One change of a store's balance (L2)."""

    model_config = example(
        id="501",
        sequence=7,
        type="CONTRIBUTION",
        effect="1184.38",
        previousBalance="0.00",
        newBalance="1184.38",
        status="PENDING",
        overwritten=False,
        overwrites=None,
        creditId="C-1001",
        transferId=None,
        reason=None,
        actor="moda-norte-app",
        at=NOON,
    )

    id: str
    sequence: int
    type: str
    effect: str
    previous_balance: str
    new_balance: str
    status: str
    overwritten: bool
    overwrites: str | None
    credit_id: str | None
    transfer_id: str | None
    reason: str | None
    actor: str
    at: datetime

    @classmethod
    def of(cls, update: BalanceUpdate) -> Self:
        return cls(
            id=str(update.id),
            sequence=update.sequence,
            type=update.type,
            effect=update.effect.decimal(),
            previous_balance=update.previous.decimal(),
            new_balance=update.new.decimal(),
            status=update.status,
            overwritten=update.overwritten,
            overwrites=None if update.overwrites is None else str(update.overwrites),
            credit_id=update.credit,
            transfer_id=update.transfer,
            reason=update.reason,
            actor=update.actor,
            at=update.created_at,
        )


class UpdatesPage(Page):
    updates: Sequence[UpdateView]


class StatusView(BaseModel):
    """A status that something had, and why (L13)."""

    model_config = example(status="PENDING", at=NOON, cause="contribution", actor="moda-norte-app")

    status: str
    at: datetime
    cause: str
    actor: str

    @classmethod
    def of(cls, record: StatusRecord) -> Self:
        return cls(status=record.status, at=record.at, cause=record.cause, actor=record.actor)


class StatusesPage(Page):
    statuses: Sequence[StatusView]
