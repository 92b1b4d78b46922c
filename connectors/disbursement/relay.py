"""Gives the engine the messages that were left in the outbox together with what they are about.

A row is taken with SKIP LOCKED and a lease, published, and marked. Who dies in between leaves a row whose lease ends;
the next one publishes it again with the same message id, which the engine knows. Nothing is lost, nothing begins twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from prometheus_client import Counter, Gauge

from connectors.disbursement.model import RunRequested, StoreDue, TransferDecided
from hub.errors import Unavailable
from hub.failpoint import failpoint
from hub.messages import Engine, Message
from hub.statements import Statements
from hub.telemetry import logger

MESSAGES: Final[Mapping[str, type[Message]]] = {
    kind.message_name: kind for kind in (StoreDue, TransferDecided, RunRequested)
}
"""What may stand in the outbox."""

AT_ONCE: Final = 50

_published = Counter("payhub_disbursement_published", "Messages from the outbox.", ("result",))
_waiting = Gauge("payhub_disbursement_outbox_taken", "Messages that the last look at the outbox took.")

_LEASE: Final = """
    UPDATE disbursement.outbox SET publish_after = clock_timestamp() + %(lease)s
     WHERE id IN (SELECT id FROM disbursement.outbox
                   WHERE published_at IS NULL AND publish_after <= clock_timestamp()
                   ORDER BY publish_after, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING id, message, payload
    """
_MARK: Final = "UPDATE disbursement.outbox SET published_at = clock_timestamp() WHERE id = ANY (%(ids)s)"
_HAND_BACK: Final = """
    UPDATE disbursement.outbox SET publish_after = clock_timestamp() WHERE id = ANY (%(ids)s) AND published_at IS NULL
    """

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Left:
    """A message that waits in the outbox."""

    id: int
    name: str
    payload: Mapping[str, Any]


class Relay:
    """`step` is one look; several processes may run it side by side."""

    def __init__(self, statements: Statements, engine: Engine, lease: timedelta) -> None:
        self._statements = statements
        self._engine = engine
        self._lease = lease

    async def step(self) -> int:
        """Publish what waits; returns how much it was. Raises `Unavailable`: database or engine away."""
        rows = await self._statements.rows(_LEASE, {"lease": self._lease, "limit": AT_ONCE})
        _waiting.set(len(rows))
        if not rows:
            return 0
        failpoint("disbursement.relay.after-lease")
        left = [Left(*row) for row in sorted(rows)]
        results = await asyncio.gather(*(self._publish(each) for each in left), return_exceptions=True)
        failpoint("disbursement.relay.after-publish")
        done = [each.id for each, result in zip(left, results, strict=True) if result is None]
        away = [each.id for each, result in zip(left, results, strict=True) if isinstance(result, Unavailable)]
        if done:
            await self._statements.rows(_MARK, {"ids": done})
        if away:
            await self._statements.rows(_HAND_BACK, {"ids": away})
            raise Unavailable(f"engine: {len(away)} messages wait")
        for each, result in zip(left, results, strict=True):
            if isinstance(result, BaseException):
                # It stays and is tried again when its lease is over; it must not stop the others.
                _published.labels("refused").inc()
                log.error("outbox.refused", outbox_id=each.id, message_name=each.name, error=type(result).__name__)
        return len(done)

    async def _publish(self, left: Left) -> None:
        message = MESSAGES[left.name].model_validate(left.payload)
        published = await self._engine.publish(message)
        _published.labels(published.value).inc()
