"""A payment driven by hand: the engine is real, the workers are the test.

`payment.completes("hold-funds")` takes the job that the engine made for that element, answers it and returns what the
worker would have read. When the test is over, the jobs that were done are compared with the path that the test says it
takes.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from pyzeebe.proto.gateway_pb2 import (
    ActivatedJob,
    ActivateJobsRequest,
    CompleteJobRequest,
    CreateProcessInstanceRequest,
    FailJobRequest,
    ProcessInstanceCreationStartInstruction,
    PublishMessageRequest,
    ThrowErrorRequest,
)

import bpmn
from hub.settings import EngineSettings
from hub.zeebe.client import ZeebeEngine, open_engine
from hub.zeebe.refusals import NotFound

PATIENCE: Final = 15.0
"""Seconds until a job that does not come is a failure."""

CALLED: Final = {call.process for process in bpmn.processes() for call in process.calls}
"""Processes that end with the one that calls them."""


@pytest.fixture(scope="session")
def deployed(zeebe_address: str) -> EngineSettings:
    """An engine that has our drawings."""
    settings = EngineSettings(address=zeebe_address)

    async def deploy() -> None:
        async with open_engine(settings) as engine:
            await engine.deploy(bpmn.resources())

    asyncio.run(deploy())
    return settings


@pytest.fixture
async def engine(deployed: EngineSettings) -> AsyncIterator[ZeebeEngine]:
    async with open_engine(deployed) as opened:
        yield opened


@dataclass
class Payment:
    """One payment of one test."""

    engine: ZeebeEngine
    id: str = field(default_factory=lambda: f"payment-{uuid.uuid4()}")
    done: dict[tuple[str, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    """(process id, instance key) → elements whose jobs were done, in order."""
    heard: list[str] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    begun: dict[str, ActivatedJob] = field(default_factory=dict)

    async def accepted(self, message_id: str | None = None, **variables: Any) -> None:
        """The channel's start message."""
        facts = {
            "payment_id": self.id,
            "tenant_id": "bank-a",
            "amount": 12_345,
            "currency": "MXN",
            "payer": {"id_type": "ACCOUNT_ID", "identifier": "1"},
            "payee": {"id_type": "CLABE", "identifier": "646180110400000007"},
            "concept": "rent",
            "reference_number": 7,
        }
        await self._publish("channel.payment-accepted", message_id or self.id, {**facts, **variables})

    async def returned_late(self, message_id: str = "d", **variables: Any) -> None:
        """STP gives the money back after the payment had settled."""
        facts = {
            "payment_id": self.id,
            "tenant_id": "bank-a",
            "return_reason": "account-closed",
            "return_detail": "returned: cause 3",
            "try_again_after": "P1D",
        }
        await self._publish("stp.order-returned-late", f"{self.id}:{message_id}", {**facts, **variables})

    async def arrives(self, message_id: str | None = None, **variables: Any) -> None:
        """STP tells of money that came in."""
        facts = {
            "payment_id": self.id,
            "tenant_id": "bank-a",
            "amount": 12_345,
            "currency": "MXN",
            "payer": None,
            "payee": {"id_type": "CLABE", "identifier": "646180110400000007"},
            "concept": "rent",
            "reference_number": 7,
            "sender_institution": 40072,
            "deposit_tracking_key": "058-25/08/2023/25-300CPWF924",
            "operation_date": "2026-11-18",
            "try_again_after": "P1D",
        }
        await self._publish("stp.deposit-arrived", message_id or self.id, {**facts, **variables})

    async def action_requested(self, **variables: Any) -> None:
        """An operator asks for something to be done with this payment."""
        facts = {
            "action_id": self.id,
            "payment_id": self.id,
            "tenant_id": "bank-a",
            "kind": "retry",
            "approvals_needed": 0,
            "expires_after": "PT4H",
            "look_for_money_after": "PT1H",
        }
        await self._publish("operations.action-requested", self.id, {**facts, **variables})

    async def day_ends(self) -> None:
        """The daily timer starts the comparison; the engine is told to stand where it would be then."""
        await self._create("stp-reconciliation", "begin-reconciliation")

    async def store_is_due(self, message_id: str | None = None, **variables: Any) -> None:
        """Somebody asks for the payment of a store."""
        facts = {
            "payment_id": self.id,
            "tenant_id": "bank-a",
            "store_id": "centro",
            "trigger": "DAILY",
            "run_id": "run-1",
        }
        await self._publish("disbursement.store-due", message_id or self.id, {**facts, **variables})

    async def run_is_asked_for(self) -> None:
        """A person asks for a run."""
        await self._publish("disbursement.run-requested", self.id, {"payment_id": self.id, "run_id": "asked"})

    async def five_minutes_pass(self) -> None:
        """The timer starts a run; the engine is told to stand where it would be then."""
        await self._create("disbursement-run", "plan-runs")

    async def hears(self, message: str, **variables: Any) -> None:
        """A message arrives for this payment."""
        self.heard.append(message)
        await self._publish(message, f"{self.id}:{len(self.heard)}", variables)

    async def begins(self, element: str) -> None:
        """Take up the job of `element` and leave it open for the moment."""
        self.begun[element] = await self._job(element)

    async def completes(self, element: str, **result: Any) -> dict[str, Any]:
        """Do the job of `element`; returns the variables it could read."""
        job = self.begun.pop(element, None) or await self._job(element)
        await self.engine.gateway.CompleteJob(CompleteJobRequest(jobKey=job.key, variables=json.dumps(result)))
        return dict(json.loads(job.variables))

    async def refuses(self, element: str, reason: str, detail: str | None = None) -> None:
        """Answer the job of `element` with a refusal, as the worker runtime does."""
        job = await self._job(element)
        thrown = {"outcome": "REJECTED", "reason": reason, "reason_detail": detail}
        request = ThrowErrorRequest(jobKey=job.key, errorCode=reason, errorMessage="", variables=json.dumps(thrown))
        await self.engine.gateway.ThrowError(request)

    async def ended(self) -> None:
        """Every instance of this payment is over."""
        for key in self.roots:
            async with asyncio.timeout(PATIENCE):
                while await self._alive(key):
                    await asyncio.sleep(0.05)

    async def stays(self) -> None:
        """Nothing makes the newest instance of this payment end within a moment."""
        await asyncio.sleep(0.5)
        assert await self._alive(self.roots[-1])

    async def _alive(self, key: int) -> bool:
        try:
            await self.engine.operate.set_variables(key, {})
        except NotFound:
            return False
        return True

    async def _create(self, process: str, element: str) -> None:
        request = CreateProcessInstanceRequest(
            bpmnProcessId=process,
            version=-1,
            variables=json.dumps({"payment_id": self.id}),
            startInstructions=[ProcessInstanceCreationStartInstruction(elementId=element)],
        )
        await self.engine.gateway.CreateProcessInstance(request)

    async def _publish(self, name: str, message_id: str, variables: dict[str, Any]) -> None:
        request = PublishMessageRequest(
            name=name,
            correlationKey=self.id,
            messageId=message_id,
            timeToLive=60_000,
            variables=json.dumps(variables),
        )
        await self.engine.gateway.PublishMessage(request)

    async def _job(self, element: str) -> ActivatedJob:
        job_type = _job_type(element)
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    request = ActivateJobsRequest(
                        type=job_type, worker="test", timeout=60_000, maxJobsToActivate=1, requestTimeout=2_000
                    )
                    async for answer in self.engine.gateway.ActivateJobs(request):
                        for job in answer.jobs:
                            if json.loads(job.variables).get("payment_id") == self.id:
                                return self._note(job, element)
                            await self._give_back(job)
        except TimeoutError:
            raise AssertionError(f"no job came for {element}; done so far: {dict(self.done)}") from None

    def _note(self, job: ActivatedJob, element: str) -> ActivatedJob:
        if job.bpmnProcessId not in CALLED and job.processInstanceKey not in self.roots:
            self.roots.append(job.processInstanceKey)
        self.done[job.bpmnProcessId, job.processInstanceKey].append(job.elementId)
        assert job.elementId == element, f"the payment is at {job.elementId}, not at {element}"
        return job

    async def _give_back(self, job: ActivatedJob) -> None:
        request = FailJobRequest(jobKey=job.key, retries=job.retries, retryBackOff=2_000, errorMessage="not mine")
        await self.engine.gateway.FailJob(request)


def _job_type(element: str) -> str:
    found = {task.job_type for process in bpmn.processes() for task in process.jobs if task.element == element}
    assert len(found) == 1, f"{element} is not one drawn job: {found}"
    return found.pop()


@pytest.fixture
async def payment(engine: ZeebeEngine, request: pytest.FixtureRequest) -> AsyncIterator[Payment]:
    """A payment that has not been accepted yet. Afterwards it has ended, over the paths that the test declares."""
    mine = Payment(engine)
    try:
        yield mine
        await mine.ended()
        assert sorted(_done(mine)) == sorted(_declared(request.function.paths))
        assert sorted(mine.heard) == sorted(_messages(request.function.paths))
    finally:
        for key in mine.roots:
            with suppress(NotFound):
                await engine.operate.cancel_instance(key)


def _done(payment: Payment) -> Iterator[tuple[str, tuple[str, ...]]]:
    for (process, _), elements in payment.done.items():
        yield process, tuple(elements)


def _declared(paths: list[tuple[str, tuple[str, ...]]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for process, elements in paths:
        tasks = {task.element for task in _process(process).jobs}
        if done := tuple(element for element in elements if element in tasks):  # a called process may only wait
            yield process, done


def _messages(paths: list[tuple[str, tuple[str, ...]]]) -> Iterator[str]:
    for process, elements in paths:
        caught = {catch.element: catch.message for catch in _process(process).messages if not catch.starts}
        yield from (caught[element] for element in elements if element in caught)


def _process(process_id: str) -> bpmn.Process:
    return next(process for process in bpmn.processes() if process.id == process_id)
