"""The chain of hashes: whoever changes, removes or slips in a row behind the hub's back is found out.

Transactions are sealed in the background, in blocks; a booking waits for nothing. A block names its members, because
identity order is not commit order: a number that was drawn early and committed late belongs to a later block. Sealer
and verifier share `block_hash` and the one query that reads what is hashed.

Removing the last blocks and sealing anew cannot be seen from inside the database. Each seal is therefore logged with
its hash, and `payhub ledger verify` prints the last one: kept elsewhere, it proves everything up to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Counter
from psycopg import AsyncConnection, sql
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from hub.failpoint import failpoint
from hub.statements import Statements
from hub.telemetry import logger

GENESIS: Final = bytes(32)
"""What the first block names as its predecessor."""

BLOCK: Final = 1000
"""Transactions per block at most."""

_LATE: Final = 100_000
# Numbers below the newest among which a sealer goes on looking for late ones: many times what is booked while a booking
# lasts. Numbers that nobody used (refused and tried-out bookings) would otherwise be looked at for ever. A sealer that
# starts looks at all of them once, and the verifier names a transaction that escaped all the same.

_SEALED_TABLES: Final = ("txn", "posting", "hold")
_ONE_SEALER: Final = 7203

Value = str | None
Line = tuple[int, Sequence[Value], Sequence[Sequence[Value]], Sequence[Value] | None]
"""A transaction as it is hashed: its number, its row, its postings by leg, and its hold; every value as text."""

_sealed = Counter("payhub_ledger_sealed_transactions", "Transactions sealed into the chain of hashes.")

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Block:
    """A row of `ledger.chain_block`."""

    seq: int
    members: Multirange[int]
    contents: Sequence[str]
    prev_hash: bytes
    hash: bytes
    sealed_at: str

    @property
    def span(self) -> str:
        return f"block {self.seq} (transactions {self.members[0].lower} to {(self.members[-1].upper or 0) - 1})"


def block_hash(seq: int, prev_hash: bytes, sealed_at: str, contents: Sequence[str], lines: Iterable[Line]) -> bytes:
    """SHA-256 over a block. Each value is preceded by its length: two different blocks never give the same bytes."""
    digest = hashlib.sha256()
    digest.update(_listed(["payhub ledger chain 1", str(seq), prev_hash.hex(), sealed_at]))
    digest.update(_listed(contents))
    for _, transaction, postings, hold in lines:
        digest.update(_listed(transaction))
        digest.update(b"%d;" % len(postings))
        for posting in postings:
            digest.update(_listed(posting))
        digest.update(b"-" if hold is None else _listed(hold))
    return digest.digest()


def _listed(values: Sequence[Value]) -> bytes:
    parts = [b"%d[" % len(values)]
    for value in values:
        if value is None:
            parts.append(b"-")
        else:
            encoded = value.encode()
            parts.append(b"%d:%b" % (len(encoded), encoded))
    parts.append(b"]")
    return b"".join(parts)


async def columns(connection: AsyncConnection[Any]) -> list[str]:
    """Every column of the sealed tables as they are now, as in `txn.id`."""
    cursor = await connection.execute(
        "SELECT c.table_name || '.' || c.column_name FROM information_schema.columns c "
        "WHERE c.table_schema = 'ledger' AND c.table_name = ANY (%s) "
        "ORDER BY array_position(%s::text[], c.table_name::text), c.ordinal_position",
        [list(_SEALED_TABLES), list(_SEALED_TABLES)],
    )
    return [row[0] for row in await cursor.fetchall()]


async def as_text(connection: AsyncConnection[Any]) -> None:
    """Let values turn to text in one way for the rest of the transaction, whatever the server prefers."""
    await connection.execute(
        "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true), "
        "set_config('IntervalStyle', 'postgres', true), set_config('bytea_output', 'hex', true)"
    )


async def lines(connection: AsyncConnection[Any], members: Multirange[int], contents: Sequence[str]) -> list[Line]:
    """What is there of these transactions, in order of their numbers. Call `as_text` before."""
    by_table: Mapping[str, list[str]] = {
        table: [name.partition(".")[2] for name in contents if name.partition(".")[0] == table]
        for table in _SEALED_TABLES
    }

    def row(table: str, alias: str) -> sql.Composed:
        cells = (sql.SQL("{}::text").format(sql.Identifier(alias, name)) for name in by_table[table])
        return sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(cells))

    query = sql.SQL(
        "SELECT t.id, {txn}, "
        "coalesce((SELECT array_agg({posting} ORDER BY p.leg) FROM ledger.posting p WHERE p.txn_id = t.id), '{{}}'), "
        "(SELECT {hold} FROM ledger.hold h WHERE h.id = t.id) "
        "FROM ledger.txn t WHERE t.id = ANY (%s) ORDER BY t.id"
    ).format(txn=row("txn", "t"), posting=row("posting", "p"), hold=row("hold", "h"))
    numbers = [number for part in members for number in range(part.lower or 0, part.upper or 0)]
    cursor = await connection.execute(query, [numbers])
    return [(row[0], row[1], row[2], row[3]) for row in await cursor.fetchall()]


def ranged(ids: Iterable[int]) -> Multirange[int]:
    """Ascending numbers as the ranges they form."""

    def runs() -> Iterator[Range[int]]:
        first = last = None
        for number in ids:
            if last is not None and number == last + 1:
                last = number
                continue
            if first is not None and last is not None:
                yield Range(first, last + 1)
            first = last = number
        if first is not None and last is not None:
            yield Range(first, last + 1)

    return Multirange(list(runs()))


_LAST: Final = "SELECT seq, hash FROM ledger.chain_block ORDER BY seq DESC LIMIT 1"
_COVERED: Final = (
    "SELECT (SELECT coalesce(range_agg(b.members), '{}') FROM ledger.chain_block b WHERE b.seq > %(known)s) "
    "+ %(covered)s::int8multirange"
)
_WITHOUT_OLD_GAPS: Final = (
    "SELECT %(covered)s::int8multirange "
    "+ int8multirange(int8range(1, greatest(1, coalesce(upper(%(covered)s::int8multirange), 1) - %(late)s::bigint)))"
)
# First what came late into the gaps, then what is new.
_UNSEALED: Final = (
    "SELECT t.id FROM unnest(int8multirange(int8range(1, coalesce(upper(%(covered)s::int8multirange), 1))) "
    "- %(covered)s::int8multirange) g CROSS JOIN LATERAL (SELECT t.id FROM ledger.txn t "
    "WHERE t.id >= lower(g) AND t.id < upper(g) ORDER BY t.id LIMIT %(limit)s) t "
    "UNION ALL (SELECT t.id FROM ledger.txn t WHERE t.id >= coalesce(upper(%(covered)s::int8multirange), 1) "
    "ORDER BY t.id LIMIT %(limit)s) ORDER BY 1 LIMIT %(limit)s"
)
_SEAL: Final = (
    "INSERT INTO ledger.chain_block (seq, from_txn, to_txn, members, contents, prev_hash, hash, sealed_at) "
    "VALUES (%(seq)s, %(first)s, %(last)s, %(members)s, %(contents)s, %(prev_hash)s, %(hash)s, %(sealed_at)s)"
)


class Sealer:
    """Seals what was booked. Any number of them may run; one at a time does something."""

    def __init__(self, statements: Statements, block: int = BLOCK) -> None:
        self._statements = statements
        self._block = block
        self._known, self._covered = 0, Multirange[int]()

    async def seal(self) -> int:
        """Seal one block and tell how many transactions it holds; 0 when there is nothing to do or another one seals.

        Raises `Unavailable`. A block is one transaction: dying half-way leaves nothing, and the next seals the same.
        """
        known, covered = self._known, self._covered
        self._known, self._covered = 0, Multirange[int]()  # unless this succeeds: the database may come back as before
        async with self._statements.connection() as connection, connection.transaction():
            if not await _one(connection, "SELECT pg_try_advisory_xact_lock(%(lock)s)", {"lock": _ONE_SEALER}):
                return 0
            await as_text(connection)
            found = await (await connection.execute(_LAST)).fetchone()
            seq, prev_hash = (0, GENESIS) if found is None else (found[0], bytes(found[1]))
            covered = await _one(connection, _COVERED, {"known": known, "covered": covered})
            cursor = await connection.execute(_UNSEALED, {"covered": covered, "limit": self._block})
            ids = [row[0] for row in await cursor.fetchall()]
            if len(ids) < self._block:
                covered = await _one(connection, _WITHOUT_OLD_GAPS, {"covered": covered, "late": _LATE})
            sealed = await self._write(connection, seq + 1, prev_hash, ranged(ids)) if ids else 0
        self._known, self._covered = seq, covered
        _sealed.inc(sealed)
        return sealed

    async def _write(
        self, connection: AsyncConnection[Any], seq: int, prev_hash: bytes, members: Multirange[int]
    ) -> int:
        contents = await columns(connection)
        sealed_at = await _one(connection, "SELECT clock_timestamp()::text", {})
        found = await lines(connection, members, contents)
        digest = block_hash(seq, prev_hash, sealed_at, contents, found)
        values = {
            "seq": seq,
            "first": found[0][0],
            "last": found[-1][0],
            "members": members,
            "contents": contents,
            "prev_hash": prev_hash,
            "hash": digest,
            "sealed_at": sealed_at,
        }
        await connection.execute(_SEAL, values)
        failpoint("ledger.seal.before-commit")
        log.info("chain.sealed", block=seq, transactions=len(found), hash=digest.hex())
        return len(found)


async def _one(connection: AsyncConnection[Any], statement: Any, values: Mapping[str, Any]) -> Any:
    row = await (await connection.execute(statement, values)).fetchone()
    return None if row is None else row[0]


# --- Verifying ----------------------------------------------------------------------------------------------------

_BLOCKS: Final = (
    "SELECT seq, members, contents, prev_hash, hash, sealed_at::text FROM ledger.chain_block "
    "WHERE seq > %s ORDER BY seq LIMIT 50"
)


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a walk along the chain found; `broken` names the blocks that do not agree, in order."""

    blocks: int
    broken: Sequence[str]
    head: str | None
    """Number and hash of the last block, as in `12:9f86d0...`."""


async def walk(connection: AsyncConnection[Any]) -> ChainReport:
    """Compute every block again, inside the caller's transaction."""
    await as_text(connection)
    there = set(await columns(connection))
    broken: list[str] = []
    seq, hash_before = 0, GENESIS
    while True:
        rows = await (await connection.execute(_BLOCKS, [seq])).fetchall()
        if not rows:
            return ChainReport(seq, broken, f"{seq}:{hash_before.hex()}" if seq else None)
        for row in rows:
            block = Block(row[0], row[1], row[2], bytes(row[3]), bytes(row[4]), row[5])
            problem = await _problem(connection, block, seq, hash_before, there)
            if problem is not None:
                broken.append(f"{block.span}: {problem}")
            seq, hash_before = block.seq, block.hash


async def _problem(
    connection: AsyncConnection[Any], block: Block, seq_before: int, hash_before: bytes, there: set[str]
) -> str | None:
    if block.seq != seq_before + 1:
        return f"block {seq_before + 1} is missing before it"
    if block.prev_hash != hash_before:
        return "it does not follow from the block before it"
    if not there.issuperset(block.contents):
        return f"it was sealed over {min(set(block.contents) - there)}, which is gone"
    found = await lines(connection, block.members, block.contents)
    expected = sum((part.upper or 0) - (part.lower or 0) for part in block.members)
    if len(found) != expected:
        missing = _first_missing(block.members, found)
        return f"it seals {expected} transactions, of which {len(found)} are there{missing}"
    if block_hash(block.seq, block.prev_hash, block.sealed_at, block.contents, found) != block.hash:
        return "what it seals is not what was sealed"
    return None


def _first_missing(members: Multirange[int], found: Sequence[Line]) -> str:
    there = {line[0] for line in found}
    for part in members:
        for number in range(part.lower or 0, part.upper or 0):
            if number not in there:
                return f", the first missing is {number}"
    return ""
