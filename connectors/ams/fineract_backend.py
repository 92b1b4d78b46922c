"""Apache Fineract as the account system, over its interoperation API.

Each effect is claimed in `fineract_steps`, sent under a transfer code made from the payment's id, and noted as done. If
it was claimed before and is not known to be done it may have been sent, so Fineract is looked at before it is sent
again. What Fineract cannot do, and what stands in its place, is in docs/decisions/fineract.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Final

from connectors.ams import fineract_wire as wire
from connectors.ams import model
from connectors.ams.fineract_client import Fineract, Refused
from connectors.ams.fineract_steps import Effect, Steps
from connectors.ams.model import AccountSystemConflict, AccountUnknown
from hub.errors import Rejected
from hub.failpoint import failpoint
from hub.money import Money
from hub.transfer import IdentifierType, Party, PaymentId, TenantId

_MOST_LINES: Final = 500


class FineractBackend:
    """Implements `connectors.ams.client.AccountSystem`. An account is named by its external id."""

    def __init__(self, fineract: Fineract, steps: Steps) -> None:
        self._fineract, self._steps = fineract, steps

    # --- Questions ---

    async def lookup(self, tenant: TenantId, id_type: IdentifierType, identifier: str) -> model.AccountFound:
        async with _refusals("identifier"):
            account = await self._find(tenant, id_type, identifier)
            holder = None if account.client is None else await self._fineract.holder(tenant, account.client)
        return model.AccountFound(
            account=account.id,
            currency=account.currency,
            holder_name=holder,
            takes_debits=account.takes_debits,
            takes_credits=account.takes_credits,
        )

    async def quote(self, tenant: TenantId, payer: Party, payee: Party, amount: Money) -> model.Quote:
        async with _refusals("payer"):
            pays = await self._find(tenant, payer.id_type, payer.identifier)
            pays.check("payer", amount.currency)
        async with _refusals("payee"):
            gets = await self._payee(tenant, payee)
            if gets is not None:
                gets.check("payee", amount.currency)
        if gets is not None and gets.id == pays.id:
            raise model.AmountNotAllowed("payer and payee are one account")
        async with _refusals("payer"):
            fee = await self._fineract.quote(tenant, pays.id, amount)
        return model.Quote(pays.id, None if gets is None else gets.id, fee)

    async def balance(self, tenant: TenantId, account: str, currency: str) -> model.AccountBalance:
        async with _refusals("account"):
            found = await self._fineract.account(tenant, account)
        if found.currency != currency:
            raise model.CurrencyMismatch("account")
        return model.AccountBalance(found.booked, found.booked - found.available)

    async def statement(
        self,
        tenant: TenantId,
        account: str,
        currency: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> model.StatementPage:
        async with _refusals("account"):
            if (await self._fineract.account(tenant, account)).currency != currency:
                raise model.CurrencyMismatch("account")
            lines = await self._fineract.transactions(tenant, account, currency)
        if cursor is not None:
            entries = [line.entry for line in lines]
            if cursor not in entries:
                raise ValueError("this is no cursor of this statement")
            lines = lines[entries.index(cursor) + 1 :]
        wanted = [
            line
            for line in lines
            if (since is None or line.booked_at >= since) and (until is None or line.booked_at < until)
        ]
        page = wanted[: min(limit, _MOST_LINES)]
        return model.StatementPage(tuple(page), page[-1].entry if len(page) < len(wanted) else None)

    async def ping(self) -> None:
        await self._fineract.ping()
        await self._steps.ping()

    async def _find(self, tenant: TenantId, id_type: IdentifierType, identifier: str) -> wire.Account:
        """The account of an identifier; an account number that nobody registered may be an external id."""
        word = wire.IDENTIFIER_TYPES.get(id_type)
        if word is None:
            raise AccountUnknown
        try:
            account = await self._fineract.party(tenant, word, identifier)
        except Refused as refused:
            if id_type is not IdentifierType.ACCOUNT_ID or wire.REFUSALS.get(refused.code) is not AccountUnknown:
                raise
            account = identifier
        return await self._fineract.account(tenant, account)

    async def _payee(self, tenant: TenantId, payee: Party) -> wire.Account | None:
        try:
            return await self._find(tenant, payee.id_type, payee.identifier)
        except AccountUnknown:
            unknown = True
        except Refused as refused:
            unknown = wire.REFUSALS.get(refused.code) is AccountUnknown
            if not unknown:
                raise
        if payee.id_type in model.ROUTABLE:
            return None
        raise AccountUnknown("payee")

    # --- Effects ---

    async def hold(self, tenant: TenantId, payment: PaymentId, account: str, amount: Money, fee: Money) -> None:
        effect = Effect("hold", account, amount, fee)
        transfer = _of_payer(payment, effect)

        async def send() -> None:
            # Fineract holds money of an account whose debits are blocked, so the account is looked at first.
            await self._check(tenant, account, "payer", amount.currency)
            async with _refusals("payer"):
                await self._fineract.transfer(tenant, "PREPARE", transfer)

        await self._once(tenant, payment, effect, partial(self._there, tenant, account, "HOLD", transfer.code), send)

    async def book(self, tenant: TenantId, payment: PaymentId, payee_account: str) -> None:
        held = await self._held(tenant, payment)
        effect = Effect("book", held.account, held.amount, held.fee, payee_account)

        async def send() -> None:
            # The payee first: a refusal then leaves the hold as it was, and what is held goes nowhere else meanwhile.
            await self.credit(tenant, payment, payee_account, held.amount)
            failpoint("ams.fineract.book.between")
            await self._fineract.transfer(tenant, "CREATE", _of_payer(payment, effect))

        await self._once(tenant, payment, effect, partial(self._paid_out, tenant, payment, effect), send)

    async def capture(self, tenant: TenantId, payment: PaymentId) -> None:
        held = await self._held(tenant, payment)
        effect = Effect("capture", held.account, held.amount, held.fee)
        send = partial(self._fineract.transfer, tenant, "CREATE", _of_payer(payment, effect))
        await self._once(tenant, payment, effect, partial(self._paid_out, tenant, payment, effect), send)

    async def release(self, tenant: TenantId, payment: PaymentId) -> None:
        held = await self._held(tenant, payment)
        effect = Effect("release", held.account, held.amount, held.fee)
        transfer = _of_payer(payment, effect)

        async def released() -> bool:
            savings = await self._fineract.savings(tenant, held.account)
            hold = savings.find("HOLD", transfer.code)
            return hold is not None and hold.released and savings.find("WITHDRAWAL", transfer.code) is None

        send = partial(self._fineract.transfer, tenant, "RELEASE", transfer)
        await self._once(tenant, payment, effect, released, send)

    async def credit(self, tenant: TenantId, payment: PaymentId, account: str, amount: Money) -> None:
        effect = Effect("credit", account, amount, Money.zero(amount.currency))
        await self._deposit(tenant, payment, effect, "transfer-received")

    async def reverse(self, tenant: TenantId, payment: PaymentId, *, reason: str) -> None:
        held, steps = await self._held(tenant, payment), await self._steps.of(tenant, payment)
        end, ended = steps.get("end", (None, False))
        if end is None or not ended or end.kind == "release":
            raise AccountSystemConflict("there is nothing captured to give back")
        effect = Effect("reverse", held.account, held.total, Money.zero(held.amount.currency))
        if end.payee is not None and not steps.get("reverse", (None, False))[1]:
            await self._check(tenant, held.account, "payee", effect.amount.currency)
            await self._take_back(tenant, payment, end.payee)
        await self._deposit(tenant, payment, effect, reason)

    async def _once(
        self,
        tenant: TenantId,
        payment: PaymentId,
        effect: Effect,
        happened: Callable[[], Awaitable[bool]],
        send: Callable[[], Awaitable[None]],
    ) -> None:
        """Claim, send, note as done. `happened` looks in Fineract; `send` may be called when it has not.

        A no is believed only after looking: Fineract looks at the balance before it looks for the transfer code, so the
        repeat of a hold can be refused for want of the money that the first one holds.
        """
        claimed = await self._steps.claim(tenant, payment, effect)
        if claimed.done:
            return
        if claimed.fresh or not await happened():
            try:
                await send()
            except Rejected:
                if not await happened():
                    await self._steps.forget(tenant, payment, effect)
                    raise
            except Refused as refused:
                if not await happened():
                    raise AccountSystemConflict(f"{effect.kind}: Fineract says {refused}") from refused
        failpoint(f"ams.fineract.{effect.kind}.before-done")
        await self._steps.done(tenant, payment, effect)

    async def _deposit(self, tenant: TenantId, payment: PaymentId, effect: Effect, reason: str) -> None:
        code = wire.transfer_code(payment, ":r" if effect.kind == "reverse" else ":c")
        side = "payer" if effect.kind == "reverse" else "payee"
        transfer = wire.Transfer(payment, code, "PAYEE", effect.account, effect.amount, effect.fee, reason)

        async def send() -> None:
            async with _refusals(side):
                await self._check(tenant, effect.account, "payee", effect.amount.currency)
                await self._fineract.transfer(tenant, "CREATE", transfer)

        happened = partial(self._there, tenant, effect.account, "DEPOSIT", code)
        await self._once(tenant, payment, effect, happened, send)

    async def _take_back(self, tenant: TenantId, payment: PaymentId, payee: str) -> None:
        """Undo what a payee of the same tenant got; it cannot be withdrawn, since Fineract would charge the payee."""
        async with _refusals("payee"):
            savings = await self._fineract.savings(tenant, payee)
            got = savings.find("DEPOSIT", wire.transfer_code(payment, ":c"))
            if got is None:
                raise AccountSystemConflict("the payee's deposit is not there")
            if not got.reversed:
                await self._fineract.undo(tenant, savings.id, got.id)

    async def _held(self, tenant: TenantId, payment: PaymentId) -> Effect:
        effect, done = (await self._steps.of(tenant, payment)).get("hold", (None, False))
        if effect is None or not done:
            raise AccountSystemConflict("this payment has no hold")
        return effect

    async def _paid_out(self, tenant: TenantId, payment: PaymentId, effect: Effect) -> bool:
        return await self._there(tenant, effect.account, "WITHDRAWAL", wire.transfer_code(payment))

    async def _there(self, tenant: TenantId, account: str, kind: str, code: str) -> bool:
        try:
            return (await self._fineract.savings(tenant, account)).find(kind, code) is not None
        except Refused as refused:
            if wire.REFUSALS.get(refused.code) is AccountUnknown:
                return False
            raise AccountSystemConflict(f"looking it up: Fineract says {refused}") from refused

    async def _check(self, tenant: TenantId, account: str, side: wire.Side, currency: str) -> None:
        async with _refusals(side):
            (await self._fineract.account(tenant, account)).check(side, currency)


def _of_payer(payment: PaymentId, effect: Effect) -> wire.Transfer:
    """The payer's side: hold, payment and release bear one code, by which Fineract knows the hold."""
    return wire.Transfer(
        payment, wire.transfer_code(payment), "PAYER", effect.account, effect.amount, effect.fee, "transfer-sent"
    )


@asynccontextmanager
async def _refusals(side: str) -> AsyncIterator[None]:
    """Fineract's businesslike codes as the refusals of a payment; anything else it says is a conflict."""
    try:
        yield
    except Refused as refused:
        kind = wire.REFUSALS.get(refused.code)
        if kind is None:
            raise AccountSystemConflict(f"Fineract says {refused}") from refused
        raise kind(side) from refused
