"""What was asked of Fineract, and whether it is known to have happened: one row per effect, in our own database.

Fineract finds a transfer only by its account, and the hub names a payment by its id, so this also says on which account
a payment's hold lies. An effect is claimed before it is sent; so is known, whatever dies, what must be looked up before
it is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from connectors.ams.model import AccountSystemConflict
from hub.money import Money
from hub.statements import Statements
from hub.transfer import PaymentId, TenantId

_CLAIM: Final = """
    WITH claimed AS (
        INSERT INTO ams.step (tenant_id, payment_id, step, kind, account, currency, amount, fee, payee)
        VALUES (%(tenant_id)s, %(payment_id)s, %(step)s, %(kind)s, %(account)s, %(currency)s, %(amount)s, %(fee)s,
            %(payee)s)
        ON CONFLICT DO NOTHING
        RETURNING kind, account, currency, amount, fee, payee
    )
    SELECT true, kind, account, currency, amount, fee, payee, false FROM claimed
    UNION ALL
    SELECT false, kind, account, currency, amount, fee, payee, done_at IS NOT NULL FROM ams.step
    WHERE tenant_id = %(tenant_id)s AND payment_id = %(payment_id)s AND step = %(step)s
"""
_DONE: Final = """
    UPDATE ams.step SET done_at = now()
    WHERE tenant_id = %(tenant_id)s AND payment_id = %(payment_id)s AND step = %(step)s AND done_at IS NULL
"""
_FORGET: Final = """
    DELETE FROM ams.step
    WHERE tenant_id = %(tenant_id)s AND payment_id = %(payment_id)s AND step = %(step)s AND done_at IS NULL
"""
_FIND: Final = """
    SELECT step, kind, account, currency, amount, fee, payee, done_at IS NOT NULL FROM ams.step
    WHERE tenant_id = %(tenant_id)s AND payment_id = %(payment_id)s
"""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing asked of Fineract."""

    kind: str
    """`hold`, `capture`, `book`, `release`, `credit` or `reverse`."""

    account: str
    amount: Money
    fee: Money
    payee: str | None = None

    @property
    def step(self) -> str:
        """A payment has one of each: a hold has one end, whichever it is."""
        return "end" if self.kind in ("capture", "book", "release") else self.kind

    @property
    def total(self) -> Money:
        return self.amount + self.fee


@dataclass(frozen=True, slots=True)
class Claimed:
    """An effect as it stands after a claim."""

    fresh: bool
    """Nobody claimed it before, so it was certainly not sent."""

    done: bool


class Steps:
    """The table `ams.step`. Every method is one statement and may be repeated; raises `Unavailable`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def claim(self, tenant: TenantId, payment: PaymentId, effect: Effect) -> Claimed:
        """Take an effect in hand. Raises `AccountSystemConflict` when another one has its place."""
        values = {
            **_key(tenant, payment, effect.step),
            "kind": effect.kind,
            "account": effect.account,
            "currency": effect.amount.currency,
            "amount": effect.amount.minor,
            "fee": effect.fee.minor,
            "payee": effect.payee,
        }
        for _ in range(2):  # the second time sees what somebody else committed while the first waited for it
            found = await self._statements.rows(_CLAIM, values)
            if found:
                break
        fresh, *row, done = found[0]
        before = _effect(row)
        if before != effect:
            raise AccountSystemConflict(f"{effect.kind}: there was a {before.kind} before, with other input")
        return Claimed(fresh, done)

    async def done(self, tenant: TenantId, payment: PaymentId, effect: Effect) -> None:
        """It certainly happened."""
        await self._statements.rows(_DONE, _key(tenant, payment, effect.step))

    async def forget(self, tenant: TenantId, payment: PaymentId, effect: Effect) -> None:
        """It certainly did not happen, and it was refused: something else may take its place."""
        await self._statements.rows(_FORGET, _key(tenant, payment, effect.step))

    async def of(self, tenant: TenantId, payment: PaymentId) -> dict[str, tuple[Effect, bool]]:
        """By step, what was claimed for a payment and whether it is done."""
        found = await self._statements.rows(_FIND, {"tenant_id": tenant, "payment_id": payment})
        return {step: (_effect(row), done) for step, *row, done in found}

    async def ping(self) -> None:
        await self._statements.ping()


def _key(tenant: TenantId, payment: PaymentId, step: str) -> dict[str, Any]:
    return {"tenant_id": tenant, "payment_id": payment, "step": step}


def _effect(row: list[Any]) -> Effect:
    kind, account, currency, amount, fee, payee = row
    return Effect(kind, account, Money(amount, currency), Money(fee, currency), payee)
