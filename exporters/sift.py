"""Drops the records that the engine sent before, at the cost of looking at their Kafka keys.

After a crash the engine's exporter sends everything since its last snapshot again, several times over. Within one Kafka
partition each such run begins at or before the next position that is due, and its own order is kept; so whatever is not
above the highest position seen is a repeat.

Positions begin again when the engine loses its data. A record that is not above the highest position and yet younger
than everything seen is no repeat: with it a new epoch begins. A repeat is never younger, since its first copy was seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exporters.pipeline import RawMessage, State
from exporters.record import SEEN, TAKEN, Fate, NotARecord, Outcome, Record, decode

__all__ = ["RawMessage", "Reached", "Sifter"]

_KEY: Final = re.compile(rb'\s*\{\s*"partitionId"\s*:\s*([0-9]{1,5})\s*,\s*"position"\s*:\s*([0-9]{1,19})\s*\}\s*')


@dataclass(slots=True)
class Reached:
    """How far the records of one engine partition were seen."""

    epoch: int = 1
    position: int = 0
    timestamp: int = 0
    """The latest of all, milliseconds since 1970."""
    last: int | None = None
    """Position of the message before, repeats included; unknown after a restart."""


class Sifter:
    """The sieve of one Kafka partition, which may hold several partitions of the engine.

    `state` is kept beside the committed offset and given back with it.
    """

    def __init__(self, state: State | None = None) -> None:
        self._reached = {
            int(partition): Reached(epoch, position, timestamp)
            for partition, (epoch, position, timestamp) in (state or {}).items()
        }
        self.passed: list[Record] = []
        """The records of the last batch that are new, in order."""

    def accept(self, batch: Sequence[RawMessage]) -> list[Outcome]:
        """New records are `TAKEN` and stand in `passed`."""
        self.passed = []
        return [self._one(key, value) for key, value in batch]

    def _one(self, key: bytes | None, value: bytes | None) -> Outcome:
        if value is None:
            return Outcome(Fate.DEAD, "a message without a value")
        named = _KEY.fullmatch(key or b"")
        if named is not None:
            reached = self._reached.get(int(named[1]))
            position = int(named[2])
            if reached is not None and position <= reached.position:
                began = reached.last is None or position <= reached.last
                reached.last = position
                if not began:
                    return SEEN
        try:
            record = decode(value)
        except NotARecord as error:
            return Outcome(Fate.DEAD, str(error))
        return self._sift(record)

    def _sift(self, record: Record) -> Outcome:
        reached = self._reached.get(record.partition)
        if reached is None:
            reached = self._reached[record.partition] = Reached()
        reached.last = record.position
        if record.position <= reached.position:
            if record.timestamp <= reached.timestamp:
                return SEEN
            reached.epoch += 1
        reached.position = record.position
        reached.timestamp = max(reached.timestamp, record.timestamp)
        record.in_epoch(reached.epoch)
        self.passed.append(record)
        return TAKEN

    @property
    def state(self) -> dict[str, list[int]]:
        """What has to be kept beside the offset: epoch, position and latest timestamp by engine partition."""
        return {str(number): [one.epoch, one.position, one.timestamp] for number, one in self._reached.items()}

    @property
    def latest(self) -> int:
        """The moment of the youngest record seen, milliseconds since 1970; 0 before the first."""
        return max((one.timestamp for one in self._reached.values()), default=0)
