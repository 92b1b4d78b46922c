"""The contract of every account system; `tests/connectors/ams/test_account_system_contract.py` is its proof."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from connectors.ams.model import AccountBalance, AccountFound, Quote, StatementPage
from hub.money import Money
from hub.transfer import IdentifierType, Party, PaymentId, TenantId


class AccountSystem(Protocol):
    """Where balances live. A payment has at most one hold, which ends exactly once: captured, booked or released.

    Every effect is named after the payment, so repeating a call with the same input does nothing more and succeeds.
    All methods raise `Unavailable` when it is certain that nothing was done, `Uncertain` when it is not, the refusals
    named, and `AccountSystemConflict` for what no correct process asks.
    """

    async def lookup(self, tenant: TenantId, id_type: IdentifierType, identifier: str) -> AccountFound:
        """The account an identifier points to. Raises `AccountUnknown`."""
        ...

    async def quote(self, tenant: TenantId, payer: Party, payee: Party, amount: Money) -> Quote:
        """Both accounts and the fee. Raises `AccountUnknown`, `AccountClosed`, `AccountFrozen`, `CurrencyMismatch`,
        `AmountNotAllowed` (same account on both sides included), and `InsufficientFunds` where the account system looks
        at the balance already."""
        ...

    async def hold(self, tenant: TenantId, payment: PaymentId, account: str, amount: Money, fee: Money) -> None:
        """Set `amount` plus `fee` of the payer's account aside, without an end in time. Raises `InsufficientFunds`,
        `AccountUnknown`, `AccountClosed`, `AccountFrozen`, `CurrencyMismatch`."""
        ...

    async def book(self, tenant: TenantId, payment: PaymentId, payee_account: str) -> None:
        """Pay the held money to an account of the same tenant. Raises `AccountUnknown`, `AccountClosed`,
        `AccountFrozen`, `CurrencyMismatch`, all of the payee."""
        ...

    async def capture(self, tenant: TenantId, payment: PaymentId) -> None:
        """Pay the held money to the rail's settlement account, because the rail has paid the payee."""
        ...

    async def release(self, tenant: TenantId, payment: PaymentId) -> None:
        """Give the held money back."""
        ...

    async def credit(self, tenant: TenantId, payment: PaymentId, account: str, amount: Money) -> None:
        """Put money that a rail brought on an account. Raises `AccountUnknown`, `AccountClosed`, `AccountFrozen`,
        `CurrencyMismatch`."""
        ...

    async def reverse(self, tenant: TenantId, payment: PaymentId, *, reason: str) -> None:
        """Give a payment that was captured or booked back: one compensating entry, principal and fee, once only.

        `reason` is a short code for the statement. Raises the refusals of the payer's account (`AccountUnknown`,
        `AccountClosed`, `AccountFrozen`, `CurrencyMismatch`), and `InsufficientFunds` when a payee of the same tenant
        has spent the money. A hold that is still open, or was released, is an `AccountSystemConflict`.
        """
        ...

    async def balance(self, tenant: TenantId, account: str, currency: str) -> AccountBalance:
        """What an account holds. Raises `AccountUnknown`, `CurrencyMismatch`."""
        ...

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
    ) -> StatementPage:
        """What was booked on an account from `since` on and before `until`, by booking time, newest first.

        `cursor`: the `next` of the page before. Raises `AccountUnknown`, `CurrencyMismatch`, and `ValueError` for a
        cursor that is none of ours.
        """
        ...

    async def ping(self) -> None:
        """Raises when the account system does not answer."""
        ...
