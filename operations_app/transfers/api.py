"""Payments found and shown. A payment that the view does not have yet is shown as the channel took it in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from exporters.privacy import mask_identifier
from hub.api import Caller, Problem
from ledger.model import AccountKind, AccountRef, Transaction
from ledger.queries import LedgerQueries
from operations_app.access import allowed
from operations_app.actions.store import ActionStore, Link
from operations_app.cursors import Cursor, Limit, Paging
from operations_app.incidents import IncidentPage, incident_page
from operations_app.transfers.diagram import diagram
from operations_app.transfers.filters import SORTS, TransferFilter, TransferSearch, any_of
from operations_app.transfers.ids import Ids, Match
from operations_app.transfers.records import Accepted, PaymentRecords
from operations_app.transfers.wire import (
    DiagramShown,
    EngineMessageShown,
    EntriesShown,
    EntryShown,
    LinkShown,
    LinksShown,
    MessagesShown,
    OutcomeShown,
    PostingShown,
    StepPage,
    StepShown,
    Total,
    TransferPage,
    TransferRow,
    TransferShown,
    VariablePage,
    instances_of,
    money,
    variables_of,
)
from operations_app.views import AUDIT, LINKS, STEPS, TRANSFERS, Body, Views
from operations_app.views import Query as Clause
from operations_app.wire import Amount, Shown

router = APIRouter(tags=["transfers"])
"""Included under `/api/v1`."""

Reader = Annotated[Caller, Depends(allowed("transfers:read"))]
PaymentPath = Annotated[str, Path(max_length=128, examples=["01a1fd0d-d38f-761d-b195-3c7bf55b647f"])]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", max_length=1024)]

LISTED: Final = (
    *("paymentId", "state", "outcome", "reason", "direction", "amount", "currency", "fee", "payer", "payee", "rail"),
    *("concept", "referenceNumber", "trackingKey", "orderState", "processId", "processInstanceKey", "processState"),
    *("currentStep", "currentSteps", "attempts", "openIncidents", "acceptedAt", "outcomeAt", "endedAt", "updatedAt"),
)
"""What a list shows of a document."""

OLDEST_FIRST: Final[Sequence[dict[str, Any]]] = (
    {"startedAt": {"order": "asc", "missing": "_last"}},
    {"elementInstanceKey": {"order": "asc"}},
)


async def _views(request: Request) -> Views:
    views: Views = request.app.state.views
    return views


async def _records(request: Request) -> PaymentRecords:
    return PaymentRecords(request.app.state.database)


async def _ids(request: Request) -> Ids:
    return Ids(request.app.state.database, request.app.state.views)


async def _book(request: Request) -> LedgerQueries:
    return LedgerQueries(request.app.state.ledger)


async def _acts(request: Request) -> ActionStore:
    return ActionStore(request.app.state.database)


Acts = Annotated[ActionStore, Depends(_acts)]
Reading = Annotated[Views, Depends(_views)]
Records = Annotated[PaymentRecords, Depends(_records)]
AnyIds = Annotated[Ids, Depends(_ids)]
Book = Annotated[LedgerQueries, Depends(_book)]


@dataclass(frozen=True, slots=True)
class Known:
    """A payment of the caller's own tenant: its document, or what the channel knows before there is one."""

    payment_id: str
    body: Body | None
    accepted: Accepted | None

    @property
    def position(self) -> str:
        return "0" if self.body is None else str(self.body["position"])


async def known(who: Reader, views: Reading, records: Records, payment_id: PaymentPath) -> Known:
    """The payment of a path. Raises the 404 when this tenant has none such."""
    found = await views.get(TRANSFERS, payment_id, who.tenant)
    if found is not None:
        return Known(payment_id, found.body, None)
    accepted = (await records.accepted(who.tenant, [payment_id])).get(payment_id)
    if accepted is None:
        raise Problem(404, "not-found", "Your tenant has no such payment.")
    return Known(payment_id, None, accepted)


Payment = Annotated[Known, Depends(known)]


async def clauses(request: Request, who: Caller, asked: TransferFilter, ids: Ids) -> list[Clause]:
    """Everything a search is narrowed by. Raises the 422 for what cannot be asked."""
    secret: bytes | None = request.app.state.search_secret
    found = asked.clauses(secret)
    if asked.correlation_id is not None:
        found.append({"terms": {"paymentId": await ids.by_correlation(who.tenant, asked.correlation_id)}})
    if asked.id is not None:
        found.append({"terms": {"paymentId": [one.payment_id for one in await ids.matches(who.tenant, asked.id)]}})
    return found


@router.get("/transfers")
async def search_transfers(
    request: Request,
    who: Reader,
    views: Reading,
    ids: AnyIds,
    *,
    cursors: Paging,
    asked: Annotated[TransferSearch, Query()],
) -> TransferPage:
    """Payments that fit every parameter, newest first unless `sort` says otherwise. Counts are exact up to 10,000."""
    after = cursors.read(request, who, asked.cursor)
    page = await views.search(
        TRANSFERS,
        who.tenant,
        filters=await clauses(request, who, asked, ids),
        sort=SORTS[asked.sort],
        size=asked.limit,
        after=after,
        fields=LISTED,
    )
    more = len(page.hits) == asked.limit
    return TransferPage(
        items=[TransferRow.of(hit.body) for hit in page.hits],
        total=Total(count=page.total, exact=page.exact),
        next_cursor=cursors.write(request, who, page.hits[-1].sort) if more else None,
    )


class Matches(Shown):
    """Payments that go by an id."""

    items: Sequence[Match]


@router.get("/lookup")
async def lookup(who: Reader, ids: AnyIds, id: Annotated[str, Query(min_length=1, max_length=256)]) -> Matches:  # noqa: A002
    """The payments that go by exactly this id: payment, correlation id, tracking key, or any key of the engine."""
    return Matches(items=await ids.matches(who.tenant, id))


@router.get(
    "/transfers/{payment_id}", response_model=TransferShown, responses={304: {"description": "Nothing has changed."}}
)
async def transfer(
    who: Reader, payment: Payment, records: Records, response: Response, seen: IfNoneMatch = None
) -> TransferShown | Response:
    """A payment as of its `ETag`, which an action on it has to name in `If-Match`."""
    if payment.accepted is not None:
        return _only_accepted(payment.accepted)
    etag = f'"{payment.position}"'
    if matches(seen, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    body = payment.body or {}
    accepted = (await records.accepted(who.tenant, [payment.payment_id])).get(payment.payment_id)
    return TransferShown.of(
        body,
        correlation_id=accepted.correlation_id if accepted else None,
        client_ref_id=accepted.client_ref_id if accepted else None,
        reason_detail=body.get("reasonDetail"),
        outcomes=[OutcomeShown(outcome=o["outcome"], reason=o["reason"], at=o["at"]) for o in body["outcomes"]],
        incidents=body["incidents"],
        instances=instances_of(body),
        position=payment.position,
    )


def matches(seen: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` names this tag (RFC 9110: compared weakly)."""
    if seen is None:
        return False
    given = {one.strip().removeprefix("W/") for one in seen.split(",")}
    return "*" in given or etag in given


def _only_accepted(one: Accepted) -> TransferShown:
    body = {
        "paymentId": one.payment_id,
        "state": one.state.value,
        "outcome": one.outcome,
        "reason": one.reason,
        "amount": one.amount.minor,
        "currency": one.amount.currency,
        "direction": "OUTGOING",
        "acceptedAt": one.accepted_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return TransferShown.of(
        body,
        correlation_id=one.correlation_id,
        client_ref_id=one.client_ref_id,
        reason_detail=None,
        outcomes=[],
        incidents=0,
        instances=[],
        position="0",
    )


@router.get("/transfers/{payment_id}/steps")
async def transfer_steps(
    request: Request,
    who: Reader,
    views: Reading,
    payment: Payment,
    cursors: Paging,
    *,
    instance: Annotated[str | None, Query(max_length=32, description="Only those of this process instance.")] = None,
    limit: Limit = 200,
    cursor: Cursor = None,
) -> StepPage:
    """What happened, one row per element, in the order in which they began; as of half a second ago."""
    filters: list[Clause] = [{"term": {"paymentId": payment.payment_id}}]
    if instance is not None:
        filters.append({"term": {"processInstanceKey": instance}})
    page = await views.search(
        STEPS,
        who.tenant,
        filters=filters,
        sort=OLDEST_FIRST,
        size=limit,
        after=cursors.read(request, who, cursor),
        count=False,
    )
    more = len(page.hits) == limit
    return StepPage(
        items=[StepShown.of(hit) for hit in page.hits],
        next_cursor=cursors.write(request, who, page.hits[-1].sort) if more else None,
    )


@router.get("/transfers/{payment_id}/variables")
async def transfer_variables(
    request: Request, who: Reader, views: Reading, payment: Payment, cursors: Paging, *, cursor: Cursor = None
) -> VariablePage:
    """The variables of the payment's processes with their earlier values, by scope, masked."""
    page = await views.search(
        STEPS,
        who.tenant,
        filters=[{"term": {"paymentId": payment.payment_id}}, {"exists": {"field": "variableTerms"}}],
        sort=OLDEST_FIRST,
        size=_SCOPES,
        after=cursors.read(request, who, cursor),
        count=False,
    )
    more = len(page.hits) == _SCOPES
    return VariablePage(
        items=[variable for hit in page.hits for variable in variables_of(hit)],
        next_cursor=cursors.write(request, who, page.hits[-1].sort) if more else None,
    )


_SCOPES: Final = 100
"""Scopes whose variables are shown at once."""


@router.get("/transfers/{payment_id}/incidents")
async def transfer_incidents(
    request: Request,
    who: Reader,
    views: Reading,
    payment: Payment,
    cursors: Paging,
    *,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> IncidentPage:
    """The payment's incidents, open and resolved, newest first."""
    return await incident_page(
        views,
        who,
        [{"term": {"paymentId": payment.payment_id}}],
        limit,
        after=cursors.read(request, who, cursor),
        following=lambda position: cursors.write(request, who, position),
    )


@router.get("/transfers/{payment_id}/messages")
async def transfer_messages(who: Reader, views: Reading, payment: Payment, records: Records) -> MessagesShown:
    """What the scheme was asked and said, what the channel was told, and what the processes received."""
    tenant, id_ = who.tenant, payment.payment_id
    received = await views.search(
        AUDIT,
        tenant,
        filters=[
            {"term": {"paymentId": id_}},
            {"term": {"valueType": "PROCESS_MESSAGE_SUBSCRIPTION"}},
            {"term": {"intent": "CORRELATED"}},
        ],
        sort=[{"@timestamp": "asc"}, {"position": "asc"}],
        size=500,
        count=False,
    )
    return MessagesShown(
        orders=await records.orders(tenant, id_),
        observations=await records.observations(tenant, id_),
        scheme_callbacks=await records.scheme_callbacks(tenant, id_),
        channel_callbacks=await records.channel_callbacks(tenant, id_),
        received=[
            EngineMessageShown(
                message_name=hit.body.get("messageName", ""),
                message_id=hit.body.get("messageId"),
                element_id=hit.body.get("elementId"),
                process_instance_key=hit.body.get("processInstanceKey"),
                at=hit.body["@timestamp"],
            )
            for hit in received.hits
        ],
    )


@router.get("/transfers/{payment_id}/entries")
async def transfer_entries(
    request: Request,
    who: Reader,
    payment: Payment,
    book: Book,
    cursors: Paging,
    *,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> EntriesShown:
    """Everything that was booked for the payment, in order, customers' account numbers masked."""
    after = cursors.read(request, who, cursor) or [0]
    found = await book.payment(who.tenant, payment.payment_id, after=after[0], limit=limit)
    return EntriesShown(
        items=[_entry(one) for one in found],
        next_cursor=cursors.write(request, who, [found[-1].id]) if len(found) == limit else None,
    )


def _entry(one: Transaction) -> EntryShown:
    return EntryShown(
        transaction=str(one.id),
        operation=one.operation,
        kind=one.kind,
        booked_at=one.booked_at,
        effective_at=one.effective_at,
        postings=[
            PostingShown(debit=_account(p.debit), credit=_account(p.credit), amount=Amount.of(p.amount))
            for p in one.postings
        ],
    )


_PERSONAL: Final = frozenset({AccountKind.CUSTOMER_DEPOSIT, AccountKind.CREDIT_RECEIVABLE})


def _account(ref: AccountRef) -> str:
    return f"{ref.kind}:{mask_identifier(ref.owner)}" if ref.kind in _PERSONAL else str(ref)


@router.get("/transfers/{payment_id}/links")
async def transfer_links(who: Reader, views: Reading, payment: Payment, records: Records, actions: Acts) -> LinksShown:
    """What gives the payment's money back, and whose money it gives back: recalls and refunds, late returns, a
    deposit's way back."""
    asked = [_by_action(link, payment.payment_id) for link in await actions.links(who.tenant, payment.payment_id)]
    known = {link.payment_id for link in asked}
    seen = [link for link in await _seen_links(views, who, payment.payment_id) if link.payment_id not in known]
    late = [
        LinkShown(
            relation="late-return", kind="late-return", process_instance_key=one.process_instance_key, state=one.state
        )
        for one in instances_of(payment.body or {})
        if one.process_id == "late-return"
    ]
    return LinksShown(items=[*asked, *seen, *late, *await records.links(who.tenant, payment.payment_id)])


def _by_action(link: Link, payment_id: str) -> LinkShown:
    gives = link.linked_payment_id == payment_id
    return LinkShown(
        relation="gives-back" if gives else "given-back-by",
        payment_id=link.payment_id if gives else link.linked_payment_id,
        action_id=link.action_id,
        kind=link.kind,
        state=link.state,
        money=money(link.amount, link.currency or None),
    )


async def _seen_links(views: Views, who: Caller, payment_id: str) -> list[LinkShown]:
    """Links that the engine's records name, whoever made them."""
    page = await views.search(
        LINKS,
        who.tenant,
        filters=[any_of([{"term": {"paymentId": payment_id}}, {"term": {"linkedPaymentId": payment_id}}])],
        sort=[{"position": "asc"}],
        size=_SCOPES,
        count=False,
    )
    found: dict[str, LinkShown] = {}
    for hit in page.hits:
        own = hit.body["paymentId"] == payment_id
        gives = (hit.body["relation"] == "GIVES_BACK") == own
        other = hit.body["linkedPaymentId"] if own else hit.body["paymentId"]
        found[other] = LinkShown(relation="gives-back" if gives else "given-back-by", payment_id=other)
    return list(found.values())


@router.get(
    "/transfers/{payment_id}/diagram",
    response_model=DiagramShown,
    responses={304: {"description": "Nothing has changed."}},
)
async def transfer_diagram(
    who: Reader,
    views: Reading,
    payment: Payment,
    response: Response,
    *,
    instance: Annotated[str | None, Query(max_length=32, description="A process instance; else the main one.")] = None,
    seen: IfNoneMatch = None,
) -> DiagramShown | Response:
    """Where a process instance stands in the drawing that it was started with, as of its `ETag`."""
    body = payment.body or {}
    chosen = instance or body.get("processInstanceKey")
    shown = None if chosen is None else await diagram(views, who.tenant, body, chosen)
    if shown is None:
        raise Problem(404, "not-found", "The payment has no such process instance.")
    etag = f'"{shown.process_instance_key}-{shown.position}"'
    if matches(seen, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return shown
