"""Payouts to stores, read only: balances and their updates, transfers and their history, runs, why a store is not paid.

Everything is asked of `ledger.disbursement`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from hub.api import Caller, Problem
from ledger.disbursement.balances import Balances
from ledger.disbursement.eligibility import Eligibility
from ledger.disbursement.merchants import Merchants
from ledger.disbursement.model import DisbursementRefused, Frequency, StoreBalance, TransferStatus, VerdictCode
from ledger.disbursement.runs import Runs
from ledger.disbursement.transfers import Transfers
from operations_app.access import allowed
from operations_app.cursors import Cursor, Limit, Paging
from operations_app.disbursements.wire import (
    AccountView,
    EventView,
    PaidUpdateView,
    PayoutDetail,
    PayoutPage,
    PayoutView,
    RunDetail,
    RunPage,
    RunStoreView,
    RunView,
    StatusView,
    StorePage,
    StoreView,
    UpdatePage,
    UpdateView,
    VerdictView,
)
from operations_app.wire import Amount

router = APIRouter(prefix="/disbursements", tags=["disbursements"])
"""Included under `/api/v1`."""

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
) -> PayoutPage:
    """Payouts, newest first."""
    (before,) = cursors.read(request, who, cursor) or (None,)
    found = await Transfers(ledger).search(
        who.tenant, store=store, merchant=merchant, status=status, run_id=run, before=before, limit=limit
    )
    return PayoutPage(
        transfers=[PayoutView.of(one) for one in found],
        next_cursor=cursors.write(request, who, [found[-1].number]) if len(found) == limit else None,
    )


@router.get("/transfers/{payment_id}")
async def transfer(payment_id: str, who: Reader, ledger: Ledger) -> PayoutDetail:
    """A payout: what it pays, the statuses it had, what came in about it."""
    asked = Transfers(ledger)
    found = await asked.find(who.tenant, payment_id)
    if found is None:
        raise _unknown("payout")
    return PayoutDetail(
        transfer=PayoutView.of(found),
        history=[StatusView.of(one) for one in await asked.history(who.tenant, payment_id)],
        items=[PaidUpdateView.of(one) for one in await asked.items(who.tenant, payment_id)],
        events=[EventView.of(one) for one in await asked.events(who.tenant, payment_id)],
    )


# --- runs -----------------------------------------------------------------------------------------------------------


@router.get("/runs")
async def runs(
    request: Request, who: Reader, ledger: Ledger, cursors: Paging, *, cursor: Cursor = None, limit: Limit = 50
) -> RunPage:
    """Runs, newest first."""
    (before,) = cursors.read(request, who, cursor) or (None,)
    found = await Runs(ledger).search(who.tenant, before=before, limit=limit)
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
    return RunDetail(
        run=RunView.of(found),
        tally={code.value: count for code, count in tally.stores.items()},
        asked=Amount.of(tally.asked),
        stores=[RunStoreView.of(one) for one in looked],
        next_cursor=cursors.write(request, who, [looked[-1].verdict.store]) if len(looked) == limit else None,
    )


def _unknown(what: str) -> Problem:
    return Problem(404, "not-found", f"There is no such {what}.")
