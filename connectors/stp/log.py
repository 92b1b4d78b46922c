"""The inbox as an operator reads it: everything STP posted, whose it is, and how it matched what we knew.

A row of the inbox names no tenant: its order or its deposit does. What matches neither is shown to the tenants that
send orders under the company it names; what names none is left to `payhub stp inbox`, which shows every tenant's.

Whatever is here passed the checks of `connectors.stp.authentication`: nothing is read of a post that does not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, LiteralString

from connectors.stp.callbacks import Callbacks
from connectors.stp.deposit_store import deposit_id
from connectors.stp.deposits import DEPOSIT, Deposits
from connectors.stp.model import OrderState
from connectors.stp.orders import CallbackResult
from connectors.stp.wire import MalformedCallback, read_deposit, read_status
from hub.statements import Statements
from hub.transfer import PaymentId, TenantId

AT_ONCE: Final = 200
"""Rows of the inbox that are looked at together."""

MOST_LOOKED_AT: Final = 5_000
"""Rows that one question looks at before it answers with what it has, and with where to go on."""

_COMPANY_KNOWN_FOR: Final = 60.0  # seconds

_ROWS: Final[LiteralString] = """
    SELECT c.id, c.kind, c.body, c.times, c.received_at, c.last_received_at, c.handled_at, c.result, c.payment_id,
           o.tenant_id, o.tracking_key, o.state
      FROM stp.callback c LEFT JOIN stp.stp_order o ON o.payment_id = c.payment_id
     WHERE c.id < %(before)s
       AND (CAST(%(kind)s AS text) IS NULL OR c.kind = %(kind)s)
       AND (CAST(%(results)s AS text[]) IS NULL OR coalesce(c.result, '') = ANY (%(results)s))
       AND (CAST(%(since)s AS timestamptz) IS NULL OR c.received_at >= %(since)s)
       AND (CAST(%(until)s AS timestamptz) IS NULL OR c.received_at < %(until)s)
       AND (c.payment_id IS NULL OR o.tenant_id = %(tenant)s)
       AND (CAST(%(ids)s AS bigint[]) IS NULL OR c.id = ANY (%(ids)s))
     ORDER BY c.id DESC LIMIT %(limit)s
    """
_OF_PAYMENT: Final = """
    SELECT c.id FROM stp.callback c WHERE c.payment_id = %(payment_id)s
    UNION SELECT d.callback_id FROM stp.deposit d WHERE d.payment_id = %(payment_id)s
    """
_OF_KEY: Final = """
    SELECT c.id FROM stp.stp_order o JOIN stp.callback c ON c.payment_id = o.payment_id WHERE o.tracking_key = %(key)s
    UNION SELECT d.callback_id FROM stp.deposit d WHERE d.tracking_key = %(key)s
    """
_DEPOSITS: Final = """
    SELECT payment_id, tenant_id, decision, answer FROM stp.deposit WHERE payment_id = ANY (CAST(%(ids)s AS text[]))
    """
_SEEN: Final = """
    SELECT payment_id, state, min(observed_at) FROM stp.observation
     WHERE payment_id = ANY (CAST(%(ids)s AS text[])) AND state IS NOT NULL GROUP BY payment_id, state
    """
_SENDS_UNDER: Final = """
    SELECT EXISTS (SELECT FROM stp.stp_order WHERE company = %(company)s AND tenant_id = %(tenant)s)
    """


class Match(StrEnum):
    """How a post matched what we knew."""

    FOUND = "found"
    UNKNOWN = "unknown"
    """No order and no deposit of ours."""
    DUPLICATE = "duplicate"
    """It says what was known already."""
    OUT_OF_ORDER = "out-of-order"
    """It says what the order's state had overtaken."""
    UNREADABLE = "unreadable"
    WAITING = "waiting"
    """Not handled yet."""


_RESULTS: Final[Mapping[Match, Sequence[str]]] = {
    Match.FOUND: ("moved", "taken", "refused", "conflict", "unknown-status", "failed"),
    Match.UNKNOWN: ("unknown-order",),
    Match.DUPLICATE: ("unchanged",),
    Match.OUT_OF_ORDER: ("unchanged",),
    Match.UNREADABLE: ("malformed",),
    Match.WAITING: ("",),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What of a tenant's inbox is asked for; newest first, numbers below `before`."""

    tenant: TenantId
    kind: str | None = None
    result: CallbackResult | None = None
    match: Match | None = None
    payment_id: str | None = None
    tracking_key: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class LoggedCallback:
    """One post, however often STP repeated it."""

    id: int
    kind: str
    body: bytes
    times: int
    received_at: datetime
    last_received_at: datetime
    handled_at: datetime | None
    result: CallbackResult | None
    match: Match
    payment_id: PaymentId | None
    tracking_key: str | None
    state: str | None
    """What the order's state is now, or what was decided of the deposit."""
    answer: str | None
    """What STP is answered to a deposit."""

    def __repr__(self) -> str:
        return f"LoggedCallback({self.id}, {self.kind}, {self.result})"


@dataclass(frozen=True, slots=True)
class Read:
    """What the body says of itself."""

    key: str | None = None
    company: str | None = None
    state: OrderState | None = None
    deposit: PaymentId | None = None


class CallbackLog:
    """Reads the inbox for one tenant at a time. Raises `Unavailable`."""

    def __init__(self, database: Statements) -> None:
        self._database = database
        self._companies: dict[tuple[str, str], tuple[float, bool]] = {}

    async def find(self, tenant: TenantId, callback_id: int) -> LoggedCallback | None:
        """One post of this tenant's."""
        found, _ = await self._look(Question(tenant, before=callback_id + 1), 1, [callback_id])
        return found[0] if found else None

    async def look(self, question: Question, limit: int) -> tuple[Sequence[LoggedCallback], int | None]:
        """Up to `limit` posts, and the number to read on below when there may be more."""
        return await self._look(question, limit, await self._ids(question))

    async def _ids(self, question: Question) -> list[int] | None:
        """The numbers that a payment or a tracking key leaves to choose from."""
        chosen: set[int] | None = None
        if question.payment_id is not None:
            rows = await self._database.rows(_OF_PAYMENT, {"payment_id": question.payment_id})
            chosen = {row[0] for row in rows}
        if question.tracking_key is not None:
            rows = await self._database.rows(_OF_KEY, {"key": question.tracking_key})
            chosen = {row[0] for row in rows} if chosen is None else chosen & {row[0] for row in rows}
        return None if chosen is None else sorted(chosen)

    async def _look(
        self, question: Question, limit: int, ids: Sequence[int] | None
    ) -> tuple[Sequence[LoggedCallback], int | None]:
        before = 2**63 - 1 if question.before is None else question.before
        found: list[LoggedCallback] = []
        for _ in range(MOST_LOOKED_AT // AT_ONCE):
            rows = await self._database.rows(_ROWS, _given(question, before, ids))
            for one in await self._known(question.tenant, rows):
                if question.match is None or one.match is question.match:
                    found.append(one)
                if len(found) == limit:
                    return found, found[-1].id if found[-1].id > 1 else None
            if len(rows) < AT_ONCE:
                return found, None
            before = rows[-1][0]
        return found, before

    async def _known(self, tenant: TenantId, rows: Sequence[Any]) -> Iterator[LoggedCallback]:
        """Those rows that are this tenant's."""
        said = [_read(row[1], bytes(row[2])) for row in rows]
        deposits = await self._deposits([one.deposit for one in said if one.deposit is not None])
        seen = await self._seen({row[8] for row in rows if row[7] == CallbackResult.UNCHANGED and row[8]})
        known = []
        for row, read in zip(rows, said, strict=True):
            deposit = deposits.get(read.deposit) if read.deposit else None
            owner = row[9] if deposit is None else deposit[1]
            if owner is None and (read.company is None or not await self._sends_under(tenant, read.company)):
                continue
            if owner is not None and owner != tenant:
                continue
            known.append(_logged(row, read, deposit, seen.get(row[8], ())))
        return iter(known)

    async def _deposits(self, ids: Sequence[PaymentId]) -> Mapping[PaymentId, Any]:
        if not ids:
            return {}
        return {row[0]: row for row in await self._database.rows(_DEPOSITS, {"ids": list(ids)})}

    async def _seen(self, ids: set[str]) -> Mapping[str, Sequence[tuple[OrderState, datetime]]]:
        """Which states these orders came to be known in, and when first."""
        found: dict[str, list[tuple[OrderState, datetime]]] = {}
        if ids:
            for payment_id, state, at in await self._database.rows(_SEEN, {"ids": sorted(ids)}):
                found.setdefault(payment_id, []).append((OrderState(state), at))
        return found

    async def _sends_under(self, tenant: TenantId, company: str) -> bool:
        """Whether this tenant has orders under this company; remembered for a minute."""
        now = time.monotonic()
        at, answer = self._companies.get((tenant, company), (0.0, False))
        if not at or now - at > _COMPANY_KNOWN_FOR:
            given = {"tenant": tenant, "company": company}
            answer = bool((await self._database.rows(_SENDS_UNDER, given))[0][0])
            self._companies[tenant, company] = (now, answer)
        return answer


def _given(question: Question, before: int, ids: Sequence[int] | None) -> dict[str, Any]:
    results: Sequence[str] | None = None if question.match is None else _RESULTS[question.match]
    if question.result is not None:
        results = [question.result] if results is None or question.result in results else []
    return {
        "tenant": question.tenant,
        "kind": question.kind,
        "results": None if results is None else list(results),
        "since": question.since,
        "until": question.until,
        "before": before,
        "ids": None if ids is None else list(ids),
        "limit": AT_ONCE,
    }


def _read(kind: str, body: bytes) -> Read:
    try:
        if kind == DEPOSIT:
            deposit = read_deposit(body)
            return Read(deposit.key, deposit.company, None, deposit_id(deposit))
        status = read_status(body)
        return Read(status.key, status.company, status.state)
    except MalformedCallback:
        return Read()


def _logged(
    row: Sequence[Any], read: Read, deposit: Sequence[Any] | None, seen: Sequence[tuple[OrderState, datetime]]
) -> LoggedCallback:
    callback_id, kind, body, times, received_at, last_received_at, handled_at, result, payment_id = row[:9]
    tracking_key, state = row[10:12]
    outcome = CallbackResult(result) if result else None
    if deposit is not None:
        payment_id, state = deposit[0], deposit[2]
    return LoggedCallback(
        id=callback_id,
        kind=kind,
        body=bytes(body),
        times=times,
        received_at=received_at,
        last_received_at=last_received_at,
        handled_at=handled_at,
        result=outcome,
        match=_match(outcome, read.state, [known for known, at in seen if at < received_at]),
        payment_id=payment_id,
        tracking_key=tracking_key or read.key,
        state=state,
        answer=None if deposit is None else deposit[3],
    )


def _match(result: CallbackResult | None, said: OrderState | None, known: Sequence[OrderState]) -> Match:
    """`known`: the states that the order was known to have come to when this arrived."""
    if result is None:
        return Match.WAITING
    if result is CallbackResult.UNCHANGED:
        overtaken = said is not None and any(said in OrderState.before(state) for state in known)
        return Match.OUT_OF_ORDER if overtaken else Match.DUPLICATE
    if result is CallbackResult.UNKNOWN_ORDER:
        return Match.UNKNOWN
    return Match.UNREADABLE if result is CallbackResult.MALFORMED else Match.FOUND


class Reprocessing:
    """Handles a stored post once more, just as when it came. What it had done already is not done again."""

    def __init__(self, callbacks: Callbacks, deposits: Deposits) -> None:
        self._callbacks = callbacks
        self._deposits = deposits

    async def again(self, callback: LoggedCallback) -> None:
        """Raises `Unavailable` when the database or the engine is away; trying again is safe."""
        if callback.kind == DEPOSIT:
            await self._deposits.again(callback.id, callback.body)
            return
        known = callback.result is CallbackResult.UNKNOWN_ORDER
        await self._callbacks.handle(callback.id, callback.body, known=known)
        async with asyncio.timeout(5):
            await self._callbacks.mark()
