"""Payouts to stores as an operator sees them, accounts and names masked."""

from __future__ import annotations

from collections.abc import Mapping

from exporters.privacy import mask_identifier, mask_name
from ledger.disbursement.explanations import explanation
from ledger.disbursement.merchants import BankAccount
from ledger.disbursement.model import (
    BalanceUpdate,
    BankTransfer,
    Event,
    Frequency,
    StatusRecord,
    TransferItem,
    TransferStatus,
    Verdict,
    VerdictCode,
)
from ledger.disbursement.runs import Run, StoreOfRun
from operations_app.wire import Amount, Moment, Shown


class VerdictView(Shown):
    """Whether a store would be paid now, and if not the first thing that speaks against it."""

    store: str
    merchant: str
    frequency: Frequency
    verdict: VerdictCode
    why: str
    pending_updates: int
    pending: Amount
    minimum: Amount

    @classmethod
    def of(cls, verdict: Verdict) -> VerdictView:
        why = explanation(verdict)
        return cls(
            store=verdict.store,
            merchant=verdict.merchant,
            frequency=verdict.frequency,
            verdict=verdict.code,
            why=f"{why[:1].upper()}{why[1:]}.",
            pending_updates=verdict.updates,
            pending=Amount.of(verdict.total),
            minimum=Amount.of(verdict.minimum),
        )


class StorePage(Shown):
    """By store id."""

    stores: list[VerdictView]
    next_cursor: str | None


class AccountView(Shown):
    """Where a store is paid, masked."""

    clabe: str
    holder_name: str
    authenticated: bool

    @classmethod
    def of(cls, account: BankAccount) -> AccountView:
        return cls(
            clabe=mask_identifier(account.clabe),
            holder_name=mask_name(account.holder_name),
            authenticated=account.authenticated_at is not None,
        )


class StoreView(Shown):
    """One store: what it is owed, where it is paid, and why it is or is not."""

    store: str
    merchant: str
    name: str
    frequency: Frequency
    manual_confirmation: bool
    validated: bool
    account: AccountView | None
    balance: Amount
    pending: Amount
    in_transit: Amount
    sequence: int
    if_due: VerdictView
    """What its frequency would do with it now."""
    if_asked: VerdictView
    """What somebody who asks for its payout by hand would hear now."""


class UpdateView(Shown):
    """One change of a store's balance."""

    id: str
    sequence: int
    type: str
    status: str
    effect: Amount
    previous: Amount
    new: Amount
    overwritten: bool
    overwrites: str | None
    credit: str | None
    transfer_id: str | None
    transaction: str
    reason: str | None
    actor: str
    created_at: Moment

    @classmethod
    def of(cls, update: BalanceUpdate) -> UpdateView:
        return cls(
            id=str(update.id),
            sequence=update.sequence,
            type=update.type,
            status=update.status,
            effect=Amount.of(update.effect),
            previous=Amount.of(update.previous),
            new=Amount.of(update.new),
            overwritten=update.overwritten,
            overwrites=None if update.overwrites is None else str(update.overwrites),
            credit=update.credit,
            transfer_id=update.transfer,
            transaction=str(update.transaction),
            reason=update.reason,
            actor=update.actor,
            created_at=update.created_at,
        )


class UpdatePage(Shown):
    """Newest first."""

    updates: list[UpdateView]
    next_cursor: str | None


class PayoutView(Shown):
    """One payout. `id` is the payment id, under which the transfer is found too."""

    id: str
    store: str
    amount: Amount
    status: TransferStatus
    trigger: str
    run_id: str | None
    account: str
    holder_name: str
    needs_confirmation: bool
    must_wait: bool
    confirmed_by: str | None
    confirmed_at: Moment | None
    process_instance_key: str | None
    reason: str | None
    reason_detail: str | None
    created_at: Moment
    settled_at: Moment | None

    @classmethod
    def of(cls, transfer: BankTransfer) -> PayoutView:
        key = transfer.process_instance_key
        return cls(
            id=transfer.id,
            store=transfer.store,
            amount=Amount.of(transfer.amount),
            status=transfer.status,
            trigger=transfer.trigger,
            run_id=transfer.run_id,
            account=mask_identifier(transfer.clabe),
            holder_name=mask_name(transfer.holder_name),
            needs_confirmation=transfer.needs_confirmation,
            must_wait=transfer.must_wait,
            confirmed_by=transfer.confirmed_by,
            confirmed_at=transfer.confirmed_at,
            process_instance_key=None if key is None else str(key),
            reason=transfer.reason,
            reason_detail=transfer.reason_detail,
            created_at=transfer.created_at,
            settled_at=transfer.settled_at,
        )


class PayoutPage(Shown):
    """Newest first."""

    transfers: list[PayoutView]
    next_cursor: str | None


class StatusView(Shown):
    """A status that an update or a transfer had from then on."""

    status: str
    at: Moment
    cause: str
    actor: str

    @classmethod
    def of(cls, record: StatusRecord) -> StatusView:
        return cls(status=record.status, at=record.at, cause=record.cause, actor=record.actor)


class EventView(Shown):
    """What came in about a transfer, and what became of it."""

    id: str
    source: str
    kind: str
    received_at: Moment
    outcome: str | None
    error: str | None

    @classmethod
    def of(cls, event: Event) -> EventView:
        return cls(
            id=str(event.id),
            source=event.source,
            kind=event.kind,
            received_at=event.received_at,
            outcome=event.outcome,
            error=event.error,
        )


class PaidUpdateView(Shown):
    """An update that a transfer pays; `releasedAt` when it does so no more."""

    update: UpdateView
    linked_at: Moment
    released_at: Moment | None

    @classmethod
    def of(cls, item: TransferItem) -> PaidUpdateView:
        return cls(update=UpdateView.of(item.update), linked_at=item.linked_at, released_at=item.released_at)


class PayoutDetail(Shown):
    """A payout with everything that is known of it."""

    transfer: PayoutView
    history: list[StatusView]
    items: list[PaidUpdateView]
    events: list[EventView]


class RunView(Shown):
    """One firing of a frequency."""

    id: str
    frequency: Frequency
    scheduled_for: Moment
    requested_by: str | None
    created_at: Moment
    process_instance_key: str | None
    closed_at: Moment | None

    @classmethod
    def of(cls, run: Run) -> RunView:
        key = run.process_instance_key
        return cls(
            id=run.id,
            frequency=run.frequency,
            scheduled_for=run.scheduled_for,
            requested_by=run.requested_by,
            created_at=run.created_at,
            process_instance_key=None if key is None else str(key),
            closed_at=run.closed_at,
        )


class RunPage(Shown):
    """Newest first."""

    runs: list[RunView]
    next_cursor: str | None


class RunStoreView(Shown):
    """What a run found of a store, and the payout it asked for."""

    verdict: VerdictView
    transfer_id: str | None
    considered_at: Moment

    @classmethod
    def of(cls, found: StoreOfRun) -> RunStoreView:
        return cls(
            verdict=VerdictView.of(found.verdict), transfer_id=found.payment_id, considered_at=found.considered_at
        )


class RunDetail(Shown):
    """A run with a verdict on each store, by store id."""

    run: RunView
    tally: Mapping[str, int]
    asked: Amount
    stores: list[RunStoreView]
    next_cursor: str | None
