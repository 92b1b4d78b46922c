"""The test kit: run a handler and look at what the engine would be told, without any server.

    ending = await run(StpWorker(FakeStp()), SendOrder(...))
    assert ending == Thrown("account-unknown", ...)

`run` goes through the same mapping as the worker runtime (hub.zeebe.outcomes). `FakeEngine` stands in for the engine
where a connector publishes messages, and refuses repeats as Zeebe does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from hub.errors import Unavailable
from hub.jobs import Job, JobFacts, handlers_of
from hub.messages import Message, Published
from hub.transfer import IdentifierType, Party
from hub.zeebe.outcomes import Completed, Ending, Failed, Thrown, settle

__all__ = ["Completed", "Failed", "FakeEngine", "Thrown", "job_facts", "party", "run"]

M = TypeVar("M", bound=Message)


def job_facts(job: Job[Any], *, retries: int | None = None, seconds_left: float | None = None) -> JobFacts:
    """What the engine would say of a fresh job: all its tries left, and its whole time-out."""
    left = job.timeout.total_seconds() if seconds_left is None else seconds_left
    return JobFacts(
        key=1,
        process_instance_key=2,
        process_id="a-process",
        element_id=job.job_type.partition(".")[2],
        retries=job.attempts if retries is None else retries,
        deadline=time.time() + left,
    )


async def run(worker: object | Iterable[object], job: Job[Any], facts: JobFacts | None = None) -> Ending:
    """Run the handler for `job` on `worker` (one object or several) and return what the engine would be told.

    Raises `LookupError` when none of them handles it.
    """
    workers = list(worker) if isinstance(worker, Iterable) else [worker]
    for handler in handlers_of(workers):
        if handler.job is type(job):
            facts = facts or job_facts(job)
            job.with_facts(facts)
            return await settle(handler, job, facts.retries, max(0.0, facts.deadline - time.time()))
    raise LookupError(f"no handler for {type(job).__name__}: is its method marked with @handles({type(job).__name__})?")


class FakeEngine:
    """An engine that only remembers; implements `hub.messages.Engine`.

    `away` makes it refuse everything; `lose_answers` makes it take that many messages and then say it did not, as an
    engine that was killed between taking and answering.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        """What was taken, in order, each once."""
        self.away = False
        self.lose_answers = 0
        self.asked = 0
        """How often somebody tried to publish."""
        self._seen: set[tuple[str, str, str]] = set()

    async def publish(self, message: Message) -> Published:
        self.asked += 1
        if self.away:
            raise Unavailable("engine: publish: away")
        json.dumps(message.variables())
        # The engine knows a repeat by all three; the same id under another key is another message.
        identity = (message.message_name, message.correlation_key, message.message_id)
        if identity in self._seen:
            return Published.ALREADY_THERE
        self._seen.add(identity)
        self.messages.append(message)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("engine: publish: DEADLINE_EXCEEDED")
        return Published.NEW

    async def ping(self) -> None:
        """As the real engine's probe. Raises `Unavailable` while `away`."""
        if self.away:
            raise Unavailable("engine: away")

    def published(self, kind: type[M]) -> list[M]:
        """The messages of one class that were taken, in order."""
        return [message for message in self.messages if isinstance(message, kind)]

    def forget(self) -> None:
        """Let every message's time to live end: repeats are taken as new."""
        self._seen.clear()


def party(
    id_type: IdentifierType = IdentifierType.CLABE,
    identifier: str = "646180157000000004",
    name: str | None = "Ana Prueba",
    tax_id: str | None = None,
) -> Party:
    """A made-up party of a transfer; the default CLABE has a right check digit."""
    return Party(id_type=id_type, identifier=identifier, name=name, tax_id=tax_id)
