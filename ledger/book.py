"""The verbs of the book. Each call is one statement, one round trip and one transaction: all of it or nothing.

Every verb takes an operation id of the caller's. The same id with the same input answers the first receipt again and
writes nothing; with other input it raises `DuplicateOperation`. A refusal is not remembered: the same operation may
succeed later, when the account has funds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import psycopg
from sqlalchemy import Row, TextClause, text
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from hub.database import autocommit, database_errors
from hub.failpoint import failpoint
from hub.money import MAX_MINOR, Money
from ledger.model import (
    MAX_HOLD,
    REFUSALS,
    AccountRef,
    AmountNotAllowed,
    InsufficientFunds,
    Leg,
    PolicyAction,
    Quote,
    Receipt,
    asset_of,
)

_PLACE_HOLD: Final = text(
    "SELECT * FROM ledger.place_hold(:book, :operation, :account, :asset, :amount, :fee, "
    "CAST(:lifetime AS interval), :reference, :actor)"
)
_CAPTURE: Final = text("SELECT * FROM ledger.capture_hold(:book, :hold, :operation, :to, :actor)")
_RELEASE: Final = text("SELECT * FROM ledger.release_hold(:book, :hold, :operation, :actor)")
_POST: Final = text(
    "SELECT * FROM ledger.post(:book, :operation, :kind, CAST(:debits AS text[]), CAST(:credits AS text[]), "
    "CAST(:assets AS text[]), CAST(:amounts AS bigint[]), :reference, :reason, CAST(:effective_at AS timestamptz), "
    ":actor, NULL)"
)
_QUOTE: Final = text(
    "SELECT * FROM ledger.quote(:book, :payer_type, :payer, :payee_type, :payee, :asset, :amount, :routable)"
)
_SET_POLICY: Final = text(
    "SELECT * FROM ledger.set_policy(:book, :account, :asset, :action, CAST(:floor AS bigint), :actor, :reason)"
)
_EXPIRE: Final = text("SELECT ledger.expire_holds(:limit, :actor)")

_OPERATION: Final = re.compile(r"[!-~]{1,200}")
_MAX_LEGS: Final = 100


class Ledger:
    """The book behind one database. Every method raises `LedgerRefused` subclasses, and `Unavailable` when the database
    is away; repeating an operation is always safe. `actor` is who books, for the auditor.
    """

    def __init__(self, engine: AsyncEngine, actor: str = "payment-hub") -> None:
        self._engine = autocommit(engine)
        self._actor = actor

    async def quote(
        self, book: str, payer: tuple[str, str], payee: tuple[str, str], amount: Money, *, routable: bool
    ) -> Quote:
        """Find both parties by (type, identifier) and say what the transfer costs. Writes nothing.

        `routable`: a payee without an account in this book is no refusal. Raises `UnknownAccount`, `AccountClosed`,
        `AccountFrozen`, `CurrencyMismatch`, `SameAccount`, `AmountNotAllowed`.
        """
        _positive(amount)
        row = await self._call(
            _QUOTE,
            {
                "book": book,
                "payer_type": payer[0],
                "payer": payer[1],
                "payee_type": payee[0],
                "payee": payee[1],
                "asset": asset_of(amount.currency),
                "amount": amount.minor,
                "routable": routable,
            },
        )
        return Quote(row.payer_account, row.payee_account, Money(row.fee, amount.currency))

    async def hold(
        self,
        book: str,
        operation: str,
        account: AccountRef,
        principal: Money,
        fee: Money | None = None,
        *,
        lifetime: timedelta | None = None,
        reference: str | None = None,
    ) -> Receipt:
        """Set `principal` plus `fee` aside. Without `lifetime` time never frees it, which is what a payment needs: its
        money may have left. `reference` is the payment id.

        Raises `UnknownAccount`, `AccountClosed`, `AccountFrozen`, `CurrencyMismatch`, `InsufficientFunds`,
        `AmountNotAllowed`, `DuplicateOperation`.
        """
        _positive(principal)
        fee = Money.zero(principal.currency) if fee is None else fee
        if fee.minor < 0 or (lifetime is not None and not timedelta(0) < lifetime <= MAX_HOLD):
            raise ValueError(f"a fee is not negative, and a lifetime lies between nothing and {MAX_HOLD.days} days")
        return await self._book(
            "hold",
            _PLACE_HOLD,
            {
                "book": book,
                "operation": _checked(operation),
                "account": str(account),
                "asset": asset_of(principal.currency),
                "amount": (principal + fee).minor,
                "fee": fee.minor,
                "lifetime": lifetime,
                "reference": reference,
                "actor": self._actor,
            },
        )

    async def capture(self, book: str, hold: str, operation: str, to: AccountRef) -> Receipt:
        """Pay the hold placed by operation `hold`: its principal to `to`, its fee to fee income, in one transaction.

        Raises `HoldUnknown`, `HoldFinal`, `HoldExpired`, `UnknownAccount`, `CurrencyMismatch`, `SameAccount`,
        `AccountClosed`, `AccountFrozen` (all of the credited account), `DuplicateOperation`.
        """
        return await self._book(
            "capture",
            _CAPTURE,
            {"book": book, "hold": hold, "operation": _checked(operation), "to": str(to), "actor": self._actor},
        )

    async def release(self, book: str, hold: str, operation: str) -> Receipt:
        """Free the hold placed by operation `hold`. Raises `HoldUnknown`, `HoldFinal`, `DuplicateOperation`."""
        return await self._book(
            "release",
            _RELEASE,
            {"book": book, "hold": hold, "operation": _checked(operation), "actor": self._actor},
        )

    async def post(
        self,
        book: str,
        operation: str,
        legs: Sequence[Leg],
        *,
        kind: Literal["post", "adjust"] = "post",
        reference: str | None = None,
        reason: str | None = None,
        effective_at: datetime | None = None,
    ) -> Receipt:
        """Book all `legs` in one transaction or none. `effective_at` (with a zone) is the value date, now by default.

        Raises `UnknownAccount`, `CurrencyMismatch`, `SameAccount`, `AccountClosed`, `AccountFrozen`,
        `InsufficientFunds`, `AmountNotAllowed`, `DuplicateOperation`.
        """
        for leg in legs:
            _positive(leg.amount)
        if not 1 <= len(legs) <= _MAX_LEGS:
            raise ValueError(f"a transaction has 1 to {_MAX_LEGS} legs")
        if effective_at is not None and effective_at.tzinfo is None:
            raise ValueError("effective_at needs a time zone")
        return await self._book(
            "post",
            _POST,
            {
                "book": book,
                "operation": _checked(operation),
                "kind": kind,
                "debits": [str(leg.debit) for leg in legs],
                "credits": [str(leg.credit) for leg in legs],
                "assets": [asset_of(leg.amount.currency) for leg in legs],
                "amounts": [leg.amount.minor for leg in legs],
                "reference": reference,
                "reason": reason,
                "effective_at": effective_at,
                "actor": self._actor,
            },
        )

    async def set_policy(
        self,
        book: str,
        account: AccountRef,
        currency: str,
        action: PolicyAction,
        *,
        reason: str,
        floor: Money | None = None,
    ) -> None:
        """Freeze, close, reopen or bound an account; kept as an event with actor and reason. Each call is an event of
        its own, also a repeated one. `floor` is read for the action `floor` only; `None` unbounds.

        Raises `UnknownAccount`, `CurrencyMismatch`, `InsufficientFunds` when the balance is below the wanted floor.
        """
        if floor is not None and (action != "floor" or floor.currency != currency):
            raise ValueError("a floor belongs to the action 'floor', in the account's currency")
        await self._call(
            _SET_POLICY,
            {
                "book": book,
                "account": str(account),
                "asset": asset_of(currency),
                "action": action,
                "floor": None if floor is None else floor.minor,
                "actor": self._actor,
                "reason": reason,
            },
        )

    async def expire_holds(self, limit: int = 100) -> int:
        """Free up to `limit` holds whose time has run out by the database's clock, and tell how many.

        Holds without a lifetime are never taken, however old: a payment's hold waits for the payment's outcome.
        """
        with database_errors():
            async with self._engine.connect() as connection:
                return int((await connection.execute(_EXPIRE, {"limit": limit, "actor": self._actor})).scalar_one())

    async def _book(self, verb: str, statement: TextClause, values: Mapping[str, Any]) -> Receipt:
        failpoint(f"ledger.{verb}.before-commit")
        row = await self._call(statement, values)
        failpoint(f"ledger.{verb}.after-commit")
        return Receipt(row.txn_id, row.booked_at, row.replayed)

    async def _call(self, statement: TextClause, values: Mapping[str, Any]) -> Row[Any]:
        with database_errors(), constraint_errors():
            async with self._engine.connect() as connection:
                row = (await connection.execute(statement, values)).one()
        raise_refusal(row)
        return row


def raise_refusal(row: Row[Any]) -> None:
    """Raise the typed refusal that a function of the book answered, if it did."""
    if row.refusal is not None:
        raise REFUSALS[row.refusal](row.detail or "")


@contextmanager
def constraint_errors() -> Iterator[None]:
    """The nets below the functions' own checks: a table's floor, and the largest amount a balance can hold."""
    try:
        yield
    except IntegrityError as error:
        if isinstance(error.orig, psycopg.errors.CheckViolation) and error.orig.diag.table_name == "balance":
            raise InsufficientFunds("the floor of an account") from error
        raise
    except DataError as error:
        if isinstance(error.orig, psycopg.errors.NumericValueOutOfRange):
            raise AmountNotAllowed("a balance would exceed what it can hold") from error
        raise


def _checked(operation: str) -> str:
    if not _OPERATION.fullmatch(operation) or operation.startswith("expire:"):
        raise ValueError("an operation id is 1 to 200 printable ASCII characters and does not begin with 'expire:'")
    return operation


def _positive(amount: Money) -> None:
    if not 0 < amount.minor <= MAX_MINOR:
        raise ValueError("an amount to book is greater than zero")
