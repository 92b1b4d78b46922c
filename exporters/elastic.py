"""Elasticsearch: writing in bulk under external versions, reading back by id, and the indexes behind a view's aliases.

A generation is one set of indexes of a view, one index per family. The view's aliases point to the generation in use.
How far a generation was fed is kept in Kafka under a group that names the generation's first index by its own unique
id: an index that was deleted and made again is another one, and is fed from the beginning.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from elastic_transport import ConnectionTimeout, ObjectApiResponse, TransportError
from prometheus_client import Counter, Gauge, Histogram
from pydantic_core import to_json

from exporters.documents import Body, Ref
from exporters.pipeline import Encoded
from exporters.record import SEEN, TAKEN, Fate, Outcome
from exporters.views import View
from hub.elastic import ApiError, BadRequestError, Elasticsearch, NotFoundError
from hub.telemetry import logger

log = logger(__name__)

_TOO_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})
_AT_FAULT: Final = frozenset({400, 413})
"""A whole request is refused so when one of its documents is at fault."""

_FORBIDDEN: Final = frozenset({401, 403})
"""An index that is blocked, or not ours to write: somebody has to mend it, and the document is not at fault."""

_WORTH_WAITING: Final = _TOO_BUSY | _FORBIDDEN
_OF_THE_INDEX: Final = frozenset({"index_closed_exception", "cluster_block_exception"})
"""Answered to a document with a status that would be its own fault."""

_LONGEST_PAUSE: Final = 5.0
_READ_AT_ONCE: Final = 1000

_waiting = Gauge("payhub_export_waiting", "Whether the exporter waits for Elasticsearch to come back.")
_backed_off = Counter("payhub_export_back_off", "Pauses because Elasticsearch was away or too busy.", ("cause",))
_bulk_seconds = Histogram("payhub_export_bulk_seconds", "Time of one bulk request.")

T = TypeVar("T")


class Stopped(Exception):
    """The process was asked to leave while it waited."""


class ViewGone(Exception):
    """An index of the generation is not there any more: it was deleted, or another generation took its place."""


def open_client(url: str) -> Elasticsearch:
    """A client that leaves trying again, and telling of it, to us."""
    logging.getLogger("elastic_transport.node_pool").setLevel(logging.ERROR)
    return Elasticsearch(url, request_timeout=30, max_retries=0, retry_on_timeout=False)


class Patience:
    """Tries again until it works, each time a little later, or until the process has to leave."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop: Final = stop
        self.waiting = False
        """Whether the last try failed."""

    def insist(self, ask: Callable[[], T]) -> T:
        """The answer of `ask`; whoever finds all well in it says `worked`.

        Raises `Stopped`, `ViewGone` when an index is missing, and what can never work.
        """
        for pause in self.pauses():
            cause = ""
            try:
                return ask()
            except NotFoundError:
                raise ViewGone from None
            except ApiError as error:
                if error.status_code not in _WORTH_WAITING:
                    raise
                cause = str(error.status_code)
            except TransportError as error:
                cause = "timeout" if isinstance(error, ConnectionTimeout) else "away"
            self.back_off(cause, pause)
        raise Stopped

    def back_off(self, cause: str, pause: float) -> None:
        """Wait, and say so until it `worked`. Raises `Stopped`."""
        if not self.waiting:
            log.warning("elasticsearch does not take documents; waiting", cause=cause)
        self._now(waiting=True)
        _backed_off.labels(cause).inc()
        if self.stop.wait(pause):
            raise Stopped

    def worked(self) -> None:
        self._now(waiting=False)

    def _now(self, *, waiting: bool) -> None:
        self.waiting = waiting
        _waiting.set(waiting)

    @staticmethod
    def pauses() -> Iterator[float]:
        """Seconds: doubling from a tenth up to five, with jitter."""
        pause = 0.1
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311
            pause = min(_LONGEST_PAUSE, pause * 2)


@dataclass(frozen=True)
class Generation:
    """One set of indexes of a view."""

    view: View
    prefix: str
    number: int
    unique: str
    """The unique id of its first index."""

    def index(self, family: str) -> str:
        return index_name(self.prefix, family, self.number)

    @property
    def indexes(self) -> list[str]:
        return [self.index(family) for family in self.view.families]

    @property
    def group(self) -> str:
        """The Kafka consumer group that feeds it."""
        return f"{self.prefix}-export-{self.view.name}-{self.unique}"


def index_name(prefix: str, family: str, number: int) -> str:
    return f"{prefix}-{family}-{number:06d}"


class Indexes:
    """The generations of one view."""

    def __init__(self, client: Elasticsearch, view: View, prefix: str) -> None:
        self._client = client
        self._view = view
        self._prefix = prefix

    def ensure(self) -> Generation:
        """The generation in use; when there is none, or a part of it is missing, a new one is made and used."""
        self.put_templates()
        current = self.current()
        if current is not None:
            self._extend(current)
            return current
        numbers = [number for number in self._used().values() if number is not None]
        new = self.create(max(numbers, default=0) + 1)
        self.use(new)
        return new

    def _extend(self, generation: Generation) -> None:
        """Let the indexes in use take the fields that this version added. What changed its type needs a rebuild."""
        for family, properties in self._view.families.items():
            if self._map(generation.index(family), properties):
                continue
            changed = [
                name for name, kind in properties.items() if not self._map(generation.index(family), {name: kind})
            ]
            log.warning("the mapping changed; `payhub rebuild` makes the view again", family=family, fields=changed)

    def _map(self, index: str, properties: Mapping[str, Any]) -> bool:
        """Whether these fields are, or now become, fields of the index. One that cannot keeps the others out."""
        try:
            self._client.indices.put_mapping(index=index, properties=dict(properties))
        except BadRequestError:
            return False
        return True

    def put_templates(self) -> None:
        for family in self._view.families:
            template = self._view.template(family, self._prefix)
            self._client.indices.put_index_template(name=f"{self._prefix}-{family}", **template)

    def current(self) -> Generation | None:
        """The generation that every alias of the view points to; None unless it is whole."""
        numbers = set(self._used().values())
        number = numbers.pop() if len(numbers) == 1 else None
        return None if number is None else self._generation(number)

    def _used(self) -> dict[str, int | None]:
        """The number of the index behind each family's alias."""
        used: dict[str, int | None] = dict.fromkeys(self._view.families)
        found = self._client.indices.get_alias(index=[f"{self._prefix}-{family}-*" for family in used])
        for index, described in found.body.items():
            family, number = self._numbered(index)
            if number is not None and f"{self._prefix}-{family}" in described["aliases"]:
                used[family] = max(number, used.get(family) or 0)
        return used

    def _numbered(self, index: str) -> tuple[str, int | None]:
        """Family and number of an index; none when it is a copy that somebody made for himself."""
        family, _, number = index.removeprefix(f"{self._prefix}-").rpartition("-")
        return family, int(number) if re.fullmatch("[0-9]{6,9}", number) else None

    def _generation(self, number: int) -> Generation | None:
        first = index_name(self._prefix, next(iter(self._view.families)), number)
        try:
            found = self._client.indices.get_settings(index=first)
        except NotFoundError:
            return None
        return Generation(self._view, self._prefix, number, found.body[first]["settings"]["index"]["uuid"])

    def newest(self) -> int:
        """The highest number that any index of the view has, used or not; 0 when there is none."""
        highest = 0
        for family in self._view.families:
            found = self._client.indices.get(index=f"{self._prefix}-{family}-*", filter_path="*.aliases")
            highest = max([highest, *(self._numbered(name)[1] or 0 for name in found.body)])
        return highest

    def create(self, number: int) -> Generation:
        """Make the indexes of a generation. Whoever else makes the same ones at the same time gets the same."""
        for family in self._view.families:
            try:
                self._client.indices.create(index=index_name(self._prefix, family, number))
            except BadRequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
        made = self._generation(number)
        if made is None:
            raise ViewGone
        return made

    def use(self, generation: Generation, *, instead_of: Generation | None = None) -> None:
        """Let every alias of the view point to this generation alone, all at once.

        Raises `NotFoundError`, and changes nothing, when an alias does not point to `instead_of` any more: of two who
        replace the same generation at once, one wins.
        """
        actions: list[dict[str, Any]] = []
        for family in self._view.families:
            alias = f"{self._prefix}-{family}"
            replaced = instead_of.index(family) if instead_of else f"{alias}-*"
            actions.append({"remove": {"index": replaced, "alias": alias, "must_exist": instead_of is not None}})
            actions.append({"add": {"index": generation.index(family), "alias": alias, "is_write_index": True}})
        self._client.indices.update_aliases(actions=actions)

    def drop_before(self, number: int) -> None:
        """Delete every generation before this one: those that were replaced, and what killed rebuilds left."""
        for family in self._view.families:
            found = self._client.indices.get(index=f"{self._prefix}-{family}-*", filter_path="*.aliases")
            for index in found.body:
                of, its_number = self._numbered(index)
                if of == family and its_number is not None and its_number < number:
                    self._client.indices.delete(index=index, ignore_unavailable=True)

    def drop(self, number: int) -> None:
        """Delete the indexes of a generation; those that are gone already are no matter."""
        for family in self._view.families:
            self._client.indices.delete(index=index_name(self._prefix, family, number), ignore_unavailable=True)


class ElasticReader:
    """Reads documents of one generation by id; sees what was written a moment ago."""

    def __init__(self, client: Elasticsearch, generation: Generation, patience: Patience) -> None:
        self._client = client
        self._generation = generation
        self._patience = patience

    def read(self, refs: Sequence[Ref]) -> Mapping[Ref, Body]:
        found: dict[Ref, Body] = {}
        for begin in range(0, len(refs), _READ_AT_ONCE):
            found |= self._some(refs[begin : begin + _READ_AT_ONCE])
        return found

    def _some(self, refs: Sequence[Ref]) -> dict[Ref, Body]:
        asked = [{"_index": self._generation.index(ref.family), "_id": ref.id} for ref in refs]
        fields = ["docs.found", "docs._source", "docs.error.type"]
        for pause in Patience.pauses():
            answer = self._patience.insist(lambda: self._client.mget(docs=asked, filter_path=fields))
            documents = answer.body["docs"]
            errors = {one["error"]["type"] for one in documents if "error" in one}
            if not errors:
                self._patience.worked()
                return {ref: one["_source"] for ref, one in zip(refs, documents, strict=True) if one.get("found")}
            if "index_not_found_exception" in errors:
                raise ViewGone
            self._patience.back_off(", ".join(sorted(errors)), pause)
        raise Stopped


class ElasticSink:
    """Writes whole documents; what is older than what is there is as good as written. A stage for documents.

    Waits as long as Elasticsearch is away or too busy. Raises `Stopped` and `ViewGone`.
    """

    def __init__(self, client: Elasticsearch, generation: Generation, patience: Patience, most_bytes: int) -> None:
        self._client = client
        self._generation = generation
        self._patience = patience
        self._most_bytes = most_bytes
        self._targets: Final = {family: _target(generation.index(family)) for family in generation.view.families}

    def accept(self, batch: Sequence[Encoded]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        begin, size = 0, 0
        for at, document in enumerate(batch):
            if size and size + len(document.body) > self._most_bytes:
                outcomes += self._write(batch[begin:at])
                begin, size = at, 0
            size += len(document.body)
        return outcomes + (self._write(batch[begin:]) if size else [])

    def _write(self, batch: Sequence[Encoded]) -> list[Outcome]:
        """Write what fits into one request; what Elasticsearch was too busy for is sent again, alone."""
        outcomes: list[Outcome | None] = [None] * len(batch)
        for pause in Patience.pauses():
            left = [at for at, outcome in enumerate(outcomes) if outcome is None]
            try:
                answers = self._send([batch[at] for at in left])
            except ApiError as error:
                if error.status_code not in _AT_FAULT:
                    raise
                return self._refused(batch, error)
            for at, outcome in zip(left, answers, strict=True):
                outcomes[at] = outcome
            if None not in answers:
                break
            self._patience.back_off("refused for now", pause)
        self._patience.worked()
        return [outcome or TAKEN for outcome in outcomes]

    def _refused(self, batch: Sequence[Encoded], error: ApiError) -> list[Outcome]:
        """A whole request was refused: find the one that is at fault."""
        if len(batch) == 1:
            return [Outcome(Fate.DEAD, f"{error.status_code} {error.error}")]
        half = len(batch) // 2
        return [*self._write(batch[:half]), *self._write(batch[half:])]

    def _send(self, batch: Sequence[Encoded]) -> list[Outcome | None]:
        """Nearly always everything is taken, and to say so costs nothing. Only otherwise the same is sent again, which
        changes nothing, and each document's own answer read."""
        lines: list[bytes] = []
        for document in batch:
            lines += (self._action(document), document.body)
        request = b"\n".join(lines)
        if not self._ask(request, ["errors"])["errors"]:
            return [TAKEN] * len(batch)
        answer = self._ask(request, ["errors", "items.*.status", "items.*.error"])
        return [_outcome(item["index"]) for item in answer["items"]]

    def _ask(self, request: bytes, fields: list[str]) -> Any:
        def ask() -> ObjectApiResponse[Any]:
            with _bulk_seconds.time():
                return self._client.bulk(operations=[request], filter_path=fields)  # type: ignore[list-item] # bytes pass

        return self._patience.insist(ask).body

    def _action(self, document: Encoded) -> bytes:
        ref = document.ref
        return b'%b%d,"_id":%b}}' % (self._targets[ref.family], document.version, to_json(ref.id))


def _target(index: str) -> bytes:
    """How the first line of a document's two begins, up to its version."""
    return b'{"index":{"_index":%b,"version_type":"external_gte","version":' % to_json(index)


def _outcome(item: Mapping[str, Any]) -> Outcome | None:
    """What became of one document; None when it has to be sent again."""
    status, error = item["status"], item.get("error", {})
    if status < 300:
        return TAKEN
    if status == 409:
        return SEEN
    if error.get("type") == "index_not_found_exception":
        raise ViewGone
    if status in _WORTH_WAITING or error.get("type") in _OF_THE_INDEX:
        return None
    return Outcome(Fate.DEAD, f"{status} {error.get('type')}: {error.get('reason')}"[:1000])
