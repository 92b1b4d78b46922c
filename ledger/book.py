"""The verbs of the book. Each call is one statement, one round trip and one transaction: all of it or nothing.
(A dry run is three: the transaction is rolled back.)

Every verb takes an operation id of the caller's. The same id with the same input answers the first receipt again and
writes nothing; with other input it raises `DuplicateOperation`. A refusal is not remembered: the same operation may
succeed later, when the account has funds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Literal, LiteralString

import psycopg

from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.money import MAX_MINOR, Money
from hub.statements import Statements
from ledger.coalescing import Coalescer
from ledger.model import (
    MAX_HOLD,
    REFUSALS,
    AccountRef,
    AmountNotAllowed,
    Condition,
    InsufficientFunds,
    LedgerRefused,
    Leg,
    PolicyAction,
    Post,
    Quote,
    Receipt,
    asset_of,
)

_ANSWER: Final = "SELECT refusal, detail, txn_id, booked_at, replayed FROM ledger."
_PLACE_HOLD: Final = (
    _ANSWER + "place_hold(%(book)s, %(operation)s, %(account)s, %(asset)s, %(amount)s, %(fee)s, "
    "%(lifetime)s::interval, %(reference)s, %(actor)s, %(if_accounts)s::text[], %(if_assets)s::text[], "
    "%(if_available)s::bigint[], %(if_versions)s::bigint[])"
)
_CAPTURE: Final = (
    _ANSWER + "capture_hold(%(book)s, %(hold)s, %(operation)s, %(to)s, %(asset)s, %(amount)s::bigint, %(final)s, "
    "%(actor)s)"
)
_RENEW: Final = _ANSWER + "renew_hold(%(book)s, %(hold)s, %(operation)s, %(lifetime)s::interval, %(actor)s)"
_RELEASE: Final = _ANSWER + "release_hold(%(book)s, %(hold)s, %(operation)s, %(actor)s)"
_POST: Final = (
    _ANSWER + "post(%(book)s, %(operation)s, %(kind)s, %(debits)s::text[], %(credits)s::text[], %(assets)s::text[], "
    "%(amounts)s::bigint[], %(reference)s, %(reason)s, %(effective_at)s::timestamptz, %(actor)s, NULL)"
)
_POST_ONE: Final = (
    _ANSWER + "post_one(%(book)s, %(operation)s, %(kind)s, %(debit)s, %(credit)s, %(asset)s, %(amount)s, "
    "%(reference)s, %(reason)s, %(effective_at)s::timestamptz, %(actor)s)"
)
_POST_BATCH: Final = (
    _ANSWER + "post_batch(%(books)s::text[], %(operations)s::text[], %(debits)s::text[], %(credits)s::text[], "
    "%(assets)s::text[], %(amounts)s::bigint[], %(references)s::text[], %(reasons)s::text[], "
    "%(effective_at)s::timestamptz[], %(actor)s, %(atomic)s)"
)
_POST_IF: Final = (
    _ANSWER + "post_if(%(book)s, %(operation)s, %(kind)s, %(debits)s::text[], %(credits)s::text[], "
    "%(assets)s::text[], %(amounts)s::bigint[], %(reference)s, %(reason)s, %(effective_at)s::timestamptz, %(actor)s, "
    "NULL, %(if_accounts)s::text[], %(if_assets)s::text[], %(if_available)s::bigint[], %(if_versions)s::bigint[])"
)
_REVERSE: Final = (
    _ANSWER
    + "reverse(%(book)s, %(original)s, %(operation)s, %(reason)s, %(reference)s, %(effective_at)s::timestamptz, "
    "%(actor)s)"
)
_SET_POLICY: Final = (
    _ANSWER + "set_policy(%(book)s, %(account)s, %(asset)s, %(action)s, %(floor)s::bigint, %(actor)s, %(reason)s)"
)
_QUOTE: Final = (
    "SELECT refusal, detail, payer_account, payee_account, fee FROM ledger.quote(%(book)s, %(payer_type)s, %(payer)s, "
    "%(payee_type)s, %(payee)s, %(asset)s, %(amount)s, %(routable)s)"
)
_EXPIRE: Final = "SELECT ledger.expire_holds(%(limit)s, %(actor)s)"

_OPERATION: Final = re.compile(r"[!-~]{1,200}")
_MAX_LEGS: Final = 100
MAX_BATCH: Final = 1_000

# An operation was taken by another session in the moment of the batch, which was undone.
_TAKEN: Final = "PH002"
_BATCH_ATTEMPTS: Final = 3


class Ledger:
    """The book behind one database. Every method raises `LedgerRefused` subclasses, and `Unavailable` when the database
    is away; repeating an operation is always safe. `actor` is who books, for the auditor.
    """

    def __init__(self, statements: Statements, actor: str = "payment-hub") -> None:
        self._statements = statements
        self._actor = actor
        self._posts = Coalescer(self._post_one, self._post_group)

    async def quote(
        self, book: str, payer: tuple[str, str], payee: tuple[str, str], amount: Money, *, routable: bool
    ) -> Quote:
        """Find both parties by (type, identifier) and say what the transfer costs. Writes nothing.

        `routable`: a payee without an account in this book is no refusal. Raises `UnknownAccount`, `AccountClosed`,
        `AccountFrozen`, `CurrencyMismatch`, `SameAccount`, `AmountNotAllowed`.
        """
        _positive(amount)
        _, _, payer_account, payee_account, fee = await self._call(
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
        return Quote(payer_account, payee_account, Money(fee, amount.currency))

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
        conditions: Sequence[Condition] = (),
        dry_run: bool = False,
    ) -> Receipt:
        """Set `principal` plus `fee` aside. Without `lifetime` time never frees it, which is what a payment needs: its
        money may have left. `reference` is the payment id. `dry_run`: the same answer, and nothing is written.

        Raises `UnknownAccount`, `AccountClosed`, `AccountFrozen`, `CurrencyMismatch`, `InsufficientFunds`,
        `AmountNotAllowed`, `DuplicateOperation`, `ConditionUnmet`.
        """
        _positive(principal)
        fee = Money.zero(principal.currency) if fee is None else fee
        if fee.minor < 0:
            raise ValueError("a fee is not negative")
        return await (self._dry_run if dry_run else self._book)(
            "hold",
            _PLACE_HOLD,
            {
                "book": book,
                "operation": _checked(operation),
                "account": str(account),
                "asset": asset_of(principal.currency),
                "amount": (principal + fee).minor,
                "fee": fee.minor,
                "lifetime": _checked_lifetime(lifetime),
                "reference": reference,
                "actor": self._actor,
                **_conditions(conditions),
            },
        )

    async def capture(
        self,
        book: str,
        hold: str,
        operation: str,
        to: AccountRef,
        amount: Money | None = None,
        *,
        final: bool = True,
    ) -> Receipt:
        """Pay the hold placed by operation `hold`: its principal to `to`, its fee to fee income, in one transaction.

        `amount`: only so much of the principal, which must not be more than is left of it. What remains is freed when
        `final`, and otherwise stays held for another capture. The fee is taken whole by the final capture, however
        little that one pays, and by no other; a hold that ends without one costs nothing. A capture of the last of the
        principal is final in any case.

        Raises `HoldUnknown`, `HoldFinal`, `HoldExpired`, `AmountNotAllowed`, `UnknownAccount`, `CurrencyMismatch`,
        `SameAccount`, `AccountClosed`, `AccountFrozen` (all of the credited account), `DuplicateOperation`.
        """
        if amount is None and not final:
            raise ValueError("a capture that is not final names its amount")
        if amount is not None:
            _positive(amount)
        return await self._book(
            "capture",
            _CAPTURE,
            {
                "book": book,
                "hold": hold,
                "operation": _checked(operation),
                "to": str(to),
                "asset": None if amount is None else asset_of(amount.currency),
                "amount": None if amount is None else amount.minor,
                "final": final,
                "actor": self._actor,
            },
        )

    async def renew_hold(self, book: str, hold: str, operation: str, lifetime: timedelta) -> Receipt:
        """Let the open hold placed by operation `hold` live `lifetime` from now, never less than it would have.

        For a payment whose outcome is open, so that no expiry frees money that may have left. A hold without a lifetime
        keeps having none. Raises `HoldUnknown`, `HoldFinal`, `HoldExpired`, `DuplicateOperation`.
        """
        return await self._book(
            "renew",
            _RENEW,
            {
                "book": book,
                "hold": hold,
                "operation": _checked(operation),
                "lifetime": _checked_lifetime(lifetime),
                "actor": self._actor,
            },
        )

    async def release(self, book: str, hold: str, operation: str) -> Receipt:
        """Free what is left of the hold placed by operation `hold`.

        Raises `HoldUnknown`, `HoldFinal`, `DuplicateOperation`.
        """
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
        conditions: Sequence[Condition] = (),
        dry_run: bool = False,
    ) -> Receipt:
        """Book all `legs` in one transaction or none. `effective_at` (with a zone) is the value date, now by default.
        `dry_run`: the same answer, and nothing is written. An adjustment needs a `reason`.

        Raises `UnknownAccount`, `CurrencyMismatch`, `SameAccount`, `AccountClosed`, `AccountFrozen`,
        `InsufficientFunds`, `AmountNotAllowed`, `DuplicateOperation`, `ConditionUnmet`.
        """
        for leg in legs:
            _positive(leg.amount)
        if not 1 <= len(legs) <= _MAX_LEGS:
            raise ValueError(f"a transaction has 1 to {_MAX_LEGS} legs")
        if kind == "adjust" and not reason:
            raise ValueError("an adjustment needs a reason")
        if len(legs) == 1 and kind == "post" and not conditions and not dry_run:
            return await self._posts.do(_checked_post(Post(book, operation, legs[0], reference, reason, effective_at)))
        values = {
            "book": book,
            "operation": _checked(operation),
            "kind": kind,
            "debits": [str(leg.debit) for leg in legs],
            "credits": [str(leg.credit) for leg in legs],
            "assets": [asset_of(leg.amount.currency) for leg in legs],
            "amounts": [leg.amount.minor for leg in legs],
            "reference": reference,
            "reason": reason,
            "effective_at": _with_zone(effective_at),
            "actor": self._actor,
            **_conditions(conditions),
        }
        book_it = self._dry_run if dry_run else self._book
        return await book_it("post", _POST_IF if conditions else _POST, values)

    async def post_batch(self, posts: Sequence[Post], *, atomic: bool = False) -> Sequence[Receipt | LedgerRefused]:
        """Book many postings, each a transaction of its own, and tell what became of each, in order.

        Each is decided as if those before it were booked. A refused one does not stop the others and is asked for once
        more by itself, after them. `atomic`: one database transaction for all; when one is refused nothing is booked,
        and those that were not to blame are told `BatchRefused`. What was booked before is answered again in any case.

        Raises `ValueError` for more than 1000 posts and for an operation that stands twice in an atomic batch, and
        `Unavailable`, after which those that are asked for again are answered or booked.
        """
        if not 1 <= len(posts) <= MAX_BATCH:
            raise ValueError(f"a batch has 1 to {MAX_BATCH} posts")
        posts = [_checked_post(post) for post in posts]
        if not atomic:
            return await self._post_group(posts)
        if len({(post.book, post.operation) for post in posts}) < len(posts):
            raise ValueError("an operation stands twice in an atomic batch")
        for _ in range(_BATCH_ATTEMPTS):
            try:
                return [_outcome(answer) for answer in await self._answers(posts, atomic=True)]
            except psycopg.DatabaseError as error:
                if error.sqlstate != _TAKEN:
                    raise
        raise Unavailable("operations of the batch are taken again and again")

    async def _post_one(self, post: Post) -> Receipt:
        return await self._book(
            "post",
            _POST_ONE,
            {
                "book": post.book,
                "operation": post.operation,
                "kind": "post",
                "debit": str(post.leg.debit),
                "credit": str(post.leg.credit),
                "asset": asset_of(post.leg.amount.currency),
                "amount": post.leg.amount.minor,
                "reference": post.reference,
                "reason": post.reason,
                "effective_at": post.effective_at,
                "actor": self._actor,
            },
        )

    async def _post_group(self, posts: Sequence[Post]) -> Sequence[Receipt | LedgerRefused]:
        try:
            answers = await self._answers(posts, atomic=False)
        except (InsufficientFunds, AmountNotAllowed):  # of the nets: which post it was is not told
            answers = []
        except psycopg.DatabaseError as error:
            if error.sqlstate != _TAKEN:
                raise
            answers = []
        outcomes: list[Receipt | LedgerRefused] = []
        for place, post in enumerate(posts):
            if answers and answers[place][0] is None:
                outcomes.append(_receipt(answers[place]))
                continue
            try:
                outcomes.append(await self._post_one(post))
            except LedgerRefused as refused:
                outcomes.append(refused)
        return outcomes

    async def _answers(self, posts: Sequence[Post], *, atomic: bool) -> list[Any]:
        values = {
            "books": [post.book for post in posts],
            "operations": [post.operation for post in posts],
            "debits": [str(post.leg.debit) for post in posts],
            "credits": [str(post.leg.credit) for post in posts],
            "assets": [asset_of(post.leg.amount.currency) for post in posts],
            "amounts": [post.leg.amount.minor for post in posts],
            "references": [post.reference for post in posts],
            "reasons": [post.reason for post in posts],
            "effective_at": [post.effective_at for post in posts],
            "actor": self._actor,
            "atomic": atomic,
        }
        failpoint("ledger.batch.before-commit")
        with _nets():
            answers = await self._statements.rows(_POST_BATCH, values)
        failpoint("ledger.batch.after-commit")
        return answers

    async def reverse(
        self,
        book: str,
        original_operation: str,
        operation: str,
        *,
        reason: str,
        reference: str | None = None,
        effective_at: datetime | None = None,
    ) -> Receipt:
        """Book the mirror image of what `original_operation` (a post, a capture or an adjustment) booked, naming it.

        Once per original. A captured hold stays ended: its money returns to the payer's balance. Without `reference` it
        stands under the original's. `effective_at` (with a zone) is the value date, now by default.

        Raises `TransactionUnknown`, `NotReversible`, `AlreadyReversed`, `AccountClosed`, `AccountFrozen`,
        `InsufficientFunds` when who received the money has spent it, `AmountNotAllowed`, `DuplicateOperation`.
        """
        if not reason:
            raise ValueError("a reversal needs a reason")
        return await self._book(
            "reverse",
            _REVERSE,
            {
                "book": book,
                "original": original_operation,
                "operation": _checked(operation),
                "reason": reason,
                "reference": reference,
                "effective_at": _with_zone(effective_at),
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
        ((freed,),) = await self._statements.rows(_EXPIRE, {"limit": limit, "actor": self._actor})
        return int(freed)

    async def _book(self, verb: str, statement: LiteralString, values: Mapping[str, Any]) -> Receipt:
        failpoint(f"ledger.{verb}.before-commit")
        receipt = _receipt(await self._call(statement, values))
        failpoint(f"ledger.{verb}.after-commit")
        return receipt

    async def _dry_run(self, _: str, statement: LiteralString, values: Mapping[str, Any]) -> Receipt:
        async with self._statements.connection() as connection:
            with _nets():
                async with connection.transaction(force_rollback=True):
                    (answer,) = await (await connection.execute(statement, values)).fetchall()
        raise_refusal(answer[0], answer[1])
        return _receipt(answer)

    async def _call(self, statement: LiteralString, values: Mapping[str, Any]) -> Any:
        with _nets():
            (row,) = await self._statements.rows(statement, values)
        raise_refusal(row[0], row[1])
        return row


@contextmanager
def _nets() -> Iterator[None]:
    """The nets below the functions' own checks: a table's floor, and the largest amount a balance can hold."""
    try:
        yield
    except psycopg.errors.CheckViolation as error:
        if error.diag.table_name == "balance":
            raise InsufficientFunds("the floor of an account") from error
        raise
    except psycopg.errors.NumericValueOutOfRange as error:
        raise AmountNotAllowed("a balance would exceed what it can hold") from error


def _outcome(answer: Any) -> Receipt | LedgerRefused:
    return _receipt(answer) if answer[0] is None else REFUSALS[answer[0]](answer[1] or "")


def _receipt(answer: Any) -> Receipt:
    _, _, transaction, booked_at, replayed = answer
    return Receipt(transaction, booked_at, replayed)


def raise_refusal(refusal: str | None, detail: str | None) -> None:
    """Raise the typed refusal that a function of the book answered, if it did."""
    if refusal is not None:
        raise REFUSALS[refusal](detail or "")


def _checked(operation: str) -> str:
    if not _OPERATION.fullmatch(operation) or operation.startswith("expire:"):
        raise ValueError("an operation id is 1 to 200 printable ASCII characters and does not begin with 'expire:'")
    return operation


def _checked_lifetime(lifetime: timedelta | None) -> timedelta | None:
    if lifetime is not None and not timedelta(0) < lifetime <= MAX_HOLD:
        raise ValueError(f"a lifetime lies between nothing and {MAX_HOLD.days} days")
    return lifetime


def _conditions(conditions: Sequence[Condition]) -> dict[str, list[Any] | None]:
    if not conditions:
        return {"if_accounts": None, "if_assets": None, "if_available": None, "if_versions": None}
    least = [one.available_at_least for one in conditions]
    return {
        "if_accounts": [str(one.account) for one in conditions],
        "if_assets": [asset_of(one.currency) for one in conditions],
        "if_available": [None if amount is None else amount.minor for amount in least],
        "if_versions": [one.version for one in conditions],
    }


def _checked_post(post: Post) -> Post:
    _checked(post.operation)
    _positive(post.leg.amount)
    _with_zone(post.effective_at)
    return post


def _with_zone(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise ValueError("effective_at needs a time zone")
    return moment


def _positive(amount: Money) -> None:
    if not 0 < amount.minor <= MAX_MINOR:
        raise ValueError("an amount to book is greater than zero")
