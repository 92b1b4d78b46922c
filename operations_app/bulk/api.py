"""Bulk operations over HTTP: asked for, approved by somebody else, suspended, resumed, cancelled, retried."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import Field, model_validator

from hub.api import Caller, Problem, not_valid
from hub.money import Money
from hub.transfer import TenantId
from operations_app.access import allowed
from operations_app.actions.model import STATED, Kind, ReasonCode
from operations_app.actions.possible import Asked as Payload
from operations_app.actions.possible import not_taken
from operations_app.actions.store import ActionStore
from operations_app.bulk.expiry import let_expire
from operations_app.bulk.model import MOST_ITEMS, Bulk, BulkState, Chosen, ItemRow, ItemState
from operations_app.bulk.store import BulkStore, NewBulk
from operations_app.cursors import MAX_LIMIT, Cursor, Limit, Paging
from operations_app.journal import Act, Journal
from operations_app.transfers.filters import SORTS, TransferFilter
from operations_app.views import TRANSFERS, Views
from operations_app.wire import Amount, Asked, Moment, Note, Shown, Text, Why, moment

router = APIRouter(prefix="/bulk-operations", tags=["bulk"])
"""Included under `/api/v1`."""

KINDS: Final = frozenset(Kind) - {Kind.MANUAL_OVERRIDE}
"""What can be done to many payments alike: other variables for each are nothing for a list."""

_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_PAGE: Final = 1_000

Asking = Annotated[Caller, Depends(allowed("bulk:request"))]
Approving = Annotated[Caller, Depends(allowed("bulk:approve"))]
Looking = Annotated[Caller, Depends(allowed("transfers:read"))]
Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]


class Selection(Asked):
    """Which payments: by their ids, or by a filter as the search takes it."""

    payment_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_ITEMS)] | None = None
    filter: TransferFilter | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.payment_ids is None) == (self.filter is None):
            raise ValueError("either paymentIds or filter")
        if self.filter is not None and not self.filter.model_dump(exclude_defaults=True):
            raise ValueError("a filter that names nothing would choose every payment")
        return self


class BulkBody(Asked):
    """A bulk operation that is asked for."""

    kind: Kind
    selection: Selection
    reason_code: ReasonCode
    reason: Why
    payload: Payload = Payload()
    """As of a single action; only what is the same for every payment."""
    dry_run: bool = False
    """Only say for each payment whether it would be possible."""
    per_second: Annotated[int, Field(ge=1, le=100)] = 5
    at_once: Annotated[int, Field(ge=1, le=50)] = 10

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind} is for one payment at a time")
        asked = self.payload
        if extra := not_taken(self.kind, asked):
            raise ValueError(f"{self.kind} does not take {', '.join(extra)}")
        if self.kind is Kind.FORCE_COMPLETE and asked.outcome not in STATED:
            raise ValueError("payload.outcome has to state a final outcome")
        if asked.incident_keys is not None or asked.variables is not None or asked.money is not None:
            raise ValueError("incidentKeys, variables and money belong to one payment")
        return self


class NoteBody(Asked):
    """What somebody adds to a decision."""

    note: Note | None = None


class RejectBody(Asked):
    """Why not."""

    note: Text


class BulkView(Shown):
    """A bulk operation with the counts of its items."""

    id: str
    kind: str
    state: BulkState
    payload: Mapping[str, Any]
    selection: Mapping[str, Any]
    reason_code: str
    reason: str
    dry_run: bool
    per_second: int
    at_once: int
    approvals_needed: int
    items: int
    totals: list[Amount]
    counts: Mapping[str, int]
    list_sha256: str
    requested_by: str
    requested_at: Moment
    expires_at: Moment
    ended_at: Moment | None

    @classmethod
    def of(cls, bulk: Bulk) -> Self:
        return cls(
            id=bulk.id,
            kind=bulk.kind,
            state=bulk.state,
            payload=bulk.asked,
            selection=bulk.selection,
            reason_code=bulk.reason_code,
            reason=bulk.reason,
            dry_run=bulk.dry_run,
            per_second=bulk.per_second,
            at_once=bulk.at_once,
            approvals_needed=bulk.approvals_needed,
            items=bulk.items,
            totals=[Amount.of(Money(minor, currency)) for currency, minor in sorted(bulk.totals.items())],
            counts={state.value: bulk.counts.get(state, 0) for state in ItemState},
            list_sha256=bulk.list_sha256,
            requested_by=bulk.requested_by,
            requested_at=bulk.requested_at,
            expires_at=bulk.expires_at,
            ended_at=bulk.ended_at,
        )


class BulkPage(Shown):
    """Newest first."""

    bulk_operations: list[BulkView]
    next_cursor: str | None


class ItemView(Shown):
    """One payment of the list."""

    position: int
    payment_id: str
    money: Amount
    state: ItemState
    round: int
    attempts: int
    action_id: str | None
    code: str | None
    detail: str | None
    changed_at: Moment

    @classmethod
    def of(cls, item: ItemRow) -> Self:
        return cls(
            position=item.position,
            payment_id=item.payment_id,
            money=Amount.of(Money(item.amount, item.currency)),
            state=item.state,
            round=item.round,
            attempts=item.attempts,
            action_id=item.action_id,
            code=item.code,
            detail=item.detail,
            changed_at=item.changed_at,
        )


class ItemPage(Shown):
    """In the order of the list."""

    items: list[ItemView]
    next_cursor: str | None


async def _store(request: Request) -> BulkStore:
    """The tables, in which nothing is left waiting whose time is over."""
    store: BulkStore | None = getattr(request.app.state, "bulk", None)
    if store is None:
        store = request.app.state.bulk = BulkStore(request.app.state.database)
    await let_expire(store, _journal(request))
    return store


Store = Annotated[BulkStore, Depends(_store)]


# --- asking ---------------------------------------------------------------------------------------------------------


@router.post("", status_code=202)
async def ask(
    body: BulkBody,
    request: Request,
    response: Response,
    who: Asking,
    store: Store,
    *,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> BulkView:
    """Freeze a list of payments and ask for one action on each. It begins when somebody else has approved it."""
    if idempotency_key is None or _KEY.fullmatch(idempotency_key) is None:
        raise Problem(400, "header-missing", "This needs Idempotency-Key: up to 128 printable characters.")
    digest = hashlib.sha256(body.model_dump_json().encode()).digest()
    known = await store.by_key(who.tenant, who.subject, idempotency_key)
    if known is None:
        new = await _new(body, request, who, store, key=idempotency_key, digest=digest)
        async with store.database.connection() as connection, connection.transaction():
            if await store.insert(connection, new):
                after = {
                    "kind": new.kind,
                    "dry_run": new.dry_run,
                    "items": len(new.chosen),
                    "totals": new.totals,
                    "list_sha256": new.list_sha256.hex(),
                    "selection": new.selection if body.selection.payment_ids is None else {"ids": len(new.chosen)},
                }
                why = {"reason_code": new.reason_code, "reason": new.reason}
                act = Act.by(
                    who, action="bulk.request", target=f"bulk:{new.id}", after=after, outcome=new.state.value, **why
                )
                await _journal(request).append(act, connection)
        known = await store.by_key(who.tenant, who.subject, idempotency_key)
    else:
        response.headers["Idempotent-Replayed"] = "true"
    if known is None:
        raise LookupError("a bulk operation was written and is not there")
    if known.request_hash != digest:
        raise Problem(422, "key-reused", "Another request was made with this Idempotency-Key; choose a new one.")
    response.headers["Location"] = f"{request.url.path}/{known.id}"
    return BulkView.of(known)


async def _new(body: BulkBody, request: Request, who: Caller, store: BulkStore, *, key: str, digest: bytes) -> NewBulk:
    chosen = await _chosen(body.selection, request, who, store)
    needed = 0
    if not body.dry_run:
        _, policy = await ActionStore(store.database).policy(who.tenant)
        needed = max(1, *(policy.approvals(body.kind, one.amount, one.currency) for one in chosen))
    return NewBulk(
        id=str(uuid.uuid4()),
        tenant_id=who.tenant,
        kind=body.kind.value,
        asked=body.payload.model_dump(mode="json", by_alias=True, exclude_none=True),
        selection=body.selection.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        reason_code=body.reason_code.value,
        reason=body.reason,
        dry_run=body.dry_run,
        per_second=body.per_second,
        at_once=body.at_once,
        approvals_needed=needed,
        chosen=chosen,
        requested_by=who.subject,
        roles=sorted(who.roles),
        key=key,
        request_hash=digest,
        expires_in=float(request.app.state.settings.action_expires_after),
    )


async def _chosen(selection: Selection, request: Request, who: Caller, store: BulkStore) -> list[Chosen]:
    """The payments of a selection, in its order, each once. Raises the 422 when one is not there or none is."""
    by_id = selection.payment_ids is not None
    ids = list(dict.fromkeys(selection.payment_ids or await _found(selection.filter, request, who.tenant)))
    found = await store.choose(who.tenant, ids)
    missing = [number for number, one in enumerate(ids) if one not in found]
    if by_id and missing:
        raise not_valid(
            [
                {"pointer": f"/selection/paymentIds/{number}", "code": "not-found", "detail": "No such payment."}
                for number in missing[:20]
            ]
        )
    chosen = [found[one] for one in ids if one in found]
    if not chosen:
        raise not_valid([{"pointer": "/selection", "code": "empty", "detail": "No payment is like that."}])
    return chosen


async def _found(wanted: TransferFilter | None, request: Request, tenant: TenantId) -> list[str]:
    if wanted is None:
        return []
    if wanted.id is not None or wanted.correlation_id is not None:
        faults = [{"pointer": "/selection/filter", "code": "not-allowed", "detail": "Name ids in paymentIds."}]
        raise not_valid(faults)
    views: Views = request.app.state.views
    secret = getattr(request.app.state, "search_secret", None)
    ids: list[str] = []
    after = None
    while True:
        page = await views.search(
            TRANSFERS,
            tenant,
            filters=wanted.clauses(secret),
            sort=SORTS["acceptedAt"],
            size=_PAGE,
            after=after,
            fields=["paymentId"],
            count=False,
        )
        ids += [hit.body["paymentId"] for hit in page.hits]
        if len(ids) > MOST_ITEMS:
            detail = f"The filter finds more than {MOST_ITEMS} payments; narrow it."
            raise not_valid([{"pointer": "/selection/filter", "code": "too-many", "detail": detail}])
        if len(page.hits) < _PAGE:
            return ids
        after = page.hits[-1].sort


# --- looking --------------------------------------------------------------------------------------------------------


@router.get("")
async def bulk_operations(
    request: Request,
    who: Looking,
    store: Store,
    cursors: Paging,
    *,
    state: BulkState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> BulkPage:
    """Bulk operations of this tenant, newest first."""
    rows = await store.listed(who.tenant, state, cursors.read(request, who, cursor), limit)
    last = [rows[-1].requested_at.isoformat(), rows[-1].id] if len(rows) == limit else None
    return BulkPage(
        bulk_operations=[BulkView.of(row) for row in rows],
        next_cursor=None if last is None else cursors.write(request, who, last),
    )


@router.get("/{bulk_id}")
async def bulk_operation(bulk_id: str, who: Looking, store: Store) -> BulkView:
    """One bulk operation."""
    return BulkView.of(await _there(store, who, bulk_id))


@router.get("/{bulk_id}/items")
async def items(
    bulk_id: str,
    request: Request,
    who: Looking,
    store: Store,
    cursors: Paging,
    *,
    state: ItemState | None = None,
    cursor: Cursor = None,
    limit: Limit = MAX_LIMIT,
) -> ItemPage:
    """The payments of the list, each with its state and its error."""
    bulk = await _there(store, who, bulk_id)
    (after,) = cursors.read(request, who, cursor) or (0,)
    rows = await store.items(bulk.id, state, after, limit)
    following = cursors.write(request, who, [rows[-1].position]) if len(rows) == limit else None
    return ItemPage(items=[ItemView.of(row) for row in rows], next_cursor=following)


# --- deciding -------------------------------------------------------------------------------------------------------


@router.post("/{bulk_id}/approve")
async def approve(
    bulk_id: str, request: Request, who: Approving, store: Store, *, body: NoteBody | None = None
) -> BulkView:
    """Approve the whole list; with the last approval it begins. Whoever asked for it does not approve it."""
    return await _decide(bulk_id, body.note if body else None, request, who, store, yes=True)


@router.post("/{bulk_id}/reject")
async def reject(bulk_id: str, body: RejectBody, request: Request, who: Approving, store: Store) -> BulkView:
    """Say no: nothing will be done."""
    return await _decide(bulk_id, body.note, request, who, store, yes=False)


async def _decide(
    bulk_id: str, note: str | None, request: Request, who: Caller, store: BulkStore, *, yes: bool
) -> BulkView:
    what = "bulk.approve" if yes else "bulk.reject"
    before = await _there(store, who, bulk_id)
    if before.requested_by == who.subject:
        await _journal(request).append(_act(who, before, what, "refused", note))
        raise Problem(403, "own-request", "Whoever asked for a bulk operation does not decide it.")
    async with store.database.connection() as connection, connection.transaction():
        bulk = await _locked(store, connection, who, bulk_id, {BulkState.REQUESTED})
        if bulk.expired:
            raise Problem(409, "expired", "The time in which it could be decided is over.")
        approvals = await store.say(connection, bulk, who.subject, note, yes=yes)
        if approvals is None:
            raise Problem(409, "already-said", "You decided this already.")
        state = BulkState.REQUESTED if yes else BulkState.REJECTED
        if yes and approvals >= bulk.approvals_needed:
            state = BulkState.RUNNING
        if state is not BulkState.REQUESTED:
            await store.move(connection, bulk.id, state)
        await _journal(request).append(_act(who, bulk, what, state, note), connection)
    return BulkView.of(await _there(store, who, bulk_id))


Step = Literal["withdraw", "suspend", "resume", "cancel", "retry-failed"]
_FROM: Final[Mapping[str, frozenset[BulkState]]] = {
    "withdraw": frozenset({BulkState.REQUESTED}),
    "suspend": frozenset({BulkState.RUNNING}),
    "resume": frozenset({BulkState.SUSPENDED}),
    "cancel": frozenset({BulkState.RUNNING, BulkState.SUSPENDED}),
    "retry-failed": frozenset({BulkState.COMPLETED}),
}
_TO: Final[Mapping[str, BulkState]] = {
    "withdraw": BulkState.WITHDRAWN,
    "suspend": BulkState.SUSPENDED,
    "resume": BulkState.RUNNING,
    "cancel": BulkState.CANCELLED,
    "retry-failed": BulkState.RUNNING,
}


@router.post("/{bulk_id}/{step}")
async def steer(
    bulk_id: str, step: Step, request: Request, *, who: Asking, store: Store, body: NoteBody | None = None
) -> BulkView:
    """Take it back before it is approved; suspend, resume or cancel it; begin the failed items of a completed one anew.

    Items that were begun end as they will. A second round needs no second approval: it is the same list.
    """
    before = await _there(store, who, bulk_id)
    if step == "withdraw" and before.requested_by != who.subject:
        raise Problem(403, "not-own-request", "Only whoever asked for it can withdraw it.")
    async with store.database.connection() as connection, connection.transaction():
        bulk = await _locked(store, connection, who, bulk_id, _FROM[step])
        if step == "retry-failed" and not await store.again(connection, bulk.id):
            raise Problem(409, "nothing-failed", "No item of it failed.")
        await store.move(connection, bulk.id, _TO[step])
        note = body.note if body else None
        await _journal(request).append(_act(who, bulk, f"bulk.{step}", _TO[step], note), connection)
    return BulkView.of(await _there(store, who, bulk_id))


async def _locked(
    store: BulkStore, connection: Any, who: Caller, bulk_id: str, states: frozenset[BulkState] | set[BulkState]
) -> Bulk:
    bulk = await store.lock(connection, who.tenant, bulk_id)
    if bulk is None:
        raise _unknown()
    if bulk.state not in states:
        raise Problem(409, "wrong-state", f"This bulk operation is {bulk.state}.", state=bulk.state)
    return bulk


async def _there(store: BulkStore, who: Caller, bulk_id: str) -> Bulk:
    found = await store.find(who.tenant, bulk_id)
    if found is None:
        raise _unknown()
    return found


def _act(who: Caller, bulk: Bulk, action: str, outcome: str, note: str | None) -> Act:
    return Act.by(
        who,
        action=action,
        target=f"bulk:{bulk.id}",
        reason_code=bulk.reason_code,
        reason=note,
        before={"state": bulk.state, "items": dict(bulk.counts)},
        after={"state": outcome, "expires_at": moment(bulk.expires_at)},
        outcome=outcome,
    )


def _journal(request: Request) -> Journal:
    journal: Journal = request.app.state.journal
    return journal


def _unknown() -> Problem:
    return Problem(404, "not-found", "There is no such bulk operation.")
