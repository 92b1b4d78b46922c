"""Bank transfers to stores: made of pending updates, sent, and recorded as the provider tells (L18 to L44).

Each verb is one SQL transaction that begins by locking the store's row, so two firings at once make one transfer (L31)
and a late callback meets a settled state. What is refused changes nothing and is kept in the log of events (L21).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hub.statements import Statements
from ledger.disbursement.model import (
    BankTransfer,
    Collected,
    Event,
    NothingToPay,
    Recorded,
    StatusRecord,
    TransferItem,
    TransferStatus,
    Trigger,
)


class Transfers:
    """The transfers of all tenants. Every method raises `hub.errors.Unavailable`; repeating one is always safe."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def collect(
        self,
        tenant: str,
        store: str,
        payment_id: str,
        trigger: Trigger,
        *,
        run_id: str | None = None,
        process_instance_key: int | None = None,
    ) -> Collected | NothingToPay:
        """Make one transfer of all the store's pending updates, if it is to be paid at all (L27 to L30, L55).

        `payment_id` (a UUID in lower case) is chosen by whoever asks: asking again answers the transfer it made. Raises
        `StoreUnknown`, and `DuplicateOperation` when the id is another store's.
        """
        raise NotImplementedError

    async def record_sent(self, tenant: str, payment_id: str) -> Recorded:
        """The provider took the order (L24). Also right, and without effect, once the outcome is known.

        Raises `TransferUnknown`, `TransitionRefused` for a cancelled transfer and for one nobody has confirmed.
        """
        raise NotImplementedError

    async def record_outcome(
        self,
        tenant: str,
        payment_id: str,
        outcome: str,
        *,
        reason: str | None = None,
        reason_detail: str | None = None,
        at: datetime | None = None,
        source: str = "stp",
    ) -> Recorded:
        """What became of the order: a word of `Outcome` (L35 to L38, L44). `at` (with a zone): when, by the provider.

        The event is logged in a transaction of its own before it is handled, and what became of it after (L34). A
        repeat changes nothing (L41). Raises `TransferUnknown`, `TransitionRefused`, `OutcomeUnknown`.
        """
        raise NotImplementedError

    async def confirm(self, tenant: str, payment_id: str, actor: str) -> BankTransfer:
        """An authorised person lets a waiting transfer go (L23); the process is told. Confirming again changes nothing.

        Raises `TransferUnknown`, `TransitionRefused` when it waits for nobody.
        """
        raise NotImplementedError

    async def cancel(self, tenant: str, payment_id: str, actor: str, reason: str) -> BankTransfer:
        """Cancel a transfer that waits for a person (L23); its updates are pending again; the process is told.

        Cancelling again changes nothing. Raises `TransferUnknown`, `ReasonMissing`, `TransitionRefused` when it was
        confirmed or waits for nobody.
        """
        raise NotImplementedError

    async def find(self, tenant: str, payment_id: str) -> BankTransfer | None:
        """The transfer, or nothing when the tenant has no such one."""
        raise NotImplementedError

    async def search(
        self,
        tenant: str,
        *,
        store: str | None = None,
        merchant: str | None = None,
        status: TransferStatus | None = None,
        run_id: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[BankTransfer]:
        """A page of transfers, newest first: those with a number below `before`."""
        raise NotImplementedError

    async def items(self, tenant: str, payment_id: str, after: int = 0, limit: int = 1000) -> Sequence[TransferItem]:
        """What a transfer was made of, by sequence; a page of those above `after`. Also after its release."""
        raise NotImplementedError

    async def history(self, tenant: str, payment_id: str) -> Sequence[StatusRecord]:
        """The statuses a transfer had, oldest first (L13); empty for one that is not this tenant's."""
        raise NotImplementedError

    async def events(self, tenant: str, payment_id: str) -> Sequence[Event]:
        """What came in about a transfer, refused and repeated events included, oldest first (L34)."""
        raise NotImplementedError
