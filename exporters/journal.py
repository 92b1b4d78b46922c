"""What is not the engine's and belongs to the audit view: the acts of operators, and callbacks.

Each has a Kafka topic of its own with one partition, told by a relay that numbers what it tells: an act has its number
in the operator log, a callback that of its latest change. Told twice it is the same document; told out of order the
higher number stays.

    {"seq": 17, "at": "2026-11-18T10:00:00.000+00:00", ...}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic_core import from_json

from exporters.documents import Body, Document, Documents, Ref
from exporters.pipeline import RawMessage, State
from exporters.privacy import mask, mask_text
from exporters.record import SEEN, TAKEN, Fate, Outcome, instant


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a journal."""

    seq: int
    timestamp: int
    """Milliseconds since 1970."""
    content: Mapping[str, Any]


class JournalSieve:
    """Reads a journal. Lets repeats through: they end in the same document."""

    def __init__(self, state: State | None = None) -> None:
        self._reached = {teller: (seq, latest) for teller, (_, seq, latest) in (state or {}).items()}
        self.passed: list[Entry] = []

    def accept(self, batch: Sequence[RawMessage]) -> list[Outcome]:
        self.passed = []
        return [self._one(value) for _, value in batch]

    def _one(self, value: bytes | None) -> Outcome:
        if value is None:
            return Outcome(Fate.DEAD, "a message without a value")
        try:
            content = from_json(value)
            moment = datetime.fromisoformat(content["at"])
            seq = content["seq"]
        except (ValueError, KeyError, TypeError) as error:
            return Outcome(Fate.DEAD, f"not an entry of a journal: {type(error).__name__}")
        if type(seq) is not int or seq < 0 or moment.tzinfo is None:
            return Outcome(Fate.DEAD, "not an entry of a journal: a field has another type")
        entry = Entry(seq, round(moment.timestamp() * 1000), content)
        highest, latest = self._reached.get(teller_of(content), (0, 0))
        self._reached[teller_of(content)] = (max(highest, seq), max(latest, entry.timestamp))
        self.passed.append(entry)
        return TAKEN

    @property
    def state(self) -> dict[str, list[int]]:
        return {teller: [0, seq, latest] for teller, (seq, latest) in self._reached.items()}

    @property
    def latest(self) -> int:
        return max((latest for _, latest in self._reached.values()), default=0)


def teller_of(content: Mapping[str, Any]) -> str:
    """Who numbered an entry: numbers of different tellers are not to be compared."""
    return str(content.get("party", "operator")).lower()


Describe = Callable[[Mapping[str, Any]], tuple[str, Body]]
"""The id of an entry's document, and its columns. Raises what a missing field raises."""


class JournalFold:
    """Makes one document of each entry, in the family of the engine's records."""

    def __init__(self, documents: Documents, family: str, describe: Describe) -> None:
        self.documents: Final = documents
        self._family: Final = family
        self._describe: Final = describe

    def accept(self, batch: Sequence[Entry]) -> list[Outcome]:
        return [self._one(entry) for entry in batch]

    @staticmethod
    def shown(document: Document) -> Body:
        return document.body

    def _one(self, entry: Entry) -> Outcome:
        try:
            name, columns = self._describe(entry.content)
        except Exception as error:  # noqa: BLE001 -- one entry must never stop the view
            return Outcome(Fate.DEAD, f"cannot be folded: {type(error).__name__}")
        ref = Ref(self._family, name)
        earlier = self.documents.get(ref)
        if earlier is not None and earlier["position"] > entry.seq:
            return SEEN
        body = {
            "@timestamp": instant(entry.timestamp),
            "journal": teller_of(entry.content),
            "position": entry.seq,
            **columns,
        }
        # Kept until it is written: of several entries about one callback in a batch only the last is written.
        self.documents.put(ref, {name: value for name, value in body.items() if value is not None}, entry.seq)
        return TAKEN


def operator_act(content: Mapping[str, Any]) -> tuple[str, Body]:
    """A row of the operator log. Its hash is in the id: a log that began anew overwrites nothing."""
    return f"operator-{content['seq']}-{content['hash'][:16]}", {
        "source": "operator",
        "recordType": "ACT",
        "valueType": "OPERATOR_ACT",
        "intent": str(content["action"]).upper(),
        "key": str(content["seq"]),
        "actor": content["actor"],
        "roles": list(content["roles"]),
        "action": content["action"],
        "target": content["target"],
        "paymentId": content.get("paymentId"),
        "tenantId": content.get("tenantId"),
        "reasonCode": content.get("reasonCode"),
        "reason": content.get("reason") and mask_text(content["reason"]),
        "requestId": content.get("requestId"),
        "outcome": content["outcome"],
        "hash": content["hash"],
        "value": {"before": mask(content.get("before")), "after": mask(content.get("after"))},
    }


def callback(content: Mapping[str, Any]) -> tuple[str, Body]:
    """A callback as it stands: one that came to us, or one of ours to a channel. Its body stays in the database."""
    return f"callback-{content['id']}", {
        "source": "callback",
        "recordType": "CALLBACK",
        "valueType": f"{content['party']}_CALLBACK",
        "intent": str(content["kind"]).upper().replace("-", "_"),
        "key": str(content["id"]),
        "paymentId": content.get("paymentId"),
        "tenantId": content.get("tenantId"),
        "outcome": content.get("outcome"),
        "times": content["times"],
        "value": mask(content.get("value")),
    }
