"""Who may ask for what, and how a refusal is told.

A partner sees what belongs to the merchants that name its subject as their partner, and nothing else exists for it.
Which roles are staff is said by each route: to be staff somewhere opens nothing elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Path, Request
from starlette.responses import Response

from hub.api import Caller, Problem, require
from hub.statements import Statements
from ledger.disbursement.balances import Balances
from ledger.disbursement.credits import Credit, Credits
from ledger.disbursement.merchants import Merchant, Merchants, Store
from ledger.disbursement.model import (
    BankTransfer,
    CreditUnknown,
    DisbursementRefused,
    StoreUnknown,
    TransferUnknown,
)
from ledger.disbursement.options import Options, PaymentOption
from ledger.disbursement.refusals import MerchantUnknown, OptionUnknown
from ledger.disbursement.requests import Requests
from ledger.disbursement.transfers import Transfers
from ledger.model import LedgerRefused

PARTNER: Final = "partner"
STAFF: Final = ("viewer", "operator", "treasury", "auditor")
"""Roles that may look at everything of their tenant."""

EDITORS: Final = ("operator", "treasury")
"""Roles that may bring merchants, stores, options and credits in and change them."""

TREASURY: Final = "treasury"
"""The role that decides about money and validates."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks. `partner` is set when only what belongs to that partner is to be seen."""

    tenant: str
    actor: str
    partner: str | None


def asking(*staff: str, partner: bool = False) -> Callable[..., Awaitable[Asker]]:
    """Dependency: the caller has one of the roles `staff`, or may be a partner, who is shown only what is its own."""
    needed = require(*staff, PARTNER) if partner else require(*staff)

    # The dependency stands in the default, since the annotation is read where `needed` is not known.
    async def found(caller: Caller = Depends(needed)) -> Asker:  # noqa: B008
        is_staff = not caller.roles.isdisjoint(staff)
        return Asker(caller.tenant, caller.subject, None if is_staff else caller.subject)

    return found


Looking = Annotated[Asker, Depends(asking(*STAFF, partner=True))]
Watching = Annotated[Asker, Depends(asking(*STAFF))]
Editing = Annotated[Asker, Depends(asking(*EDITORS))]
Deciding = Annotated[Asker, Depends(asking(TREASURY))]
Trading = Annotated[Asker, Depends(asking("operator", partner=True))]
"""Whoever may say what became of a purchase."""

_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ObjectId = Annotated[str, Path(pattern=_ID)]
TransferId = Annotated[str, Path(max_length=36, pattern="^[0-9a-f-]+$")]
Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="Yours, one per request; the same key and body are done once.",
    ),
]


class KeyReused(DisbursementRefused):
    """The key came with another body before."""

    code = "key-reused"


class Deeds:
    """What the routes work with, made of the application's database."""

    def __init__(self, statements: Statements) -> None:
        self.merchants = Merchants(statements)
        self.options = Options(statements)
        self.credits = Credits(statements)
        self.balances = Balances(statements)
        self.transfers = Transfers(statements)
        self._requests = Requests(statements)

    async def merchant(self, who: Asker, merchant: str) -> Merchant:
        """Raises `MerchantUnknown`, also for another partner's."""
        found = await self.merchants.find(who.tenant, merchant)
        if who.partner is not None and found.partner != who.partner:
            raise MerchantUnknown(merchant)
        return found

    async def store(self, who: Asker, store: str) -> Store:
        """Raises `StoreUnknown`, also for another partner's."""
        found = await self.merchants.find_store(who.tenant, store)
        if not await self._is_own(who, found.merchant_id):
            raise StoreUnknown(store)
        return found

    async def option(self, who: Asker, option: str) -> PaymentOption:
        """Raises `OptionUnknown`, also for another partner's."""
        found = await self.options.find(who.tenant, option)
        if not await self._is_own(who, found.merchant_id):
            raise OptionUnknown(option)
        return found

    async def credit(self, who: Asker, credit: str) -> Credit:
        """Raises `CreditUnknown`, also for another partner's."""
        found = await self.credits.find(who.tenant, credit)
        if not await self._is_own(who, found.merchant_id):
            raise CreditUnknown(credit)
        return found

    async def transfer(self, who: Asker, transfer: str) -> BankTransfer:
        """Raises `TransferUnknown`, also for another partner's."""
        found = await self.transfers.find(who.tenant, transfer)
        if found is None:
            raise TransferUnknown(transfer)
        store = await self.merchants.find_store(who.tenant, found.store)
        if not await self._is_own(who, store.merchant_id):
            raise TransferUnknown(transfer)
        return found

    async def _is_own(self, who: Asker, merchant: str) -> bool:
        return who.partner is None or (await self.merchants.find(who.tenant, merchant)).partner == who.partner

    async def once(self, who: Asker, request: Request, key: str) -> tuple[str, bool]:
        """The operation that a key stands for, and whether it came before. Raises `KeyReused`."""
        body = hashlib.sha256(b"\0".join((request.method.encode(), request.url.path.encode(), await request.body())))
        first = await self._requests.first(who.tenant, who.actor, key, body.digest())
        if first is not None and first != body.digest():
            raise KeyReused("another request was made with this key; choose a new one")
        named = hashlib.sha256(f"{who.actor}\0{key}".encode()).hexdigest()[:32]
        return f"api:{named}", first is not None


async def _deeds(request: Request) -> Deeds:
    deeds: Deeds = request.app.state.deeds
    return deeds


Doing = Annotated[Deeds, Depends(_deeds)]

_UNPROCESSABLE: Final = frozenset(
    {"key-reused", "option-not-applicable", "amount-not-allowed", "reason-missing", "schedule-not-allowed"}
)
REMEDIES: Final = {
    "already-contributed": "The delivery of this credit was told before, under another key; nothing is to be done.",
    "already-overwritten": "The credit was cancelled before; there is nothing left to undo or to change.",
    "amount-not-allowed": "The amount or commission is not possible.",
    "duplicate-operation": "This was asked for before with other content; use another key.",
    "no-commission": "The credit has no commission and is not approved for disbursement; it cannot be contributed.",
    "not-contributed": "The credit was not contributed yet; there is nothing to undo.",
    "nothing-validated-below": "Validate an option first, then its store, then the merchant.",
    "transition-refused": "The transfer is no longer, or not yet, where this is possible; look at its status.",
    "book-unknown": "The tenant has no book of accounts; seed it first.",
}
"""What to do about a refusal whose own detail is an id or an operation."""


async def on_refusal(_: Request, error: Exception) -> Response:
    """A refusal of the rules as a problem: 404 for what is unknown, 422 for what was asked wrongly, 409 otherwise."""
    if isinstance(error, LedgerRefused):
        return Problem(
            409, "book-refused", "The book refuses this: the store's account is frozen or closed."
        ).response()
    if not isinstance(error, DisbursementRefused):
        raise error
    told = unknown(error.code) or REMEDIES.get(error.code) or f"{error.detail[:1].upper()}{error.detail[1:]}."
    return Problem(status_of(error.code), error.code, told).response()


def unknown(code: str) -> str | None:
    """What is told of something that is not there; nothing for any other refusal."""
    if not code.endswith("-unknown") or code == "book-unknown":
        return None
    return f"There is no such {code.removesuffix('-unknown')}."


def status_of(code: str) -> int:
    """With which status the rules' refusal is answered."""
    if unknown(code):
        return 404
    return 422 if code in _UNPROCESSABLE else 409


def replayed(response: Response, *, again: bool) -> None:
    """Say that this was done before, under the same key or in the same words."""
    if again:
        response.headers["Idempotent-Replayed"] = "true"
