"""Payouts to stores, read only: balances and their updates, transfers and their history, runs, why a store is not paid.

Everything is asked of `ledger.disbursement`; accounts and names are shown masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request

from exporters.privacy import mask_identifier, mask_name
from hub.api import Caller, Problem
from hub.money import Money
from ledger.disbursement.balances import Balances
from ledger.disbursement.eligibility import Eligibility
from ledger.disbursement.merchants import BankAccount, Merchants
from ledger.disbursement.model import (
    BalanceUpdate,
    BankTransfer,
    DisbursementRefused,
    Frequency,
    StatusRecord,
    StoreBalance,
    TransferStatus,
    Verdict,
    VerdictCode,
)
from ledger.disbursement.runs import Run, Runs, StoreOfRun
from ledger.disbursement.transfers import Transfers
from operations_app.access import allowed
from operations_app.cursors import Cursor, Limit, Paging
from operations_app.wire import Amount, Moment, Shown

router = APIRouter(prefix="/disbursements", tags=["disbursements"])
"""Included under `/api/v1`."""

WHY: Final[Mapping[VerdictCode, str]] = {
    VerdictCode.OTHER_FREQUENCY: "It is paid at another frequency.",
    VerdictCode.AUTOMATION_OFF: "The merchant's automatic payouts are switched off.",
    VerdictCode.MERCHANT_NOT_VALIDATED: "The merchant is not validated.",
    VerdictCode.STORE_NOT_VALIDATED: "The store is not validated.",
    VerdictCode.NO_BANK_ACCOUNT: "The store has no bank account.",
    VerdictCode.ACCOUNT_NOT_AUTHENTICATED: "Nobody authenticated the store's bank account.",
    VerdictCode.NOTHING_PENDING: "Nothing is pending.",
    VerdictCode.NEGATIVE_TOTAL: "What is pending does not come to more than nothing.",
    VerdictCode.BELOW_MINIMUM: "What is pending is not more than the store's minimum.",
    VerdictCode.PAY: "It would be paid.",
}
"""Verdicts in words."""


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
        return cls(
            store=verdict.store,
            merchant=verdict.merchant,
            frequency=verdict.frequency,
            verdict=verdict.code,
            why=WHY.get(verdict.code, verdict.code.replace("_", " ").capitalize() + "."),
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


class TransferView(Shown):
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
    def of(cls, transfer: BankTransfer) -> TransferView:
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


class TransferPage(Shown):
    """Newest first."""

    transfers: list[TransferView]
    next_cursor: str | None


class StatusView(Shown):
    """A status that an update or a transfer had from then on."""

    status: str
    at: Moment
    cause: str
    actor: str


class EventView(Shown):
    """What came in about a transfer, and what became of it."""

    id: str
    source: str
    kind: str
    received_at: Moment
    outcome: str | None
    error: str | None


class ItemView(Shown):
    """An update that a transfer pays; `releasedAt` when it does so no more."""

    update: UpdateView
    linked_at: Moment
    released_at: Moment | None


class TransferDetail(Shown):
    """A payout with everything that is known of it."""

    transfer: TransferView
    history: list[StatusView]
    items: list[ItemView]
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


Reader = Annotated[Caller, Depends(allowed("disbursements:read"))]
Id = Annotated[str | None, Query(max_length=64)]


async def _statements(request: Request) -> Any:
    return request.app.state.ledger


Ledger = Annotated[Any, Depends(_statements)]


# --- stores ---------------------------------------------------------------------------------------------------------


@router.get("/stores")
async def stores(
    request: Request,
    who: Reader,
    ledger: Ledger,
    cursors: Paging,
    *,
    merchant: Id = None,
    frequency: Frequency | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> StorePage:
    """Stores with what is pending and whether they would be paid now, by store id."""
    (after,) = cursors.read(request, who, cursor) or (None,)
    found = await Eligibility(ledger).explain(
        who.tenant, merchant=merchant, frequency=frequency, after=after, limit=limit
    )
    return StorePage(
        stores=[VerdictView.of(one) for one in found],
        next_cursor=cursors.write(request, who, [found[-1].store]) if len(found) == limit else None,
    )


@router.get("/stores/{store}")
async def store(store: str, who: Reader, ledger: Ledger) -> StoreView:
    """One store: what it is owed, and why it would or would not be paid now."""
    merchants, eligibility = Merchants(ledger), Eligibility(ledger)
    balance = await _balance(ledger, who, store)
    known, account = await merchants.find_store(who.tenant, store), await merchants.account(who.tenant, store)
    (due,), (by_hand,) = (
        await eligibility.explain(who.tenant, store=store, limit=1),
        await eligibility.explain(who.tenant, store=store, limit=1, by_hand=True),
    )
    return StoreView(
        store=known.id,
        merchant=known.merchant_id,
        name=known.name,
        frequency=known.frequency,
        manual_confirmation=known.manual_confirmation,
        validated=known.validated,
        account=None if account is None else AccountView.of(account),
        balance=Amount.of(balance.balance),
        pending=Amount.of(balance.pending),
        in_transit=Amount.of(balance.in_transit),
        sequence=balance.sequence,
        if_due=VerdictView.of(due),
        if_asked=VerdictView.of(by_hand),
    )


@router.get("/stores/{store}/updates")
async def updates(
    store: str,
    request: Request,
    who: Reader,
    ledger: Ledger,
    cursors: Paging,
    *,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> UpdatePage:
    """A store's balance, change by change, newest first."""
    await _balance(ledger, who, store)
    (before,) = cursors.read(request, who, cursor) or (None,)
    found = await Balances(ledger).updates(who.tenant, store, before, limit)
    more = len(found) == limit and found[-1].sequence > 1
    return UpdatePage(
        updates=[UpdateView.of(one) for one in found],
        next_cursor=cursors.write(request, who, [found[-1].sequence]) if more else None,
    )


async def _balance(ledger: Any, who: Caller, store: str) -> StoreBalance:
    try:
        return await Balances(ledger).balance(who.tenant, store)
    except DisbursementRefused:
        raise _unknown("store") from None


# --- transfers ------------------------------------------------------------------------------------------------------


@router.get("/transfers")
async def transfers(
    request: Request,
    who: Reader,
    ledger: Ledger,
    cursors: Paging,
    *,
    store: Id = None,
    merchant: Id = None,
    status: TransferStatus | None = None,
    run: Id = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> TransferPage:
    """Payouts, newest first."""
    (before,) = cursors.read(request, who, cursor) or (None,)
    found = await Transfers(ledger).search(
        who.tenant, store=store, merchant=merchant, status=status, run_id=run, before=before, limit=limit
    )
    return TransferPage(
        transfers=[TransferView.of(one) for one in found],
        next_cursor=cursors.write(request, who, [found[-1].number]) if len(found) == limit else None,
    )


@router.get("/transfers/{payment_id}")
async def transfer(payment_id: str, who: Reader, ledger: Ledger) -> TransferDetail:
    """A payout: what it pays, the statuses it had, what came in about it."""
    asked = Transfers(ledger)
    found = await asked.find(who.tenant, payment_id)
    if found is None:
        raise _unknown("payout")
    items = [
        ItemView(update=UpdateView.of(one.update), linked_at=one.linked_at, released_at=one.released_at)
        for one in await asked.items(who.tenant, payment_id)
    ]
    events = [
        EventView(
            id=str(one.id),
            source=one.source,
            kind=one.kind,
            received_at=one.received_at,
            outcome=one.outcome,
            error=one.error,
        )
        for one in await asked.events(who.tenant, payment_id)
    ]
    history = _history(await asked.history(who.tenant, payment_id))
    return TransferDetail(transfer=TransferView.of(found), history=history, items=items, events=events)


def _history(records: Iterable[StatusRecord]) -> list[StatusView]:
    return [StatusView(status=one.status, at=one.at, cause=one.cause, actor=one.actor) for one in records]


# --- runs -----------------------------------------------------------------------------------------------------------


@router.get("/runs")
async def runs(
    request: Request, who: Reader, ledger: Ledger, cursors: Paging, *, cursor: Cursor = None, limit: Limit = 50
) -> RunPage:
    """Runs, newest first."""
    (before,) = cursors.read(request, who, cursor) or (None,)
    found: Sequence[Run] = await Runs(ledger).search(who.tenant, before=before, limit=limit)
    return RunPage(
        runs=[RunView.of(one) for one in found],
        next_cursor=cursors.write(request, who, [found[-1].number]) if len(found) == limit else None,
    )


@router.get("/runs/{run_id}")
async def run(
    run_id: str,
    request: Request,
    who: Reader,
    ledger: Ledger,
    cursors: Paging,
    *,
    verdict: VerdictCode | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> RunDetail:
    """A run with its verdict on each store: who was paid, and why the others were not."""
    asked = Runs(ledger)
    found = await asked.find(who.tenant, run_id)
    if found is None:
        raise _unknown("run")
    (after,) = cursors.read(request, who, cursor) or (None,)
    looked = await asked.stores(who.tenant, run_id, verdict=verdict, after=after, limit=limit)
    tally = await asked.tally(who.tenant, run_id)
    total: Money = tally.asked
    return RunDetail(
        run=RunView.of(found),
        tally={code.value: count for code, count in tally.stores.items()},
        asked=Amount.of(total),
        stores=[RunStoreView.of(one) for one in looked],
        next_cursor=cursors.write(request, who, [looked[-1].verdict.store]) if len(looked) == limit else None,
    )


def _unknown(what: str) -> Problem:
    return Problem(404, "not-found", f"There is no such {what}.")
