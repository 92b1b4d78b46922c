"""A record of the engine, and what became of it on its way into a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from pydantic_core import from_json

EPOCH_BITS: Final = 44
"""A version is the epoch, then this many bits of position; it stays below 2^53 for the first 511 epochs."""
_POSITIONS: Final = range(1 << EPOCH_BITS)
_PARTITIONS: Final = range(1 << 13)
"""As many as the engine's keys have room for."""
_MOMENTS: Final = range(253_402_300_800_000)
"""Milliseconds up to the year 10000, the end of dates."""

_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Fate(StrEnum):
    """What a stage did with one thing it was given."""

    TAKEN = "taken"
    SEEN = "seen"
    """It was there before, or something newer was; nothing changed."""
    DEAD = "dead"
    """It can never be taken; the outcome says why."""


class Outcome(NamedTuple):
    fate: Fate
    reason: str = ""


TAKEN: Final = Outcome(Fate.TAKEN)
SEEN: Final = Outcome(Fate.SEEN)


def counted(outcomes: Sequence[Outcome]) -> dict[Fate, int]:
    """How many there are of each fate."""
    taken, seen = outcomes.count(TAKEN), outcomes.count(SEEN)
    return {Fate.TAKEN: taken, Fate.SEEN: seen, Fate.DEAD: len(outcomes) - taken - seen}


T_contra = TypeVar("T_contra", contravariant=True)


class Stage(Protocol[T_contra]):
    """A step on the way into a view."""

    def accept(self, batch: Sequence[T_contra]) -> list[Outcome]:
        """Take a batch; one outcome for each of its members, in their order."""
        ...


class NotARecord(ValueError):
    """These bytes are no record of the engine."""


@dataclass(slots=True)
class Record:
    """One record as the engine's exporter wrote it."""

    epoch: int
    """Which life of the engine's log it belongs to: positions and keys begin again in each. Set by the sifter."""
    partition: int
    position: int
    key: int
    timestamp: int
    """Milliseconds since 1970."""
    record_type: str
    value_type: str
    intent: str
    rejection_type: str
    rejection_reason: str
    source_position: int
    value: dict[str, Any]
    at: str = ""
    """When, RFC 3339, UTC, milliseconds. Set by the sifter."""
    version: int = 0
    """Grows with each record of a partition, over all epochs. Set by the sifter."""

    def in_epoch(self, epoch: int) -> None:
        """Say which life of the log the record belongs to."""
        self.epoch = epoch
        self.version = epoch << EPOCH_BITS | self.position
        self.at = instant(self.timestamp)

    def id_of(self, key: int) -> str:
        """A document id for something the engine gave this key in this epoch."""
        return f"{self.epoch}-{key}"


@lru_cache(maxsize=1024)  # what one command does, the engine writes in one millisecond
def instant(milliseconds: int) -> str:
    """A moment of the engine as RFC 3339 text."""
    moment = _BEGINNING + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decode(raw: bytes) -> Record:
    """Read a record. Raises `NotARecord`."""
    try:
        # Keys repeat in every record; the cache of short strings makes this twice as fast as the standard library.
        read = from_json(raw)
        record = Record(
            0,
            read["partitionId"],
            read["position"],
            read["key"],
            read["timestamp"],
            read["recordType"],
            read["valueType"],
            read["intent"],
            read["rejectionType"],
            read["rejectionReason"],
            read["sourceRecordPosition"],
            read["value"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise NotARecord(f"not a record of the engine: {type(error).__name__}") from None
    if not (
        type(record.partition) is type(record.position) is type(record.key) is type(record.timestamp) is int
        and type(record.record_type) is type(record.value_type) is type(record.intent) is str
        and type(record.value) is dict
    ):
        raise NotARecord("not a record of the engine: a field has another type")
    if record.position not in _POSITIONS or record.partition not in _PARTITIONS or record.timestamp not in _MOMENTS:
        raise NotARecord("not a record of the engine: a number is out of range")
    return record
