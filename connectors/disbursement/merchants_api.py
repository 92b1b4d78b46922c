"""Merchants, stores and bank accounts over HTTP: added, edited, validated, authenticated (L51 to L55)."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from connectors.disbursement.access import (
    Asker,
    Deciding,
    Deeds,
    Doing,
    Editing,
    Looking,
    ObjectId,
    Watching,
    replayed,
)
from connectors.disbursement.merchants_wire import (
    Automation,
    BankAccountView,
    EditsPage,
    EditView,
    MerchantChanges,
    MerchantsPage,
    MerchantView,
    NewBankAccount,
    NewMerchant,
    NewStore,
    StandardCommission,
    StoreChanges,
    StoresPage,
    StoreView,
)
from connectors.disbursement.options_wire import CommissionSchedule
from connectors.disbursement.pages import STRICT, Cursor, PageSize
from hub.api import not_valid
from ledger.disbursement.edits import Object
from ledger.disbursement.merchants import Store
from ledger.disbursement.model import Frequency
from ledger.disbursement.pricing import Commissions
from ledger.paging import cursor, name_cursor, name_position, position

router = APIRouter(tags=["merchants and stores"])


@router.post("/merchants", status_code=201)
async def add_merchant(who: Editing, does: Doing, body: NewMerchant, response: Response) -> MerchantView:
    """Add a merchant, the first step (L51). The same again changes nothing."""
    added = await does.merchants.add(who.tenant, body.merchant(), actor=who.actor)
    replayed(response, again=not added)
    return MerchantView.of(await does.merchants.find(who.tenant, body.id))


@router.get("/merchants", dependencies=STRICT)
async def merchants(
    request: Request, who: Looking, does: Doing, cursor_: Cursor = None, limit: PageSize = 100
) -> MerchantsPage:
    """Merchants in the order of their ids; a partner's own ones."""
    after = name_position(request, cursor_)
    found = await does.merchants.page(who.tenant, partner=who.partner, after=after, limit=limit)
    return MerchantsPage(
        merchants=[MerchantView.of(one) for one in found],
        next_cursor=name_cursor(request, found[-1].id) if len(found) == limit else None,
    )


@router.get("/merchants/{merchant_id}", dependencies=STRICT)
async def merchant(who: Looking, does: Doing, merchant_id: ObjectId) -> MerchantView:
    """A merchant."""
    return MerchantView.of(await does.merchant(who, merchant_id))


@router.patch("/merchants/{merchant_id}")
async def edit_merchant(who: Editing, does: Doing, merchant_id: ObjectId, body: MerchantChanges) -> MerchantView:
    """Change a merchant; it must be validated again (L53). What changes nothing resets nothing."""
    return MerchantView.of(await does.merchants.edit(who.tenant, merchant_id, body.given(), actor=who.actor))


@router.post("/merchants/{merchant_id}/validation")
async def validate_merchant(who: Deciding, does: Doing, merchant_id: ObjectId) -> MerchantView:
    """Validate a merchant that has a validated store (L52)."""
    return MerchantView.of(await does.merchants.validate(who.tenant, merchant_id, actor=who.actor))


@router.put("/merchants/{merchant_id}/automation")
async def switch_automation(who: Editing, does: Doing, merchant_id: ObjectId, body: Automation) -> MerchantView:
    """Switch triggers on or off for a merchant's stores; balances still grow (L30)."""
    switched = await does.merchants.switch_automation(who.tenant, merchant_id, on=body.enabled, actor=who.actor)
    return MerchantView.of(switched)


@router.put("/merchants/{merchant_id}/standard-commission", status_code=204, response_class=Response)
async def set_merchant_standard(
    request: Request, who: Editing, merchant_id: ObjectId, body: StandardCommission
) -> None:
    """The rate that options without one of their own are charged; an edit of the merchant (L46, L53)."""
    await _commissions(request).set_standard(who.tenant, merchant_id, body.rate, actor=who.actor)


@router.get("/merchants/{merchant_id}/stores", dependencies=STRICT)
async def stores_of_merchant(
    request: Request,
    who: Looking,
    does: Doing,
    merchant_id: ObjectId,
    *,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> StoresPage:
    """A merchant's stores in the order of their ids."""
    await does.merchant(who, merchant_id)
    after = name_position(request, cursor_)
    found = await does.merchants.stores(who.tenant, merchant_id, after=after, limit=limit)
    return await _stores_page(request, who, does, found, limit)


@router.get("/stores", dependencies=STRICT)
async def stores(
    request: Request,
    who: Looking,
    does: Doing,
    *,
    frequency: Frequency | None = None,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> StoresPage:
    """Stores in the order of their ids; a partner's own ones."""
    after = name_position(request, cursor_)
    found = await does.merchants.stores(who.tenant, frequency=frequency, partner=who.partner, after=after, limit=limit)
    return await _stores_page(request, who, does, found, limit)


async def _stores_page(request: Request, who: Asker, does: Deeds, found: Sequence[Store], limit: int) -> StoresPage:
    accounts = await does.merchants.accounts(who.tenant, [one.id for one in found])
    return StoresPage(
        stores=[StoreView.of(one, accounts.get(one.id)) for one in found],
        next_cursor=name_cursor(request, found[-1].id) if len(found) == limit else None,
    )


@router.get("/merchants/{merchant_id}/edits", dependencies=STRICT)
async def merchant_edits(
    request: Request,
    who: Watching,
    does: Doing,
    merchant_id: ObjectId,
    *,
    cursor_: Cursor = None,
    limit: PageSize = 100,
) -> EditsPage:
    """Who changed what of a merchant, newest first."""
    await does.merchant(who, merchant_id)
    return await edits_page(request, does, (who.tenant, Object.MERCHANT, merchant_id), cursor_, limit)


@router.post("/stores", status_code=201)
async def add_store(who: Editing, does: Doing, body: NewStore, response: Response) -> StoreView:
    """Add a store with its bank account, the second step (L51). The same again changes nothing."""
    account = body.bank_account.account()
    added = await does.merchants.add_store(who.tenant, body.store(), account, actor=who.actor)
    replayed(response, again=not added)
    return await _shown(does, who.tenant, body.id)


@router.get("/stores/{store_id}", dependencies=STRICT)
async def store(who: Looking, does: Doing, store_id: ObjectId) -> StoreView:
    """A store with its present bank account."""
    await does.store(who, store_id)
    return await _shown(does, who.tenant, store_id)


@router.patch("/stores/{store_id}")
async def edit_store(who: Editing, does: Doing, store_id: ObjectId, body: StoreChanges) -> StoreView:
    """Change a store; it and its merchant must be validated again (L53). Refused while a transfer to it is open."""
    await does.merchants.edit_store(who.tenant, store_id, body.given(), actor=who.actor)
    return await _shown(does, who.tenant, store_id)


@router.post("/stores/{store_id}/validation")
async def validate_store(who: Deciding, does: Doing, store_id: ObjectId) -> StoreView:
    """Validate a store that has a validated option (L52)."""
    await does.merchants.validate_store(who.tenant, store_id, actor=who.actor)
    return await _shown(does, who.tenant, store_id)


@router.post("/stores/{store_id}/bank-accounts", status_code=201)
async def add_bank_account(who: Editing, does: Doing, store_id: ObjectId, body: NewBankAccount) -> BankAccountView:
    """Give a store another bank account, which must be authenticated. Refused while a transfer to it is open."""
    added = await does.merchants.add_account(who.tenant, store_id, body.account(), actor=who.actor)
    return BankAccountView.of(added)


@router.post("/stores/{store_id}/bank-accounts/{account_id}/authentication")
async def authenticate_account(who: Editing, does: Doing, store_id: ObjectId, account_id: ObjectId) -> BankAccountView:
    """Say that the store's present account was made sure of (L55)."""
    if not (account_id.isascii() and account_id.isdigit() and len(account_id) <= 18):
        raise not_valid([{"parameter": "account_id", "code": "bad-format", "detail": "The id is a number."}])
    found = await does.merchants.authenticate_account(who.tenant, store_id, int(account_id), actor=who.actor)
    return BankAccountView.of(found)


@router.put("/stores/{store_id}/standard-commission", status_code=204, response_class=Response)
async def set_store_standard(
    request: Request, who: Editing, does: Doing, store_id: ObjectId, body: StandardCommission
) -> None:
    """The rate that this store's options without one of their own are charged; an edit of the store (L46, L53)."""
    found = await does.merchants.find_store(who.tenant, store_id)
    await _commissions(request).set_standard(who.tenant, found.merchant_id, body.rate, store=store_id, actor=who.actor)


@router.get("/stores/{store_id}/edits", dependencies=STRICT)
async def store_edits(
    request: Request, who: Watching, does: Doing, store_id: ObjectId, *, cursor_: Cursor = None, limit: PageSize = 100
) -> EditsPage:
    """Who changed what of a store, newest first."""
    await does.store(who, store_id)
    return await edits_page(request, does, (who.tenant, Object.STORE, store_id), cursor_, limit)


@router.get("/commission-schedule", dependencies=STRICT)
async def commission_schedule(request: Request, who: Watching) -> CommissionSchedule:
    """By what origination, number of payments and amount move rates."""
    return CommissionSchedule.shown(await _commissions(request).schedule(who.tenant))


@router.put("/commission-schedule")
async def set_commission_schedule(request: Request, who: Deciding, body: CommissionSchedule) -> CommissionSchedule:
    """Replace the steps; they count from now on, for what is signed and for the next monthly recalculation."""
    steps = [one.step() for one in body.steps]
    return CommissionSchedule.shown(await _commissions(request).set_schedule(who.tenant, steps, actor=who.actor))


async def edits_page(
    request: Request, does: Doing, of: tuple[str, Object, str], given: str | None, limit: int
) -> EditsPage:
    """A page of the edits of one object."""
    (before,) = position(request, given) or (None,)
    found = await does.merchants.edits(*of, before=before, limit=limit)
    return EditsPage(
        edits=[EditView.of(one) for one in found],
        next_cursor=cursor(request, [found[-1].id]) if len(found) == limit else None,
    )


async def _shown(does: Doing, tenant: str, store_id: str) -> StoreView:
    found = await does.merchants.find_store(tenant, store_id)
    return StoreView.of(found, await does.merchants.account(tenant, store_id))


def _commissions(request: Request) -> Commissions:
    commissions: Commissions = request.app.state.commissions
    return commissions
