"""The operator log, proved: every hash computed again, and compared with what is kept elsewhere.

What each comparison can find:
- the chain alone: a row that was changed, removed from the middle, slipped in or swapped;
- the signatures of checkpoints: a log that somebody without the secret made anew from some row on;
- the mirror in Kafka, or a head noted down earlier: rows cut off at the end, and everything above.
What none can: rows that were cut off before they were told to Kafka (seconds, normally), or by somebody who also
rewrites Kafka; acts that were never written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from psycopg import IsolationLevel

from hub.statements import open_statements
from operations_app.journal import CHECKPOINT, GENESIS, Entry, entries_after, signature

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the log from outside the database."""

    secret: bytes | None = None
    """What checkpoints are signed with."""
    mirror: Mapping[int, str] | None = None
    """Hashes by number, as Kafka has them."""
    head: tuple[int, str] | None = None
    """Number and hash of a row, noted down earlier."""


@dataclass(slots=True)
class LogReport:
    """What the walk along the log found; `broken` names the rows that do not agree, in order."""

    rows: int = 0
    broken: list[str] = field(default_factory=list)
    head: str | None = None
    """Number and hash of the last row, as in `12:9f86d0...`. Kept elsewhere, it proves everything up to it."""
    checkpoints: int = 0
    newest_checkpoint: datetime | None = None
    signatures_checked: bool = False
    mirrored: int | None = None
    """How many rows were compared with Kafka; nothing when they were not."""

    @property
    def sound(self) -> bool:
        return not self.broken

    def as_json(self) -> dict[str, Any]:
        return {
            "sound": self.sound,
            "rows": self.rows,
            "first_broken": self.broken[0] if self.broken else None,
            "broken": self.broken,
            "head": self.head,
            "checkpoints": self.checkpoints,
            "newest_checkpoint": self.newest_checkpoint.isoformat() if self.newest_checkpoint else None,
            "signatures_checked": self.signatures_checked,
            "mirrored": self.mirrored,
        }

    def __str__(self) -> str:
        compared = "not compared with Kafka" if self.mirrored is None else f"{self.mirrored} compared with Kafka"
        signed = "signatures checked" if self.signatures_checked else "signatures not checked"
        lines = [f"{self.rows} rows, {compared}; {self.checkpoints} checkpoints, {signed}"]
        if self.head is not None:
            lines.append(f"head    {self.head}")
        lines += [f"BROKEN  {one}" for one in self.broken[:20]]
        verdict = "The operator log is sound." if self.sound else f"The operator log is NOT sound: {self.broken[0]}."
        return "\n".join([*lines, verdict])


class _Walk:
    """One pass over the rows, in order."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._before = GENESIS
        self._hashes: dict[int, str] = {}
        self.report = LogReport(signatures_checked=evidence.secret is not None)

    def look(self, entry: Entry) -> None:
        report = self.report
        problem = self._problem(entry)
        if problem is not None:
            report.broken.append(f"row {entry.seq}: {problem}")
        report.rows, self._before = report.rows + 1, entry.hash
        self._last = entry.seq
        report.head = f"{entry.seq}:{entry.hash.hex()}"
        self._hashes[entry.seq] = entry.hash.hex()
        if entry.action == CHECKPOINT and entry.tenant_id is None:
            report.checkpoints, report.newest_checkpoint = report.checkpoints + 1, entry.at

    _last = 0

    def _problem(self, entry: Entry) -> str | None:
        if entry.seq != self._last + 1:
            return f"row {self._last + 1} is missing before it"
        if entry.prev_hash != self._before:
            return "it does not follow from the row before it"
        if entry.expected_hash() != entry.hash:
            return "it is not what was written"
        if entry.action == CHECKPOINT and entry.tenant_id is None:
            return self._unsigned(entry)
        return None

    def _unsigned(self, entry: Entry) -> str | None:
        stands = entry.after if isinstance(entry.after, dict) else {}
        if stands.get("seq") != entry.seq - 1 or stands.get("hash") != entry.prev_hash.hex():
            return "the checkpoint does not say how the log stood"
        secret = self._evidence.secret
        if secret is None or stands.get("signature") == signature(secret, entry.seq - 1, entry.prev_hash.hex()):
            return None
        return "the checkpoint does not bear our signature"

    def finish(self) -> LogReport:
        """Compare with what is kept elsewhere."""
        report, mirror = self.report, self._evidence.mirror
        if mirror is not None:
            report.mirrored = sum(1 for seq in mirror if seq in self._hashes)
            report.broken += [f"row {seq}: {why}" for seq, why in self._against(mirror.items(), "was told to Kafka")]
        if self._evidence.head is not None:
            noted = [self._evidence.head]
            report.broken += [f"row {seq}: {why}" for seq, why in self._against(noted, "was noted down")]
        report.broken.sort(key=lambda one: int(one.removeprefix("row ").partition(":")[0]))
        return report

    def _against(self, known: Any, how: str) -> list[tuple[int, str]]:
        pairs: Sequence[tuple[int, str]] = sorted(known)
        return [
            (seq, f"it {how} and is gone" if seq not in self._hashes else f"it is another than {how}")
            for seq, digest in pairs
            if self._hashes.get(seq) != digest
        ]


async def verify(database_url: str, evidence: Evidence) -> LogReport:
    """Walk along the whole log in one snapshot. Raises `Unavailable`."""
    walk, seq = _Walk(evidence), 0
    async with (
        open_statements(database_url, 1, statement_timeout="60s") as database,
        database.connection() as connection,
    ):
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        async with connection.transaction():
            while entries := await entries_after(connection, seq, _PAGE):
                for entry in entries:
                    walk.look(entry)
                seq = entries[-1].seq
    return walk.finish()
