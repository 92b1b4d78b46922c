"""The ceiling: the same drawings on the same engine, with workers that do nothing but answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from connectors.ams.model import BookTransfer, CaptureHold, HoldFunds, QuoteTransfer, ReleaseHold
from connectors.channel.model import ClaimPayment, PaymentAccepted, RecordOutcome
from connectors.stp.model import InquireOrder, OrderStatusChanged, SendOrder
from hub.errors import Unavailable
from hub.jobs import Job, Result, handlers_of, handles
from hub.messages import Message
from hub.settings import EngineSettings
from hub.transfer import IdentifierType, Outcome, Party, PaymentId, Reason, TenantId
from hub.zeebe.client import ZeebeEngine, open_engine
from hub.zeebe.worker import Worker, WorkerSettings

ON_US = Party(id_type=IdentifierType.MSISDN, identifier="525511110002", name="Bruno Lima")
ELSEWHERE = Party(id_type=IdentifierType.CLABE, identifier="012180001183597198", name="Luis Vega")
PAYER = Party(id_type=IdentifierType.MSISDN, identifier="525511110001", name=None)


class _NoWork:
    """Answers every job at once. STP's status is published as soon as the order is "sent"."""

    def __init__(self, engine: ZeebeEngine) -> None:
        self._engine = engine
        self._tasks: set[asyncio.Task[object]] = set()
        self._ends: defaultdict[str, asyncio.Future[float]] = defaultdict(asyncio.get_running_loop().create_future)

    def end_of(self, payment: str) -> asyncio.Future[float]:
        """Resolves to the moment at which the payment ended."""
        return self._ends[payment]

    @handles(ClaimPayment)
    async def claim_payment(self, _: ClaimPayment) -> Result:
        return ClaimPayment.result_type().model_validate({"duplicate": False})

    @handles(QuoteTransfer)
    async def quote_transfer(self, job: QuoteTransfer) -> Result:
        on_us = job.payee.id_type is IdentifierType.MSISDN
        quoted = {"payer_account": "a", "payee_account": "b" if on_us else None, "fee": 350, "on_us": on_us}
        return QuoteTransfer.result_type().model_validate(quoted)

    @handles(HoldFunds)
    async def hold_funds(self, job: HoldFunds) -> Result:
        return _empty(job)

    @handles(BookTransfer)
    async def book_transfer(self, _: BookTransfer) -> Result:
        booked = {"outcome": Outcome.SETTLED, "reason": Reason.NONE, "reason_detail": None}
        return BookTransfer.result_type().model_validate(booked)

    @handles(SendOrder)
    async def send_order(self, job: SendOrder) -> Result:
        settled = OrderStatusChanged.model_validate(
            {
                "payment_id": job.payment_id,
                "outcome": Outcome.SETTLED,
                "reason": Reason.NONE,
                "reason_detail": None,
                "observation": "settled",
            }
        )
        publishing = asyncio.create_task(_published(self._engine, settled))
        self._tasks.add(publishing)
        publishing.add_done_callback(self._tasks.discard)
        sent = {"order_state": "ACCEPTED", "inquire_after": "PT30S", "inquire_again_after": "PT1H", "inquiries": 0}
        return SendOrder.result_type().model_validate(sent)

    @handles(InquireOrder)
    async def inquire_order(self, job: InquireOrder) -> Result:
        raise AssertionError(f"the engine lost the status of {job.payment_id}")

    @handles(CaptureHold)
    async def capture_hold(self, job: CaptureHold) -> Result:
        return _empty(job)

    @handles(ReleaseHold)
    async def release_hold(self, job: ReleaseHold) -> Result:
        return _empty(job)

    @handles(RecordOutcome)
    async def record_outcome(self, job: RecordOutcome) -> Result:
        end = self._ends[job.payment_id]
        if not end.done():
            end.set_result(time.monotonic())
        return Result()


async def _published(engine: ZeebeEngine, message: Message) -> None:
    """Publish until the engine takes it: under load it turns messages away."""
    while True:
        with suppress(Unavailable):
            await engine.publish(message)
            return


def _empty(job: Job[Result]) -> Result:
    return job.result_type()()


class EngineOnly:
    """Payments through the drawings without any work done."""

    def __init__(self, engine: ZeebeEngine, no_work: _NoWork) -> None:
        self._engine = engine
        self._no_work = no_work

    @classmethod
    @asynccontextmanager
    async def open(cls, address: str) -> AsyncIterator[EngineOnly]:
        """Workers that answer every job of the drawings, until this context is left."""
        async with open_engine(EngineSettings(address=address)) as engine:
            no_work = _NoWork(engine)
            stop = asyncio.Event()
            worker = Worker(engine, handlers_of([no_work]), name="no-work", settings=WorkerSettings())
            working = asyncio.create_task(worker.run(stop))
            try:
                yield cls(engine, no_work)
            finally:
                stop.set()
                await working

    async def _start(self, number: int) -> str:
        payment = PaymentId(str(uuid.uuid4()))
        accepted = PaymentAccepted(
            payment_id=payment,
            tenant_id=TenantId("acme"),
            amount=200,
            currency="MXN",
            payer=PAYER,
            payee=ELSEWHERE if number % 2 else ON_US,
            concept="Benchmark",
            reference_number=None,
        )
        await _published(self._engine, accepted)
        return payment

    async def throughput(self, payments: int, open_at_most: int = 40) -> float:
        """Payments per second with this many open at a time."""
        began, gate = time.monotonic(), asyncio.Semaphore(open_at_most)

        async def one(number: int) -> None:
            async with gate:
                await self._no_work.end_of(await self._start(number))

        await asyncio.gather(*(one(number) for number in range(payments)))
        return payments / (time.monotonic() - began)

    async def latencies(self, payments: int, rate: float) -> list[float]:
        """Seconds from the start of each payment to its end, started at `rate` per second whatever happens."""

        async def one(number: int) -> float:
            due = time.monotonic()
            return await self._no_work.end_of(await self._start(number)) - due

        running = []
        for number in range(payments):
            running.append(asyncio.create_task(one(number)))
            await asyncio.sleep(1 / rate)
        return await asyncio.gather(*running)
