"""Makes the views again from Kafka, into new indexes, and compares them with those in use before it switches.

The new generation is fed alone and completely; then every alias of the view moves to it at once. The exporters that
run notice and go on from the offset that this left behind. Payments and the old view are not touched meanwhile.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from exporters.elastic import Generation, Indexes, Patience, ViewGone, open_client
from exporters.kafka_source import DeadLetters, KafkaSource, make_topics
from exporters.record import EPOCH_BITS, Fate
from exporters.settings import ElasticsearchSettings, ExportSettings, KafkaSettings
from exporters.streamer import Session
from exporters.views import View
from hub.elastic import Elasticsearch, NotFoundError
from hub.settings import read

_PAGE: Final = 2000


@dataclass
class Family:
    """How the new documents of a family compare with the old ones."""

    documents: int = 0
    """In the new index."""
    equal: int = 0
    different: int = 0
    missing: int = 0
    """In the old index only."""
    added: int = 0
    """In the new index only."""
    moving: int = 0
    """One side was not fed with their latest records yet; payments go on meanwhile."""


class Told(NamedTuple):
    """What is compared of a document."""

    position: int
    source: str
    digest: bytes


Reached = Mapping[str, int]
"""Version by source: a partition of the engine, or a journal."""


@dataclass
class Rebuilt:
    """What making one view again did."""

    view: str
    generation: int
    replaced: int | None
    """The generation that was in use; None when the view had none."""
    messages: int
    dead: int
    families: dict[str, Family] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether no document differs from its old one, is missing or new."""
        return not any(one.different or one.missing or one.added for one in self.families.values())

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"equal": self.equal}

    def __str__(self) -> str:
        lines = [f"{self.view}: generation {self.generation} from {self.messages} messages, {self.dead} dead"]
        for name, one in self.families.items():
            counts = asdict(one)
            documents = counts.pop("documents")
            compared = ", ".join(f"{number} {word}" for word, number in counts.items())
            lines.append(f"  {name}: {documents} documents" + (f"; {compared}" if self.replaced else ""))
        return "\n".join(lines)


class Overtaken(Exception):
    """Somebody else made the same view again meanwhile, or deleted what was being made; what is in use stays."""


class NothingToReplay(Exception):
    """The topic of the engine's records is not there: a view of nothing would be made."""


def rebuild(view: View, *, drop_old: bool) -> Rebuilt:
    """Make a view again.

    Raises `KafkaError`, `TransportError`, `ApiError`, `Overtaken` or `NothingToReplay`; the view in use then stays.

    A rebuild that was killed leaves indexes that nobody uses; the next one with `drop_old` deletes them.
    """
    settings, servers = read(ExportSettings), read(KafkaSettings).bootstrap_servers
    client = open_client(read(ElasticsearchSettings).url)
    letters = DeadLetters(servers, settings.dead_letter_topic, view.name)
    try:
        indexes = Indexes(client, view, settings.index_prefix)
        indexes.put_templates()
        ours = [one.topic(settings) for one in view.feeds if one.ours]
        if settings.topic not in make_topics(servers, [*ours, settings.dead_letter_topic]):
            raise NothingToReplay(f"Kafka has no topic {settings.topic}; the view in use stays")
        old, new = indexes.current(), indexes.create(indexes.newest() + 1)
        fates = _replay(client, servers, new, settings, letters)
        client.indices.refresh(index=new.indexes)
        rebuilt = Rebuilt(view.name, new.number, old.number if old else None, sum(fates.values()), fates[Fate.DEAD])
        _compare(client, servers, old, new, rebuilt)
        # What came while documents were compared: nobody shall see the view go back when it is switched.
        _replay(client, servers, new, settings, letters)
        indexes.use(new, instead_of=old)
        if drop_old:
            indexes.drop_before(new.number)
    except (ViewGone, NotFoundError):
        raise Overtaken(
            f"the {view.name} view was made again by somebody else meanwhile, or its indexes were deleted; "
            "what is in use stays"
        ) from None
    finally:
        letters.close()
        client.close()
    return rebuilt


def _replay(
    client: Elasticsearch, servers: str, new: Generation, settings: ExportSettings, letters: DeadLetters
) -> dict[Fate, int]:
    session = Session(
        source=KafkaSource(servers, new.view.topics(settings), new.group, settings.batch_records),
        letters=letters,
        client=client,
        generation=new,
        settings=settings,
        patience=Patience(threading.Event()),
    )
    try:
        session.replay()
    finally:
        session.close()
    return session.fates


def _compare(client: Elasticsearch, servers: str, old: Generation | None, new: Generation, rebuilt: Rebuilt) -> None:
    settings = read(ExportSettings)
    # Asked before the old documents are read: what was committed by now is in them.
    fed = {one.unique: _reached(servers, settings, one) for one in (old, new) if one is not None}
    for family in new.view.families:
        new_ones = _told(client, new, family)
        compared = Family(documents=len(new_ones))
        if old is not None:
            _compare_family(compared, _told(client, old, family), new_ones, fed[old.unique], fed[new.unique])
        rebuilt.families[family] = compared


def _compare_family(
    family: Family, old: Mapping[str, Told], new: Mapping[str, Told], old_fed: Reached, new_fed: Reached
) -> None:
    """Documents may differ because payments go on: what only one side was fed with yet is no difference."""
    for document, here in new.items():
        there = old.get(document)
        if there is not None and here.digest == there.digest:
            family.equal += 1
        elif here.position > old_fed.get(here.source, 0):
            family.moving += 1
        elif there is None:
            family.added += 1
        elif there.position > new_fed.get(there.source, 0):
            family.moving += 1
        else:
            family.different += 1
    for document in old.keys() - new.keys():
        if old[document].position > new_fed.get(old[document].source, 0):
            family.moving += 1
        else:
            family.missing += 1


def _reached(servers: str, settings: ExportSettings, generation: Generation) -> Reached:
    """The version up to which a generation has every record, by source."""
    source = KafkaSource(servers, generation.view.topics(settings), generation.group, settings.batch_records)
    reached: dict[str, int] = {}
    try:
        source.take_all()
        for partition in source.ends():
            for name, (epoch, position, _) in source.committed(partition).items():
                reached[name] = max(reached.get(name, 0), epoch << EPOCH_BITS | position)
    finally:
        source.close()
    return reached


def _told(client: Elasticsearch, generation: Generation, family: str) -> dict[str, Told]:
    return dict(_digests(client, generation, family))


def _digests(client: Elasticsearch, generation: Generation, family: str) -> Iterator[tuple[str, Told]]:
    """Id and digest of every document of a family, as they are at one moment."""
    index = generation.index(family)
    client.indices.refresh(index=index)
    moment = client.open_point_in_time(index=index, keep_alive="2m")["id"]
    after: list[Any] | None = None
    try:
        while True:
            page = client.search(
                pit={"id": moment, "keep_alive": "2m"},
                size=_PAGE,
                sort=["_shard_doc"],
                search_after=after,
                track_total_hits=False,
            )["hits"]["hits"]
            for hit in page:
                body = hit["_source"]
                source = str(body["partitionId"]) if "partitionId" in body else body["journal"]
                told = Told(body["position"], source, hashlib.sha256(to_json(body)).digest())
                yield hit["_id"], told
            if len(page) < _PAGE:
                return
            after = page[-1]["sort"]
    finally:
        client.close_point_in_time(id=moment)
