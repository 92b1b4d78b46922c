"""The documents a fold works on: those in memory, read back by id when they are not, and never too many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

Body = dict[str, Any]


class Ref(NamedTuple):
    """Which document."""

    family: str
    """A kind of document; one index holds one family."""
    id: str


class Document(NamedTuple):
    """A document as it is to be written: whole, under a version that only grows."""

    ref: Ref
    version: int
    body: Body


class Reader(Protocol):
    """Whoever keeps the documents that were written."""

    def read(self, refs: Sequence[Ref]) -> Mapping[Ref, Body]:
        """Those of the documents that exist, as they were written last, however short ago."""
        ...


class Nothing:
    """A reader for a view that is made from the beginning and fits into memory."""

    def read(self, refs: Sequence[Ref]) -> Mapping[Ref, Body]:  # noqa: ARG002
        return {}


class Documents:
    """A bounded memory of documents in front of a `Reader`.

    A document that changed stays here until `written` says that its batch is in the reader's keeping.
    """

    def __init__(self, reader: Reader, capacity: int = 20_000) -> None:
        self._reader = reader
        self._capacity: Final = capacity
        self._bodies: OrderedDict[Ref, Body] = OrderedDict()
        self._changed_in: dict[Ref, int] = {}
        self._changed: dict[Ref, int] = {}
        self._absent: set[Ref] = set()
        self._appended: list[Document] = []
        self._batch = 0

    def load(self, refs: Iterable[Ref]) -> None:
        """Read what is not in memory, all at once. Needed before `get` can find something written long ago."""
        missing = [ref for ref in dict.fromkeys(refs) if ref not in self._bodies and ref not in self._absent]
        if not missing:
            return
        found = self._reader.read(missing)
        for ref in missing:
            if ref in found:
                self._bodies[ref] = found[ref]
            else:
                self._absent.add(ref)

    def get(self, ref: Ref) -> Body | None:
        """A document that was loaded or put, or None."""
        return self._bodies.get(ref)

    def put(self, ref: Ref, body: Body, version: int) -> None:
        """Keep a document as it is from this version on."""
        self._bodies[ref] = body
        self._bodies.move_to_end(ref)
        self._changed[ref] = version

    def append(self, ref: Ref, body: Body, version: int) -> None:
        """Write a document that nothing will be folded into, and do not keep it."""
        self._appended.append(Document(ref, version, body))

    def changed(self) -> list[Document]:
        """What changed since the last time, each document once, and begin the next batch."""
        self._batch += 1
        self._changed_in.update(dict.fromkeys(self._changed, self._batch))
        documents = [Document(ref, version, self._bodies[ref]) for ref, version in self._changed.items()]
        documents += self._appended
        self._changed, self._absent, self._appended = {}, set(), []
        return documents

    @property
    def batch(self) -> int:
        """The number of the batch that `changed` handed out last."""
        return self._batch

    def written(self, batch: int) -> None:
        """Every change up to this batch is kept by the reader; forget what was not touched for the longest time."""
        for ref in [ref for ref, changed in self._changed_in.items() if changed <= batch]:
            del self._changed_in[ref]
        excess = len(self._bodies) - self._capacity
        if excess <= 0:
            return
        for ref in list(self._bodies):
            if excess <= 0:
                break
            if ref not in self._changed_in and ref not in self._changed:
                del self._bodies[ref]
                excess -= 1

    def __len__(self) -> int:
        return len(self._bodies)
