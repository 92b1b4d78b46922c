"""Whose record is it: the payment, tenant and root of each process instance.

All three are fixed by the record that starts an instance: a correlated start message, a creation, or for a called
process the activation under its caller. What never changes can be looked up at any time, even by somebody who is
reading old records again; only what comes before that record has to be told apart, by its position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from exporters.documents import Documents, Ref
from exporters.record import Record


class Identity(NamedTuple):
    """Whose a process instance is."""

    payment_id: str | None
    tenant_id: str | None
    root_key: str
    """The instance whose call, direct or not, started this one; itself when nobody called it."""
    own: bool
    """Whether the root was started under the payment's own id: then all of its records are in the partition where
    that payment's other processes are, and in order with theirs."""


UNKNOWN_ROOT: Final = Identity(None, None, "", own=False)

_REMEMBERED: Final = 5_000
"""Process instances whose identity is at hand without a look at its document."""

_Instance = tuple[int, int]
"""Epoch and key of a process instance."""


_STARTS: Final = {"MESSAGE_START_EVENT_SUBSCRIPTION": "CORRELATED", "PROCESS_INSTANCE_CREATION": "CREATED"}


def is_start(record: Record) -> bool:
    """Whether this record starts an instance that nobody called."""
    return _STARTS.get(record.value_type) == record.intent and record.record_type == "EVENT"


def is_call(record: Record) -> bool:
    """Whether this record starts an instance that another one called."""
    return (
        record.value_type == "PROCESS_INSTANCE"
        and record.intent == "ELEMENT_ACTIVATING"
        and record.value.get("bpmnElementType") == "PROCESS"
        and instance_key(record, "parentProcessInstanceKey") > 0
    )


def instance_key(record: Record, field: str = "processInstanceKey") -> int:
    """A key out of a record's value; -1, the engine's word for none, when it has none."""
    key = record.value.get(field, -1)
    return key if type(key) is int else -1


def started_by(record: Record) -> Identity:
    """The identity that a starting record gives its instance."""
    variables: dict[str, Any] = record.value.get("variables") or {}
    payment, tenant = variables.get("payment_id"), variables.get("tenant_id")
    return Identity(
        payment_id=payment if isinstance(payment, str) else None,
        tenant_id=tenant if isinstance(tenant, str) else None,
        root_key=str(record.value["processInstanceKey"]),
        own=isinstance(payment, str) and record.value.get("correlationKey") == payment,
    )


class Directory:
    """The identities of process instances, kept in one family of documents.

    Every record asks whose it is, most of them of an instance that was asked for a moment ago: those are remembered.
    """

    def __init__(self, documents: Documents, family: str) -> None:
        self._documents = documents
        self._family: Final = family
        self._recent: dict[_Instance, tuple[int, Identity]] = {}

    def prepare(self, batch: Sequence[Record]) -> None:
        """Read the identities that the records of a batch need and that do not start inside of it."""
        if len(self._recent) > _REMEMBERED:
            self._recent.clear()
        self._documents.load(Ref(self._family, f"{epoch}-{key}") for epoch, key in self._needed(batch))

    def _needed(self, batch: Sequence[Record]) -> Iterable[_Instance]:
        asked: set[_Instance] = set()
        for record in batch:
            instance = (record.epoch, instance_key(record))
            if is_call(record):
                asked.add(instance)
                instance = (record.epoch, record.value["parentProcessInstanceKey"])
            elif is_start(record):
                asked.add(instance)
            if instance[1] > 0 and instance not in asked and instance not in self._recent:
                asked.add(instance)
                yield instance

    def identity_of(self, record: Record) -> Identity | None:
        """Whose a record is; None when it belongs to no instance, or to one whose start was never seen."""
        key = instance_key(record)
        if key <= 0:
            return None
        if is_start(record):
            return self._keep(record, key, started_by(record))
        if is_call(record):
            caller = self.known(record, record.value["parentProcessInstanceKey"])
            return self._keep(record, key, caller or UNKNOWN_ROOT._replace(root_key=str(key)))
        return self.known(record, key)

    def known(self, record: Record, key: int) -> Identity | None:
        """The identity of an instance that started before this record.

        The engine sends copies of the caller's variables before the record that starts a called process. They have no
        identity, neither now nor when they are read again and the directory knows better.
        """
        recent = self._recent.get((record.epoch, key))
        if recent is None:
            body = self._documents.get(Ref(self._family, record.id_of(key)))
            if body is None:
                return None
            identity = Identity(body["paymentId"], body["tenantId"], body["rootInstanceKey"], body["own"])
            recent = self._recent[record.epoch, key] = (body["position"], identity)
        since, identity = recent
        return identity if since <= record.version else None

    def _keep(self, record: Record, key: int, identity: Identity) -> Identity:
        ref = Ref(self._family, record.id_of(key))
        if (record.epoch, key) not in self._recent and self._documents.get(ref) is None:
            body = {
                "partitionId": record.partition,
                "position": record.version,
                "paymentId": identity.payment_id,
                "tenantId": identity.tenant_id,
                "rootInstanceKey": identity.root_key,
                "own": identity.own,
            }
            self._documents.put(ref, body, record.version)
        return identity
