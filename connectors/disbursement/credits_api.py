"""Options, offers, credits and partners' delivery notifications over HTTP (L6, L45 to L54)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from connectors.disbursement.access import (
    Asker,
    Deciding,
    Doing,
    Editing,
    Key,
    Looking,
    ObjectId,
    Trading,
    Watching,
    replayed,
)
from connectors.disbursement.balances_wire import Booked, UpdatesPage, UpdateView
from connectors.disbursement.credits_wire import (
    AmountChangedView,
    CreditBody,
    CreditsPage,
    CreditView,
    Delivery,
    NewAmount,
    TracesPage,
    TraceView,
)
from connectors.disbursement.merchants_api import edits_page
from connectors.disbursement.merchants_wire import EditsPage
from connectors.disbursement.options_wire import NewOption, OptionChanges, OptionsPage, OptionView
from connectors.disbursement.pages import STRICT, Cursor, PageSize
from connectors.disbursement.wire import ReasonBody
from hub.api import not_valid
from ledger.disbursement import fields
from ledger.disbursement.edits import Object
from ledger.disbursement.events import EventLog, Handling
from ledger.disbursement.pricing import Commissions
from ledger.paging import name_cursor, name_position

router = APIRouter(tags=["options and credits"])


@router.post("/options", status_code=201)
async def add_option(who: Editing, does: Doing, body: NewOption, response: Response) -> OptionView:
    """Give a store a payment option, the third step (L51). The same again changes nothing."""
    added = await does.options.add(who.tenant, body.option(), actor=who.actor)
    replayed(response, again=not added)
    return OptionView.of(await does.options.find(who.tenant, body.id))


@router.get("/options/{option_id}", dependencies=STRICT)
async def option(who: Looking, does: Doing, option_id: ObjectId) -> OptionView:
    """A payment option."""
    return OptionView.of(await does.option(who, option_id))


@router.patch("/options/{option_id}")
async def edit_option(who: Editing, does: Doing, option_id: ObjectId, body: OptionChanges) -> OptionView:
    """Change an option; it, its store and its merchant must be validated again (L53)."""
    try:
        return OptionView.of(await does.options.edit(who.tenant, option_id, body.given(), actor=who.actor))
    except ValueError as error:
        raise not_valid([{"pointer": "", "code": "not-valid", "detail": str(error)}]) from None


@router.post("/options/{option_id}/validation")
async def validate_option(who: Deciding, does: Doing, option_id: ObjectId) -> OptionView:
    """Validate an option, the first link (L52)."""
    return OptionView.of(await does.options.validate(who.tenant, option_id, actor=who.actor))


@router.get("/options/{option_id}/edits", dependencies=STRICT)
async def option_edits(
    request: Request, who: Watching, does: Doing, option_id: ObjectId, *, cursor_: Cursor = None, limit: PageSize = 100
) -> EditsPage:
    """Who changed what of an option, newest first."""
    await does.option(who, option_id)
    return await edits_page(request, does, (who.tenant, Object.OPTION, option_id), cursor_, limit)


@router.get("/stores/{store_id}/options", dependencies=STRICT)
async def options(
    request: Request, who: Looking, does: Doing, store_id: ObjectId, *, cursor_: Cursor = None, limit: PageSize = 100
) -> OptionsPage:
    """A store's payment options in the order of their ids."""
    await does.store(who, store_id)
    after = name_position(request, cursor_)
    found = await does.options.of_store(who.tenant, store_id, after=after, limit=limit)
    return OptionsPage(
        options=[OptionView.of(one) for one in found],
        next_cursor=name_cursor(request, found[-1].id) if len(found) == limit else None,
    )


@router.get("/stores/{store_id}/offers", dependencies=STRICT)
async def offers(
    who: Looking,
    does: Doing,
    store_id: ObjectId,
    amount: Annotated[str, Query(max_length=24, description="A decimal amount of MXN, like 1250.00.")],
) -> OptionsPage:
    """What an application form may offer now: one option per number of payments (L49).

    Nothing while the merchant or store is not validated (L54).
    """
    await does.store(who, store_id)
    try:
        minor = fields.positive_amount(amount)
    except ValueError as error:
        raise not_valid([{"parameter": "amount", "code": "not-valid", "detail": str(error)}]) from None
    found = await does.options.offered(who.tenant, store_id, minor, datetime.now(UTC))
    return OptionsPage(options=[OptionView.of(one) for one in found])


@router.post("/credits", status_code=201)
async def sign_credit(who: Editing, does: Doing, body: CreditBody, response: Response) -> CreditView:
    """Keep a signed credit; its commission is fixed now (L45). The same again changes nothing."""
    found, new = await does.credits.sign(who.tenant, body.credit(), actor=who.actor)
    replayed(response, again=not new)
    return CreditView.of(found)


@router.get("/credits/{credit_id}", dependencies=STRICT)
async def credit(who: Looking, does: Doing, credit_id: ObjectId) -> CreditView:
    """A credit."""
    return CreditView.of(await does.credit(who, credit_id))


@router.get("/credits/{credit_id}/updates", dependencies=STRICT)
async def credit_updates(who: Looking, does: Doing, credit_id: ObjectId) -> UpdatesPage:
    """What a credit did to its store's balance, oldest first."""
    await does.credit(who, credit_id)
    found = await does.balances.updates_of_credit(who.tenant, credit_id)
    return UpdatesPage(updates=[UpdateView.of(one) for one in found])


@router.get("/credits/{credit_id}/computations", dependencies=STRICT)
async def credit_computations(request: Request, who: Watching, does: Doing, credit_id: ObjectId) -> TracesPage:
    """How the credit's commission came about (L57)."""
    await does.credit(who, credit_id)
    commissions: Commissions = request.app.state.commissions
    found = await commissions.traces(who.tenant, credit_id)
    return TracesPage(computations=[TraceView.of(one) for one in found])


@router.get("/stores/{store_id}/credits", dependencies=STRICT)
async def credits_of_store(
    request: Request, who: Looking, does: Doing, store_id: ObjectId, *, cursor_: Cursor = None, limit: PageSize = 100
) -> CreditsPage:
    """A store's credits in the order of their ids."""
    await does.store(who, store_id)
    after = name_position(request, cursor_)
    found = await does.credits.of_store(who.tenant, store_id, after=after, limit=limit)
    return CreditsPage(
        credits=[CreditView.of(one) for one in found],
        next_cursor=name_cursor(request, found[-1].id) if len(found) == limit else None,
    )


@router.post("/credits/{credit_id}/cancellation", status_code=201)
async def cancel_credit(
    request: Request,
    who: Trading,
    does: Doing,
    credit_id: ObjectId,
    *,
    body: ReasonBody,
    response: Response,
    key: Key,
) -> Booked:
    """Undo a credit's contribution; the balance may fall below zero (L10)."""
    payload = {"creditId": credit_id, "reason": body.reason}
    async with _logged(request, who, "cancellation", credit_id, payload) as handling:
        await does.credit(who, credit_id)
        operation, again = await does.once(who, request, key)
        booked = await does.balances.cancel_credit(
            who.tenant, credit_id, operation=operation, reason=body.reason, actor=who.actor
        )
        handling.outcome = "repeated" if again else "handled"
    replayed(response, again=again)
    return Booked.of(booked)


@router.put("/credits/{credit_id}/amount")
async def change_amount(
    request: Request,
    who: Editing,
    does: Doing,
    credit_id: ObjectId,
    *,
    body: NewAmount,
    response: Response,
    key: Key,
) -> AmountChangedView:
    """Give a credit another amount: its contribution is undone and made anew (L17)."""
    operation, again = await does.once(who, request, key)
    changed = await does.credits.change_amount(who.tenant, credit_id, body.amount, operation=operation, actor=who.actor)
    replayed(response, again=again)
    return AmountChangedView.of(changed)


@router.post("/deliveries", status_code=201)
async def delivered(
    request: Request, who: Trading, does: Doing, body: Delivery, response: Response, *, key: Key
) -> Booked:
    """A purchase was delivered: the store is owed the credit's amount less its commission (L6)."""
    payload = {"creditId": body.credit_id, "deliveredAt": body.delivered_at.isoformat()}
    async with _logged(request, who, "delivery", body.credit_id, payload) as handling:
        await does.credit(who, body.credit_id)
        operation, again = await does.once(who, request, key)
        booked = await does.balances.contribute(who.tenant, body.credit_id, operation=operation, actor=who.actor)
        handling.outcome = "repeated" if again else "handled"
    replayed(response, again=again)
    return Booked.of(booked)


def _logged(
    request: Request, who: Asker, kind: str, about: str, payload: dict[str, str]
) -> AbstractAsyncContextManager[Handling]:
    """What a partner tells is written down before it is handled, and so is what became of it (L34)."""
    events: EventLog = request.app.state.events
    return events.handling(who.tenant, "partner", kind, about, {**payload, "by": who.actor})
