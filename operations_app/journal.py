"""The operator log: everything an operator asked for, was refused, decided or saw, chained by hashes.

    await journal.append(Act(tenant_id=..., actor=..., action="pii.reveal", target="transfer:...", ...), connection)

Each row holds the SHA-256 of the row before it and of its own canonical JSON. A number is drawn under a lock that the
one appending statement takes and that is kept until the commit, so numbers have no gaps and commit order is their
order: whoever reads up to a number has read all of it. Append last in a transaction: until it ends, no other operator's
act is written. Who waits for the lock gets it in the order in which they came.

What is kept here can never be erased, so personal data does not get in: `before`, `after` and `reason` are masked on
the way. The same masked words are what is hashed, so that whoever has only the mirror in Kafka can verify it too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

import structlog
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from exporters.privacy import mask, mask_text
from hub.api import Caller
from hub.failpoint import failpoint
from hub.statements import Statements

GENESIS: Final = bytes(32)
"""What the first row names as the hash before it."""

CHECKPOINT: Final = "log.checkpoint"
"""The act by which the hub writes down how the log stands."""

_LOCK: Final = "SELECT pg_advisory_xact_lock(7206)"
_HEAD: Final = (
    "SELECT clock_timestamp(), l.seq, l.hash FROM (SELECT 1) one "
    "LEFT JOIN LATERAL (SELECT seq, hash FROM operations.act ORDER BY seq DESC LIMIT 1) l ON true"
)
_APPEND: Final = (
    "SELECT operations.append_act(%(until_at)s, %(until_seq)s, %(rest)s, %(tenant_id)s, %(actor)s, %(roles)s, "
    "%(action)s, %(target)s, %(payment_id)s, %(reason_code)s, %(reason)s, %(before)s, %(after)s, %(request_id)s, "
    "%(outcome)s)"
)
COLUMNS: Final = (
    "seq, at, tenant_id, actor, roles, action, target, payment_id, reason_code, reason, before, after, request_id, "
    "outcome, prev_hash, hash"
)
_NEWEST_CHECKPOINT: Final = "SELECT max(at) FROM operations.act WHERE action = 'log.checkpoint'"
_AFTER: Final[LiteralString] = f"SELECT {COLUMNS} FROM operations.act WHERE seq > %(seq)s ORDER BY seq LIMIT %(limit)s"  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that somebody did, tried to do, or was shown.

    `before` and `after` are JSON without fractions: money in minor units, engine keys as integers (a text of so many
    digits looks like an account number, and is masked).
    """

    tenant_id: str | None
    """Nothing for what the hub itself writes."""
    actor: str
    """The token's subject."""
    roles: Iterable[str]
    action: str
    """What was done, as in `pii.reveal`, `action.approve`, `bulk.suspend`."""
    target: str
    """To what, as in `transfer:<id>`, `bulk:<id>`, `callback:<id>`."""
    outcome: str
    """`done`, `refused`, or the state it came to."""
    payment_id: str | None = None
    reason_code: str | None = None
    reason: str | None = None
    before: Any = None
    after: Any = None
    request_id: str | None = None

    @classmethod
    def by(cls, caller: Caller, **what: Any) -> Act:
        """An act of whoever sent the request that is being answered."""
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        return cls(tenant_id=caller.tenant, actor=caller.subject, roles=caller.roles, request_id=request_id, **what)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the log."""

    seq: int
    at: datetime
    tenant_id: str | None
    actor: str
    roles: Sequence[str]
    action: str
    target: str
    payment_id: str | None
    reason_code: str | None
    reason: str | None
    before: Any
    after: Any
    request_id: str | None
    outcome: str
    prev_hash: bytes
    hash: bytes

    @classmethod
    def of(cls, row: Sequence[Any]) -> Entry:
        """A row whose columns are `COLUMNS`."""
        return cls(*row)

    def content(self) -> dict[str, Any]:
        """What is hashed beside the hash before, by the names of the mirror."""
        return {
            "seq": self.seq,
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "tenantId": self.tenant_id,
            "actor": self.actor,
            "roles": list(self.roles),
            "action": self.action,
            "target": self.target,
            "paymentId": self.payment_id,
            "reasonCode": self.reason_code,
            "reason": self.reason,
            "before": self.before,
            "after": self.after,
            "requestId": self.request_id,
            "outcome": self.outcome,
        }

    def expected_hash(self) -> bytes:
        """The hash that this row must have."""
        return entry_hash(self.prev_hash, self.content())

    def record(self) -> dict[str, Any]:
        """The row as it is told to Kafka: whoever has all of them can verify the chain without the database."""
        return self.content() | {"prevHash": self.prev_hash.hex(), "hash": self.hash.hex()}


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON in one form only: keys in order, no blanks, UTF-8."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def entry_hash(prev_hash: bytes, content: Mapping[str, Any]) -> bytes:
    """SHA-256 over the hash before, always 32 bytes, and the canonical JSON."""
    return hashlib.sha256(prev_hash + canonical(content)).digest()


def signature(secret: bytes, seq: int, digest: str) -> str:
    """What proves that we wrote this checkpoint: HMAC-SHA256 over the row's number and hash."""
    return hmac.new(secret, f"{seq}:{digest}".encode(), hashlib.sha256).hexdigest()


@dataclass(slots=True)
class Journal:
    """Appends to the log and reads it."""

    database: Statements = field(repr=False)

    async def append(self, act: Act, connection: AsyncConnection[Any] | None = None) -> int:
        """Write one act and return its number. Raises `Unavailable`, and `ValueError` for what is no such JSON.

        With a connection the row belongs to the caller's transaction, which must be READ COMMITTED; without one it is
        committed on return.
        """
        values = _values(act)
        if connection is not None:
            return await _append(connection, values)
        async with self.database.connection() as own, own.transaction():
            return await _append(own, values)

    async def checkpoint(self, older_than: timedelta, secret: bytes | None) -> int | None:
        """Write down, as an act of the hub itself, how the log stands, unless that was done less than this ago.

        `secret`: signs it, so that a log that was made anew from its first row on cannot pass for this one.
        """
        async with self.database.connection() as own, own.transaction():
            await own.execute(_LOCK)
            ((now, seq, digest),) = await (await own.execute(_HEAD)).fetchall()
            ((newest,),) = await (await own.execute(_NEWEST_CHECKPOINT)).fetchall()
            if seq is None or (newest is not None and now - newest < older_than):
                return None
            stands: dict[str, Any] = {"seq": seq, "hash": digest.hex()}
            if secret is not None:
                stands["signature"] = signature(secret, seq, digest.hex())
            act = Act(tenant_id=None, actor="payhub", roles=(), action=CHECKPOINT, target="log", outcome="done")
            return await _append(own, _values(act) | {"after": stands})

    async def after(self, seq: int, limit: int = 500) -> list[Entry]:
        """The rows that follow this number, in order."""
        async with self.database.connection() as connection:
            return await entries_after(connection, seq, limit)


async def entries_after(connection: AsyncConnection[Any], seq: int, limit: int) -> list[Entry]:
    """The rows that follow this number, in order, on a connection of the caller's."""
    cursor = await connection.execute(_AFTER, {"seq": seq, "limit": limit})
    return [Entry.of(row) for row in await cursor.fetchall()]


_JSON: Final = ("before", "after")
_NO_INSTANT: Final = datetime.fromtimestamp(0, UTC)


async def _append(connection: AsyncConnection[Any], values: Mapping[str, Any]) -> int:
    """One statement, so that the others wait for it and the commit, and for nothing that happens over here."""
    stored = {**values, **{name: None if values[name] is None else Jsonb(values[name]) for name in _JSON}}
    ((seq,),) = await (await connection.execute(_APPEND, stored | _pieces(values))).fetchall()
    failpoint("operations.journal.before-commit")
    return int(seq)


def _pieces(values: Mapping[str, Any]) -> dict[str, str]:
    """The row's canonical JSON without its instant and its number, which the database puts between these."""
    entry = Entry(seq=0, at=_NO_INSTANT, prev_hash=b"", hash=b"", **values)
    content = sorted(entry.content().items())
    names = [name for name, _ in content]
    at, seq = names.index("at"), names.index("seq")
    before, between, after = (
        canonical(dict(part)).decode()[1:-1] for part in (content[:at], content[at + 1 : seq], content[seq + 1 :])
    )
    return {"until_at": f'{{{before},"at":"', "until_seq": f'",{between},"seq":', "rest": f",{after}}}"}


def _values(act: Act) -> dict[str, Any]:
    return {
        "tenant_id": _text(act.tenant_id),
        "actor": _text(act.actor),
        "roles": sorted(str(_text(role)) for role in act.roles),
        "action": _text(act.action),
        "target": _text(act.target),
        "payment_id": _text(act.payment_id),
        "reason_code": _text(act.reason_code),
        "reason": None if act.reason is None else mask_text(str(_text(act.reason))),
        "before": _plain(mask(_plain(act.before))),
        "after": _plain(mask(_plain(act.after))),
        "request_id": _text(act.request_id),
        "outcome": _text(act.outcome),
    }


def _text(value: str | None) -> str | None:
    """Text that PostgreSQL keeps as it is: it has no room for NUL, nor UTF-8 for half a surrogate pair."""
    return None if value is None else value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _plain(value: Any) -> Any:
    """JSON that reads back from the database exactly as it was written. Raises `ValueError` for a fraction."""
    if isinstance(value, Mapping):
        return {str(_text(str(name))): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [_plain(inner) for inner in items]
    if isinstance(value, float):
        raise ValueError("the operator log keeps no fractions: money is whole minor units")  # noqa: TRY004
    if value is None or isinstance(value, (bool, int)):
        return value
    return _text(str(value))
