"""Makes the views again from Kafka, into new indexes, and compares them with those in use before it switches.

The new generation is fed alone and completely; then every alias of the view moves to it at once. The exporters that
run notice and go on from the offset that this left behind. Payments and the old view are not touched meanwhile.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from exporters.comparison import Family, Reached, Side, compare
from exporters.elastic import Generation, Indexes, Patience, ViewGone, open_client
from exporters.kafka_source import DeadLetters, KafkaSource, make_topics
from exporters.record import EPOCH_BITS, Fate
from exporters.settings import ElasticsearchSettings, ExportSettings, KafkaSettings
from exporters.streamer import Session
from exporters.views import View
from hub.elastic import Elasticsearch, NotFoundError
from hub.settings import read


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
    before = None if old is None else Side(old, _reached(servers, settings, old))
    now = Side(new, _reached(servers, settings, new))
    for family in new.view.families:
        rebuilt.families[family] = compare(client, family, before, now)


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
