"""What each view is made of: its families of documents, how Elasticsearch indexes them, and the fold that makes them.

Mappings are strict: a field that is not listed is refused, not guessed. Keys of the engine are `keyword`, since they
are names and pass 2^53. `_STORED` is kept and shown but not searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from exporters import audit, operations
from exporters.documents import Documents
from exporters.journal import Describe, JournalFold, JournalSieve, callback, operator_act
from exporters.pipeline import Pipeline, State
from exporters.settings import ExportSettings
from exporters.sift import Sifter

Properties = dict[str, dict[str, Any]]

_WORD: Final[dict[str, Any]] = {"type": "keyword", "ignore_above": 1024}
_NUMBER: Final = {"type": "long"}
_TIME: Final = {"type": "date", "format": "strict_date_time"}
_TEXT: Final = {"type": "text"}
_TRUTH: Final = {"type": "boolean"}
_STORED: Final[dict[str, Any]] = {"type": "object", "enabled": False}


def _fields(**kinds: str) -> Properties:
    """Properties from field names by kind."""
    named: dict[str, dict[str, Any]] = {
        "words": _WORD,
        "numbers": _NUMBER,
        "times": _TIME,
        "texts": _TEXT,
        "truths": _TRUTH,
        "stored": _STORED,
    }
    return {name: dict(named[kind]) for kind, names in kinds.items() for name in names.split()}


_COMMON: Final = _fields(numbers="partitionId position", times="updatedAt")
_OWNER: Final = _fields(words="paymentId tenantId processInstanceKey rootInstanceKey bpmnProcessId")
_DIRECTORY: Final = _fields(numbers="partitionId position", words="paymentId tenantId rootInstanceKey", truths="own")
_PARTY: Final = {"properties": _fields(words="idType identifier name bank digest")}

_AUDIT: Final = _OWNER | _fields(
    times="@timestamp",
    numbers="partitionId position sourcePosition times",
    words="source recordType valueType intent key elementId elementType elementInstanceKey jobType worker errorType"
    " errorCode messageName messageId correlationKey rejectionType actor roles action target reasonCode outcome"
    " requestId hash journal",
    texts="errorMessage rejectionReason reason",
    stored="value",
)
_TRANSFERS: Final = (
    _COMMON
    | _fields(
        words="paymentId tenantId state outcome reason processInstanceKey processId processDefinitionKey processState"
        " direction currency referenceNumber rail trackingKey orderState currentStep currentSteps instanceKeys"
        " openIncidents",
        numbers="amount fee attempts incidents processVersion",
        times="acceptedAt outcomeAt endedAt",
        texts="concept reasonDetail",
        stored="instances outcomes fold",
    )
    | {"payer": _PARTY, "payee": _PARTY}
)
_STEPS: Final = (
    _COMMON
    | _OWNER
    | _fields(
        words="elementInstanceKey elementId elementType flowScopeKey parentProcessInstanceKey processDefinitionKey"
        " state jobKey jobType jobState worker errorCode incidentKey variableTerms",
        numbers="processVersion attempts retries",
        times="startedAt endedAt",
        texts="errorMessage",
        stored="variables flows",
    )
)
_INCIDENTS: Final = (
    _COMMON
    | _OWNER
    | _fields(
        words="incidentKey state errorType elementId elementInstanceKey jobKey",
        times="createdAt resolvedAt",
    )
    | {"errorMessage": _TEXT | {"fields": {"whole": {"type": "keyword", "ignore_above": 512}}}}
)
_DISBURSEMENTS: Final = _COMMON | _fields(
    words="paymentId tenantId processInstanceKey storeId trigger runId currency nextStep state processState outcome"
    " reason",
    numbers="amount",
    times="startedAt outcomeAt endedAt",
    texts="reasonDetail",
    stored="outcomes fold",
)
_LINKS: Final = _COMMON | _OWNER | _fields(words="linkedPaymentId relation")
_BATCHES: Final = _COMMON | _fields(
    words="batchId tenantId processInstanceKey state fileName fileHash uploadedBy currency",
    numbers="amount received valid duplicates sent settled failed",
    times="receivedAt endedAt",
)
_PROCESSES: Final = _COMMON | _fields(
    words="processDefinitionKey bpmnProcessId resourceName checksum",
    numbers="version",
    times="deployedAt",
    truths="deleted",
    stored="xml",
)


OpenPipeline = Callable[[State, Documents, ExportSettings], Pipeline]


@dataclass(frozen=True)
class Feed:
    """One topic that a view is made of. Topics have no common order: each has its own partitions and offsets."""

    topic: Callable[[ExportSettings], str]
    opened: OpenPipeline
    """The way of one of its partitions, from a committed state on."""
    ours: bool = True
    """Whether it is made when it is missing; the engine's is made with the engine."""


@dataclass(frozen=True)
class View:
    """One view: the family its documents are told by comes first."""

    name: str
    families: Mapping[str, Properties]
    refresh: str
    """How long a written document may stay invisible to searches; reading by id sees it at once."""
    feeds: tuple[Feed, ...]
    """The engine's records come first."""
    newest_first: Mapping[str, tuple[str, ...]]
    """By family, the fields by which its documents are kept in descending order. A list in that order reads little more
    than the page it shows; otherwise everything that matches would have to be compared. An index keeps the order it was
    made with."""

    def pipeline(self, topic: str, state: State, documents: Documents, settings: ExportSettings) -> Pipeline:
        """The way of one partition of a topic."""
        (feed,) = (feed for feed in self.feeds if feed.topic(settings) == topic)
        return feed.opened(state, documents, settings)

    def topics(self, settings: ExportSettings) -> list[str]:
        return [feed.topic(settings) for feed in self.feeds]

    def template(self, family: str, prefix: str) -> dict[str, Any]:
        """The index template of a family."""
        order = list(self.newest_first.get(family, ()))
        return {
            "index_patterns": [f"{prefix}-{family}-*"],
            "priority": 200,
            # A bulk request to an index that was deleted must fail; without this it would make it again, unseen.
            "allow_auto_create": False,
            "template": {
                "settings": {
                    "number_of_shards": 1,
                    "auto_expand_replicas": "0-1",
                    "refresh_interval": self.refresh,
                    # What Elasticsearch acknowledged must be there after a kill: the offset is committed on its word.
                    "translog.durability": "request",
                    **({"sort.field": order, "sort.order": ["desc"] * len(order)} if order else {}),
                },
                "mappings": {"dynamic": "strict", "properties": self.families[family]},
            },
        }


def _operations(state: State, documents: Documents, settings: ExportSettings) -> Pipeline:
    secret = settings.search_secret
    fold = operations.OperationsFold(documents, secret.get_secret_value().encode() if secret else b"")
    return Pipeline(Sifter(state), fold)


def _audit(state: State, documents: Documents, settings: ExportSettings) -> Pipeline:  # noqa: ARG001
    return Pipeline(Sifter(state), audit.AuditFold(documents))


def _journal(describe: Describe) -> OpenPipeline:
    def opened(state: State, documents: Documents, settings: ExportSettings) -> Pipeline:  # noqa: ARG001
        return Pipeline(JournalSieve(state), JournalFold(documents, audit.AUDIT, describe))

    return opened


VIEWS: Final[Mapping[str, View]] = {
    "audit": View(
        "audit",
        {audit.AUDIT: _AUDIT, audit.DIRECTORY: _DIRECTORY},
        "1s",
        (
            Feed(lambda settings: settings.topic, _audit, ours=False),
            Feed(lambda settings: settings.operator_topic, _journal(operator_act)),
            Feed(lambda settings: settings.callback_topic, _journal(callback)),
        ),
        {audit.AUDIT: ("@timestamp", "position", "partitionId", "source")},
    ),
    "operations": View(
        "operations",
        {
            operations.TRANSFERS: _TRANSFERS,
            operations.STEPS: _STEPS,
            operations.INCIDENTS: _INCIDENTS,
            operations.PROCESSES: _PROCESSES,
            operations.DISBURSEMENTS: _DISBURSEMENTS,
            operations.LINKS: _LINKS,
            operations.BATCHES: _BATCHES,
            operations.DIRECTORY: _DIRECTORY,
        },
        "400ms",
        (Feed(lambda settings: settings.topic, _operations, ours=False),),
        {operations.TRANSFERS: ("acceptedAt", "paymentId")},
    ),
}
"""By the name that `payhub export` takes."""
