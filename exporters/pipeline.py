"""Messages in, documents out, an outcome for each message: sift, fold, sink, one after the other.

`accept` does all of it. The streamer folds the next batch while the one before is being written, and so calls the
parts: `fold`, then the sink, then `settle`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from pydantic_core import to_json

from exporters.documents import Body, Document, Documents, Ref
from exporters.record import TAKEN, Fate, Outcome, Stage

RawMessage = tuple[bytes | None, bytes | None]
"""Key and value of one Kafka message."""

State = Mapping[str, Sequence[int]]
"""What a sieve has to remember beside an offset: by source, the epoch, the highest position, the latest moment."""

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Encoded(NamedTuple):
    """A document as bytes: what it is made of may change with the next record."""

    ref: Ref
    version: int
    body: bytes


class Sieve(Stage[RawMessage], Protocol[T]):
    """Reads messages and lets those through that are new."""

    passed: list[T]
    """What the last batch had that is new, in order."""

    @property
    def state(self) -> dict[str, list[int]]:
        """What has to be kept beside the offset."""
        ...

    @property
    def latest(self) -> int:
        """The moment of the youngest message seen, milliseconds since 1970; 0 before the first."""
        ...


class Fold(Stage[T_contra], Protocol[T_contra]):
    """Turns what a sieve let through into documents."""

    @property
    def documents(self) -> Documents: ...

    def shown(self, document: Document) -> Body:
        """A changed document as it is to be written."""
        ...


@dataclass(frozen=True, slots=True)
class Folded:
    """A batch that is folded and not written yet."""

    messages: Sequence[RawMessage]
    outcomes: list[Outcome]
    """One per message, the sink's part still missing."""
    documents: list[Encoded]
    number: int
    sifted: dict[str, list[int]]
    """The sieve's state behind this batch, to be kept with the offset."""
    latest: int
    """Moment of the youngest record, milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Something that can never be indexed, whole, and why."""

    key: bytes
    content: bytes
    reason: str


class Pipeline:
    """One Kafka partition's way into one view."""

    def __init__(self, sifter: Sieve[Any], fold: Fold[Any]) -> None:
        self.sifter: Final = sifter
        self._fold = fold

    def fold(self, messages: Sequence[RawMessage]) -> Folded:
        """Sift and fold. Raises what reading documents back raises; the batch must then be taken from its beginning by
        a new pipeline."""
        sifter, fold = self.sifter, self._fold
        outcomes = sifter.accept(messages)
        folded = iter(fold.accept(sifter.passed))
        outcomes = [next(folded) if outcome is TAKEN else outcome for outcome in outcomes]
        shown = fold.shown
        encoded = [Encoded(one.ref, one.version, to_json(shown(one))) for one in fold.documents.changed()]
        return Folded(messages, outcomes, encoded, fold.documents.batch, sifter.state, sifter.latest)

    def settle(self, folded: Folded, written: Sequence[Outcome]) -> list[DeadLetter]:
        """Everything that lives was written; what has to go to the dead letters."""
        self._fold.documents.written(folded.number)
        letters = [
            DeadLetter(message[0] or b"", message[1] or b"", outcome.reason)
            for message, outcome in zip(folded.messages, folded.outcomes, strict=True)
            if outcome.fate is Fate.DEAD
        ]
        return letters + [
            DeadLetter(f"{document.ref.family}/{document.ref.id}".encode(), document.body, outcome.reason)
            for document, outcome in zip(folded.documents, written, strict=True)
            if outcome.fate is Fate.DEAD
        ]

    def accept(self, messages: Sequence[RawMessage], sink: Stage[Encoded]) -> tuple[list[Outcome], list[DeadLetter]]:
        """The whole way of a batch."""
        folded = self.fold(messages)
        return folded.outcomes, self.settle(folded, sink.accept(folded.documents))
