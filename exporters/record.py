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
    version: int = 0
    """Grows with each record of a partition, over all epochs. Set by the sifter."""

    def in_epoch(self, epoch: int) -> None:
        """Say which life of the log the record belongs to."""
        self.epoch = epoch
        self.version = epoch << EPOCH_BITS | self.position

    @property
    def at(self) -> str:
        """RFC 3339, UTC, milliseconds."""
        return instant(self.timestamp)

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
            epoch=0,
            partition=read["partitionId"],
            position=read["position"],
            key=read["key"],
            timestamp=read["timestamp"],
            record_type=read["recordType"],
            value_type=read["valueType"],
            intent=read["intent"],
            rejection_type=read["rejectionType"],
            rejection_reason=read["rejectionReason"],
            source_position=read["sourceRecordPosition"],
            value=read["value"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise NotARecord(f"not a record of the engine: {type(error).__name__}") from None
    numbers = (record.partition, record.position, record.key, record.timestamp)
    if not all(type(number) is int for number in numbers) or not isinstance(record.value, dict):
        raise NotARecord("not a record of the engine: a field has another type")
    return record
