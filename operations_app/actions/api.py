"""Operators' actions over HTTP."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from hub.api import Caller, Problem, not_valid
from hub.money import Money
from operations_app.access import allowed
from operations_app.actions.model import GIVING_BACK, Kind, ReasonCode, State
from operations_app.actions.policy import Policy, described
from operations_app.actions.possible import Asked, Plan, available, needs
from operations_app.actions.service import (
    UNDER_WAY,
    ActionRefused,
    Actions,
    Actor,
    KeyReused,
    Moved,
    NotAllowed,
    NotBegun,
    Unknown,
)
from operations_app.actions.service import (
    Request as Wanted,
)
from operations_app.actions.store import Action, Approval
from operations_app.actions.wiring import actions as wired
from operations_app.cursors import Cursor, Limit, Paging
from operations_app.wire import Note, Why

router = APIRouter(tags=["actions"])
"""Included under `/api/v1`."""

_VERSION: Final = re.compile(r'"?([0-9]{1,19})"?', re.ASCII)
_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)

Asking = Annotated[Caller, Depends(allowed("actions:request"))]
Approving = Annotated[Caller, Depends(allowed("actions:approve"))]
Looking = Annotated[Caller, Depends(allowed("transfers:read"))]
Ruling = Annotated[Caller, Depends(allowed("policies:write"))]


class Body(BaseModel):
    """What bodies have in common."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class ActionBody(Body):
    """An action that is asked for."""

    kind: Kind
    reason_code: ReasonCode
    reason: Why
    payload: Asked = Asked()


class NoteBody(Body):
    """What an approver adds."""

    note: Note | None = None


class RejectBody(Body):
    """Why not."""

    note: Why


class AnswerBody(Body):
    """What the receiving bank answered to a recall."""

    answer: Literal["RETURNED", "NOT_RETURNED"]
    note: Why


async def _actions(request: Request) -> Actions:
    state = request.app.state
    found: Actions | None = getattr(state, "actions", None)
    if found is None:
        found = state.actions = wired(state.views, state.database, state.ledger, state.journal, state.settings)
    return found


InHand = Annotated[Actions, Depends(_actions)]


def actor(caller: Caller, request: Request) -> Actor:
    """Who acts, for the log."""
    return Actor(caller.subject, caller.tenant, caller.roles, request.headers.get("x-request-id"))


# --- asking ---------------------------------------------------------------------------------------------------------


@router.get("/transfers/{payment_id}/actions/available")
async def possible(payment_id: str, who: Looking, actions: InHand) -> dict[str, Any]:
    """What can be done with this payment now, what has to be sent along, and why the rest cannot be done."""
    try:
        situation = await actions.situation(who.tenant, payment_id)
    except NotBegun as refused:
        none = [{"kind": kind, "possible": False, "code": refused.code, "why": refused.why} for kind in Kind]
        return {"paymentId": payment_id, "version": None, "underWay": None, "actions": none}
    except ActionRefused as refused:
        raise problem(refused) from None
    busy = await actions.store.open_repair(who.tenant, payment_id)
    _, policy = await actions.store.policy(who.tenant)
    found: list[dict[str, Any]] = []
    for kind, plan in available(situation).items():
        if isinstance(plan, Plan) and busy is not None and kind not in GIVING_BACK:
            found.append({"kind": kind, "possible": False, "code": "repair-under-way", "why": UNDER_WAY})
        elif isinstance(plan, Plan):
            approvals = policy.approvals(kind, plan.amount or situation.amount, plan.currency or situation.currency)
            entry = {"kind": kind, "possible": True, "at": plan.place, "approvals": approvals}
            found.append(entry | {"payload": needs(kind, situation)})
        else:
            found.append({"kind": kind, "possible": False, "code": plan.code, "why": plan.why})
    return {"paymentId": payment_id, "version": str(situation.position), "underWay": busy, "actions": found}


@router.post("/transfers/{payment_id}/actions", status_code=202)
async def ask(
    payment_id: str,
    body: ActionBody,
    *,
    request: Request,
    response: Response,
    who: Asking,
    actions: InHand,
    if_match: Annotated[str | None, Header()] = None,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """Ask for an action. It is carried out when it has its approvals; follow it at `Location`."""
    if idempotency_key is None:
        raise Problem(400, "header-missing", "This needs Idempotency-Key, one per request.")
    if _KEY.fullmatch(idempotency_key) is None:
        raise Problem(400, "header-not-valid", "Idempotency-Key holds up to 128 printable characters.")
    wanted = Wanted(
        payment_id=payment_id,
        kind=body.kind,
        reason_code=body.reason_code,
        reason=body.reason,
        asked=body.payload,
        key=idempotency_key,
        position=_seen(if_match, "the transfer"),
    )
    try:
        action, before = await actions.request(actor(who, request), wanted)
    except ActionRefused as refused:
        raise problem(refused) from None
    response.headers["Location"] = f"/api/v1/actions/{action.id}"
    if before:
        response.headers["Idempotent-Replayed"] = "true"
    return described_action(action)


def _seen(if_match: str | None, what: str) -> int:
    """The version in an ETag of ours. Raises 428 and 412."""
    if if_match is None:
        raise Problem(428, "precondition-required", f"This needs If-Match with the ETag of {what} as you saw it.")
    version = _VERSION.fullmatch(if_match.strip())
    if version is None:
        raise Problem(412, "precondition-failed", f"If-Match is no ETag of {what}.")
    return int(version[1])


# --- looking --------------------------------------------------------------------------------------------------------


@router.get("/actions")
async def listed(
    request: Request,
    *,
    who: Looking,
    actions: InHand,
    paging: Paging,
    list_: Annotated[
        Literal["all", "waiting", "mine", "decided"],
        Query(alias="list", description="`waiting`: for this caller's approval."),
    ] = "all",
    payment_id: Annotated[str | None, Query(alias="paymentId", max_length=64)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Actions of the tenant, newest first."""
    read = paging.read(request, who, cursor)
    after = None if read is None else (datetime.fromisoformat(read[0]), str(read[1]))
    found = await actions.store.listed(
        who.tenant, who.subject, list_, payment_id=payment_id, after=after, limit=limit + 1
    )
    page = found[:limit]
    following = None
    if len(found) > limit:
        following = paging.write(request, who, [page[-1].requested_at.isoformat(), page[-1].id])
    return {"items": [described_action(one) for one in page], "nextCursor": following}


@router.get("/actions/{action_id}")
async def one(action_id: str, who: Looking, actions: InHand) -> dict[str, Any]:
    """How an action stands."""
    try:
        action, approvals = await actions.find(who.tenant, action_id)
    except ActionRefused as refused:
        raise problem(refused) from None
    return described_action(action, approvals)


# --- deciding -------------------------------------------------------------------------------------------------------


@router.post("/actions/{action_id}/approve")
async def approve(
    action_id: str, request: Request, who: Approving, actions: InHand, body: NoteBody | None = None
) -> dict[str, Any]:
    """Approve what somebody else asked for."""
    try:
        return described_action(await actions.approve(actor(who, request), action_id, body.note if body else None))
    except ActionRefused as refused:
        raise problem(refused) from None


@router.post("/actions/{action_id}/reject")
async def reject(action_id: str, body: RejectBody, request: Request, who: Approving, actions: InHand) -> dict[str, Any]:
    """Say no to what somebody else asked for."""
    try:
        return described_action(await actions.reject(actor(who, request), action_id, body.note))
    except ActionRefused as refused:
        raise problem(refused) from None


@router.post("/actions/{action_id}/withdraw")
async def withdraw(action_id: str, request: Request, who: Asking, actions: InHand) -> dict[str, Any]:
    """Take an own request back."""
    try:
        return described_action(await actions.withdraw(actor(who, request), action_id))
    except ActionRefused as refused:
        raise problem(refused) from None


@router.post("/actions/{action_id}/answer")
async def answer(action_id: str, body: AnswerBody, request: Request, who: Asking, actions: InHand) -> dict[str, Any]:
    """Note what the receiving bank answered to a recall over STP."""
    try:
        done = await actions.answer(actor(who, request), action_id, body.answer, body.note)
    except ActionRefused as refused:
        raise problem(refused) from None
    return described_action(done)


# --- policies -------------------------------------------------------------------------------------------------------


@router.get("/policies")
async def policies(response: Response, who: Looking, actions: InHand) -> dict[str, Any]:
    """How many approvals each action of this tenant needs, with an ETag. Version 0 are the defaults."""
    version, policy = await actions.store.policy(who.tenant)
    response.headers["ETag"] = f'"{version}"'
    return {"version": version, "rules": described(policy)}


@router.put("/policies")
async def put_policies(
    body: Policy,
    *,
    request: Request,
    response: Response,
    who: Ruling,
    actions: InHand,
    if_match: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """Replace them, as they were seen (`If-Match`). It concerns what is asked for from now on."""
    try:
        version = await actions.put_policy(actor(who, request), body, _seen(if_match, "the policies"))
    except ActionRefused as refused:
        raise problem(refused) from None
    response.headers["ETag"] = f'"{version}"'
    return {"version": version, "rules": described(body)}


# --- words ----------------------------------------------------------------------------------------------------------

_STATUS: Final[dict[type[ActionRefused], int]] = {Unknown: 404, Moved: 412, KeyReused: 422, NotAllowed: 403}
_NOT_VALID: Final = frozenset(
    {"outcome-missing", "variables-missing", "variables-not-allowed", "money-not-valid", "payload-not-taken"}
)


def problem(refused: ActionRefused) -> Problem:
    """The answer to a refused request."""
    members: dict[str, Any] = {"actionId": refused.action_id} if refused.action_id else {}
    if refused.code in _NOT_VALID:
        pointers = {"outcome-missing": "/payload/outcome", "variables-missing": "/payload/variables"}
        pointer = pointers.get(refused.code, "/payload")
        errors = refused.errors or [{"pointer": pointer, "code": refused.code, "detail": refused.why}]
        return not_valid(errors)
    return Problem(_STATUS.get(type(refused), 409), refused.code, refused.why, errors=refused.errors, **members)


def described_action(action: Action, approvals: list[Approval] | None = None) -> dict[str, Any]:
    """An action as the API writes it."""
    state = action.state
    if state is State.REQUESTED and action.expired:
        state = State.EXPIRED
    found: dict[str, Any] = {
        "actionId": action.id,
        "paymentId": action.payment_id,
        "kind": action.kind,
        "state": state,
        "reasonCode": action.reason_code,
        "reason": action.reason,
        "payload": action.asked.model_dump(mode="json", by_alias=True, exclude_none=True),
        "at": action.plan.place,
        "money": _money(action.amount, action.currency),
        "approvalsNeeded": action.approvals_needed,
        "requestedBy": action.requested_by,
        "requestedAt": _time(action.requested_at),
        "expiresAt": _time(action.expires_at),
        "linkedPaymentId": action.linked_payment_id,
        "answer": action.answer,
        "failure": {"code": action.code, "detail": action.detail} if action.code else None,
        "carriedOutAt": _time(action.carried_out_at),
        "confirmBy": _time(action.confirm_by),
        "endedAt": _time(action.ended_at),
    }
    if approvals is not None:
        found["approvals"] = [
            {"approver": one.approver, "approves": one.approves, "note": one.note, "at": _time(one.at)}
            for one in approvals
        ]
    return found


def _money(amount: int, currency: str) -> dict[str, str] | None:
    return {"amount": Money(amount, currency).decimal(), "currency": currency} if currency else None


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
