"""What STP posted to us, how it matched, and handling it once more.

Everything listed passed the checks on who calls; a post that does not pass is refused unread and only counted. Bodies
are shown masked. Handling a post again goes the connector's own way, so doing it twice changes nothing.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request

from connectors.stp.deposits import DEPOSIT
from connectors.stp.log import CallbackLog, LoggedCallback, Match, Question, Reprocessing
from connectors.stp.orders import ORDER_STATUS, CallbackResult
from exporters.privacy import mask
from hub.api import Caller, Problem
from hub.errors import Unavailable
from operations_app.access import allowed
from operations_app.cursors import Cursor, Limit, Paging
from operations_app.journal import Act, Journal
from operations_app.transfers.filters import Instant
from operations_app.wire import Asked, Moment, Shown, Text, Word

router = APIRouter(prefix="/stp/callbacks", tags=["callbacks"])
"""Included under `/api/v1`."""

REPROCESS: Final = "callback.reprocess"


class CallbackView(Shown):
    """One post, however often STP repeated it."""

    id: str
    kind: Literal["order-status", "deposit"]
    received_at: Moment
    last_received_at: Moment
    times: int
    authentication: Literal["passed"] = "passed"
    """A post that does not pass the checks is never stored."""
    match: Match
    result: CallbackResult | None
    handled_at: Moment | None
    payment_id: str | None
    tracking_key: str | None
    state: str | None
    """The order's state now, or what was decided of the deposit."""
    answer: str | None
    """What STP is answered to a deposit."""
    body: Any
    """As it came, masked; null when it is no JSON."""
    bytes: int

    @classmethod
    def of(cls, one: LoggedCallback) -> CallbackView:
        return cls(
            id=str(one.id),
            kind="deposit" if one.kind == DEPOSIT else "order-status",
            received_at=one.received_at,
            last_received_at=one.last_received_at,
            times=one.times,
            match=one.match,
            result=one.result,
            handled_at=one.handled_at,
            payment_id=one.payment_id,
            tracking_key=one.tracking_key,
            state=one.state,
            answer=one.answer,
            body=_masked(one.body),
            bytes=len(one.body),
        )


class CallbackPage(Shown):
    """Newest first."""

    callbacks: list[CallbackView]
    next_cursor: str | None


class Again(Asked):
    """Why it is handled once more."""

    reason_code: Word
    reason: Text


class Reprocessed(Shown):
    """The post as it is now. `changed`: handling it again came to another result than before."""

    callback: CallbackView
    changed: bool
    act: str
    """The row of the operator log."""


def _masked(body: bytes) -> Any:
    try:
        return mask(json.loads(body))
    except ValueError:
        return None


async def _log(request: Request) -> CallbackLog:
    log: CallbackLog | None = getattr(request.app.state, "callback_log", None)
    if log is None:
        log = request.app.state.callback_log = CallbackLog(request.app.state.database)
    return log


Log = Annotated[CallbackLog, Depends(_log)]
Reader = Annotated[Caller, Depends(allowed("transfers:read"))]


@router.get("")
async def callbacks(
    request: Request,
    who: Reader,
    log: Log,
    cursors: Paging,
    *,
    kind: Literal["order-status", "deposit"] | None = None,
    result: CallbackResult | None = None,
    match: Match | None = None,
    payment_id: Annotated[str | None, Query(alias="paymentId", max_length=64)] = None,
    tracking_key: Annotated[str | None, Query(alias="trackingKey", max_length=64)] = None,
    since: Annotated[Instant | None, Query(alias="receivedFrom")] = None,
    until: Annotated[Instant | None, Query(alias="receivedTo")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> CallbackPage:
    """What STP posted about orders and deposits of this tenant, newest first."""
    (before,) = cursors.read(request, who, cursor) or (None,)
    question = Question(
        tenant=who.tenant,
        kind={"deposit": DEPOSIT, "order-status": ORDER_STATUS}.get(kind or ""),
        result=result,
        match=match,
        payment_id=payment_id,
        tracking_key=tracking_key,
        since=since,
        until=until,
        before=before,
    )
    found, following = await log.look(question, limit)
    return CallbackPage(
        callbacks=[CallbackView.of(one) for one in found],
        next_cursor=None if following is None else cursors.write(request, who, [following]),
    )


@router.get("/{callback_id}")
async def callback(callback_id: str, who: Reader, log: Log) -> CallbackView:
    """One post."""
    return CallbackView.of(await _found(log, who, callback_id))


@router.post("/{callback_id}/reprocess")
async def reprocess(
    callback_id: str,
    again: Again,
    request: Request,
    who: Annotated[Caller, Depends(allowed("callbacks:reprocess"))],
    log: Log,
) -> Reprocessed:
    """Handle a post once more, as when it came."""
    before = await _found(log, who, callback_id)
    reprocessing: Reprocessing | None = getattr(request.app.state, "reprocessing", None)
    if reprocessing is None:
        raise Unavailable("callbacks cannot be handled here")
    journal: Journal = request.app.state.journal

    async def write(outcome: str, after: LoggedCallback | None = None) -> int:
        return await journal.append(
            Act.by(
                who,
                action=REPROCESS,
                target=f"callback:{before.id}",
                payment_id=before.payment_id if after is None else after.payment_id,
                reason_code=again.reason_code,
                reason=again.reason,
                before=_standing(before),
                after=None if after is None else _standing(after),
                outcome=outcome,
            )
        )

    await write("requested")
    try:
        await reprocessing.again(before)
    except Exception:
        await write("failed")
        raise
    after = await _found(log, who, callback_id)
    act = await write("done", after)
    changed = _standing(before) != _standing(after)
    return Reprocessed(callback=CallbackView.of(after), changed=changed, act=str(act))


def _standing(one: LoggedCallback) -> dict[str, str | None]:
    return {"result": one.result, "match": one.match, "state": one.state}


async def _found(log: CallbackLog, who: Caller, callback_id: str) -> LoggedCallback:
    number = int(callback_id) if callback_id.isascii() and callback_id.isdigit() and len(callback_id) < 19 else 0
    found = await log.find(who.tenant, number)
    if found is None:
        raise Problem(404, "not-found", "There is no such callback.")
    return found
