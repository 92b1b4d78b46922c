"""Balances, transfers, verdicts, schedules and runs over HTTP (L11, L18 to L31)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from connectors.disbursement.access import (
    Deciding,
    Doing,
    Editing,
    Key,
    Looking,
    ObjectId,
    TransferId,
    Watching,
    replayed,
)
from connectors.disbursement.balances_wire import (
    Adjustment,
    Booked,
    StatusesPage,
    StatusView,
    StoreBalanceView,
    UpdatesPage,
    UpdateView,
)
from connectors.disbursement.pages import STRICT, Cursor, PageSize
from connectors.disbursement.runs_wire import (
    RunsPage,
    RunStoresPage,
    RunStoreView,
    RunView,
    RunWanted,
    ScheduleBody,
    SchedulesPage,
    ScheduleView,
    VerdictsPage,
    VerdictView,
)
from connectors.disbursement.transfers_wire import (
    EventsPage,
    EventView,
    ItemsPage,
    ItemView,
    TransfersPage,
    TransferView,
)
from connectors.disbursement.wire import ReasonBody
from hub.api import Problem, not_valid
from hub.money import Money
from ledger.disbursement.eligibility import Eligibility
from ledger.disbursement.fields import CURRENCY
from ledger.disbursement.model import Frequency, StoreUnknown, TransferStatus, VerdictCode
from ledger.disbursement.runs import Runs, RunUnknown
from ledger.paging import cursor, name_cursor, name_position, position

router = APIRouter(tags=["balances and transfers"])

Named = Annotated[str | None, Query(max_length=64)]


@router.get("/stores/{store_id}/balance", dependencies=STRICT)
async def balance(who: Looking, does: Doing, store_id: ObjectId) -> StoreBalanceView:
    """What a store is owed (L4)."""
    await does.store(who, store_id)
    return StoreBalanceView.of(await does.balances.balance(who.tenant, store_id))


@router.get("/stores/{store_id}/updates", dependencies=STRICT)
async def updates(
    request: Request, who: Looking, does: Doing, store_id: ObjectId, *, cursor_: Cursor = None, limit: PageSize = 100
) -> UpdatesPage:
    """What changed a store's balance, newest first."""
    await does.store(who, store_id)
    (before,) = position(request, cursor_) or (None,)
    found = await does.balances.updates(who.tenant, store_id, before=before, limit=limit)
    more = len(found) == limit and found[-1].sequence > 1
    return UpdatesPage(
        updates=[UpdateView.of(one) for one in found],
        next_cursor=cursor(request, [found[-1].sequence]) if more else None,
    )


@router.get("/updates/{update_id}/history", dependencies=STRICT)
async def update_history(who: Watching, does: Doing, update_id: Annotated[int, Path(ge=1, le=2**62)]) -> StatusesPage:
    """The statuses an update had, oldest first (L13)."""
    found = await does.balances.history(who.tenant, update_id)
    if not found:
        raise Problem(404, "update-unknown", "There is no such update.")
    return StatusesPage(statuses=[StatusView.of(one) for one in found])


@router.post("/stores/{store_id}/adjustments", status_code=201)
async def adjust(
    request: Request, who: Deciding, does: Doing, store_id: ObjectId, *, body: Adjustment, response: Response, key: Key
) -> Booked:
    """Correct a balance by hand, with a reason (L11)."""
    await does.store(who, store_id)
    operation, again = await does.once(who, request, key)
    effect = Money(body.effect, CURRENCY)
    booked = await does.balances.adjust(
        who.tenant, store_id, effect, operation=operation, reason=body.reason, actor=who.actor
    )
    replayed(response, again=again)
    return Booked.of(booked)


@router.get("/transfers", dependencies=STRICT)
async def transfers(
    request: Request,
    who: Looking,
    does: Doing,
    *,
    store: Named = None,
    merchant: Named = None,
    status: TransferStatus | None = None,
    run: Named = None,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> TransfersPage:
    """Transfers, newest first. A partner names the store or merchant whose transfers it asks for."""
    if store is not None:
        await does.store(who, store)
    elif merchant is not None:
        await does.merchant(who, merchant)
    elif who.partner is not None:
        raise not_valid([{"parameter": "merchant", "code": "missing", "detail": "Name a store or a merchant."}])
    (before,) = position(request, cursor_) or (None,)
    found = await does.transfers.search(
        who.tenant, store=store, merchant=merchant, status=status, run_id=run, before=before, limit=limit
    )
    return TransfersPage(
        transfers=[TransferView.of(one) for one in found],
        next_cursor=cursor(request, [found[-1].number]) if len(found) == limit else None,
    )


@router.get("/transfers/{transfer_id}", dependencies=STRICT)
async def transfer(who: Looking, does: Doing, transfer_id: TransferId) -> TransferView:
    """A transfer."""
    return TransferView.of(await does.transfer(who, transfer_id))


@router.get("/transfers/{transfer_id}/items", dependencies=STRICT)
async def items(
    request: Request,
    who: Looking,
    does: Doing,
    transfer_id: TransferId,
    *,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> ItemsPage:
    """The updates that a transfer is made of, oldest first, also after its end (L18, L19)."""
    await does.transfer(who, transfer_id)
    (after,) = position(request, cursor_) or (0,)
    found = await does.transfers.items(who.tenant, transfer_id, after=after, limit=limit)
    return ItemsPage(
        items=[ItemView.of(one) for one in found],
        next_cursor=cursor(request, [found[-1].update.sequence]) if len(found) == limit else None,
    )


@router.get("/transfers/{transfer_id}/history", dependencies=STRICT)
async def transfer_history(who: Looking, does: Doing, transfer_id: TransferId) -> StatusesPage:
    """The statuses a transfer had, oldest first (L13)."""
    await does.transfer(who, transfer_id)
    found = await does.transfers.history(who.tenant, transfer_id)
    return StatusesPage(statuses=[StatusView.of(one) for one in found])


@router.get("/transfers/{transfer_id}/events", dependencies=STRICT)
async def transfer_events(who: Watching, does: Doing, transfer_id: TransferId) -> EventsPage:
    """What came in about a transfer, refused and repeated events too (L34)."""
    await does.transfer(who, transfer_id)
    return EventsPage(events=[EventView.of(one) for one in await does.transfers.events(who.tenant, transfer_id)])


@router.post("/transfers/{transfer_id}/confirmation")
async def confirm(who: Deciding, does: Doing, transfer_id: TransferId) -> TransferView:
    """Let a waiting transfer go (L23). Confirming again changes nothing."""
    return TransferView.of(await does.transfers.confirm(who.tenant, transfer_id, who.actor))


@router.post("/transfers/{transfer_id}/cancellation")
async def cancel(who: Deciding, does: Doing, transfer_id: TransferId, body: ReasonBody) -> TransferView:
    """Cancel a waiting transfer; its updates are pending again (L23). Cancelling again changes nothing."""
    return TransferView.of(await does.transfers.cancel(who.tenant, transfer_id, who.actor, body.reason))


@router.get("/stores/{store_id}/verdict", dependencies=STRICT)
async def verdict(request: Request, who: Looking, does: Doing, store_id: ObjectId) -> VerdictView:
    """Whether the store would be paid now, and if not why."""
    await does.store(who, store_id)
    found = await _eligibility(request).explain(who.tenant, store=store_id)
    if not found:
        raise StoreUnknown(store_id)
    return VerdictView.of(found[0])


@router.get("/verdicts", dependencies=STRICT)
async def verdicts(
    request: Request,
    who: Watching,
    does: Doing,
    *,
    frequency: Frequency | None = None,
    merchant: Named = None,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> VerdictsPage:
    """What a trigger would do with each store now, in the order of their ids."""
    if merchant is not None:
        await does.merchant(who, merchant)
    after = name_position(request, cursor_)
    found = await _eligibility(request).explain(
        who.tenant, frequency=frequency, merchant=merchant, after=after or None, limit=limit
    )
    return VerdictsPage(
        verdicts=[VerdictView.of(one) for one in found],
        next_cursor=name_cursor(request, found[-1].store) if len(found) == limit else None,
    )


@router.get("/schedules", dependencies=STRICT)
async def schedules(request: Request, who: Watching) -> SchedulesPage:
    """When stores of each frequency are due."""
    found = await _runs(request).schedules(who.tenant)
    return SchedulesPage(schedules=[ScheduleView.of(one) for one in found])


@router.put("/schedules/{frequency}")
async def set_schedule(request: Request, who: Deciding, frequency: Frequency, body: ScheduleBody) -> ScheduleView:
    """When the tenant's stores of a frequency are due from now on."""
    set_now = await _runs(request).set_schedule(who.tenant, frequency, body.cron, body.time_zone, who.actor)
    return ScheduleView.of(set_now)


@router.get("/runs", dependencies=STRICT)
async def runs(
    request: Request,
    who: Watching,
    *,
    frequency: Frequency | None = None,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> RunsPage:
    """Runs, newest first."""
    (before,) = position(request, cursor_) or (None,)
    found = await _runs(request).search(who.tenant, frequency=frequency, before=before, limit=limit)
    return RunsPage(
        runs=[RunView.of(one) for one in found],
        next_cursor=cursor(request, [found[-1].number]) if len(found) == limit else None,
    )


@router.post("/runs", status_code=202)
async def request_run(request: Request, who: Editing, body: RunWanted) -> RunView:
    """Ask for a run now, whatever the schedule says. Asking twice makes two runs; a store is paid once."""
    return RunView.of(await _runs(request).request(who.tenant, body.frequency, who.actor))


@router.get("/runs/{run_id}", dependencies=STRICT)
async def run(request: Request, who: Watching, run_id: TransferId) -> RunView:
    """A run, with how many stores got which verdict."""
    found = await _runs(request).find(who.tenant, run_id)
    if found is None:
        raise RunUnknown(run_id)
    return RunView.of(found, await _runs(request).tally(who.tenant, run_id))


@router.get("/runs/{run_id}/stores", dependencies=STRICT)
async def run_stores(
    request: Request,
    who: Watching,
    run_id: TransferId,
    *,
    verdict: VerdictCode | None = None,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> RunStoresPage:
    """What a run found of each store: why one was not paid, or the transfer that was asked for."""
    if await _runs(request).find(who.tenant, run_id) is None:
        raise RunUnknown(run_id)
    after = name_position(request, cursor_)
    found = await _runs(request).stores(who.tenant, run_id, verdict=verdict, after=after or None, limit=limit)
    return RunStoresPage(
        stores=[RunStoreView.of(one) for one in found],
        next_cursor=name_cursor(request, found[-1].verdict.store) if len(found) == limit else None,
    )


def _runs(request: Request) -> Runs:
    runs_: Runs = request.app.state.runs
    return runs_


def _eligibility(request: Request) -> Eligibility:
    eligibility: Eligibility = request.app.state.eligibility
    return eligibility
