"""The verbs that change a store's balance, and the questions about it (L1 to L17).

Each verb is one SQL transaction that begins by locking the store's row, and books in the ledger inside it. The same
`operation` with the same input answers the first update again and writes nothing; with other input it raises
`DuplicateOperation`. All raise `StoreUnknown` or `CreditUnknown`, `BookUnknown`, the ledger's own `LedgerRefused` when
an account of it is frozen or closed, and `hub.errors.Unavailable`.
"""

from __future__ import annotations

from collections.abc import Sequence

from hub.money import Money
from hub.statements import Statements
from ledger.disbursement.model import AmountChanged, BalanceUpdate, StatusRecord, StoreBalance


class Balances:
    """The balances of all tenants' stores."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def contribute(self, tenant: str, credit: str, *, operation: str, actor: str) -> BalanceUpdate:
        """The purchase was delivered: owe the store the credit's amount less the commission stored on it (L6, L7).

        Raises `NoCommission`, `AlreadyContributed`, `AlreadyOverwritten` when it was cancelled since.
        """
        raise NotImplementedError

    async def cancel_credit(
        self, tenant: str, credit: str, *, operation: str, reason: str, actor: str
    ) -> BalanceUpdate:
        """Undo the credit's contribution, whatever became of it (L10). The balance may fall below zero.

        Raises `NotContributed`, `AlreadyOverwritten`.
        """
        raise NotImplementedError

    async def change_amount(
        self, tenant: str, credit: str, amount: Money, commission: Money, *, operation: str, actor: str
    ) -> AmountChanged:
        """Another amount and commission for a credit: its contribution is undone and made anew (L17). A credit that was
        not contributed yet only gets the new amount.

        Raises `BadAmount`, `AlreadyOverwritten` when the credit was cancelled.
        """
        raise NotImplementedError

    async def adjust(
        self, tenant: str, store: str, effect: Money, *, operation: str, reason: str, actor: str
    ) -> BalanceUpdate:
        """Treasury changes a balance by hand, in either direction (L11).

        Raises `ReasonMissing`, and `BadAmount` for zero.
        """
        raise NotImplementedError

    async def balance(self, tenant: str, store: str) -> StoreBalance:
        """What the store is owed, and how much of it is pending and in transit."""
        raise NotImplementedError

    async def updates(
        self, tenant: str, store: str, before: int | None = None, limit: int = 100
    ) -> Sequence[BalanceUpdate]:
        """A page of the store's updates, newest first: those with a sequence below `before`."""
        raise NotImplementedError

    async def updates_of_credit(self, tenant: str, credit: str) -> Sequence[BalanceUpdate]:
        """All updates of a credit, oldest first."""
        raise NotImplementedError

    async def history(self, tenant: str, update: int) -> Sequence[StatusRecord]:
        """The statuses an update had, oldest first (L13); empty for one that is not this tenant's."""
        raise NotImplementedError
