"""STP over HTTP. Each call comes to one of a few outcomes; nothing is retried here and no exception means "perhaps".

Whether an order left us is what the money hangs on, so failures are told apart by when they happen: before the request
could have left, it was certainly not sent; after that, nothing is certain.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from typing import Final, Protocol

from prometheus_client import Counter, Histogram

from connectors.stp.model import SendOutcome
from connectors.stp.settings import StpSettings
from connectors.stp.signature import Signer
from connectors.stp.tracking import TrackingKey
from connectors.stp.transport import Line, NoReply, NotSent
from connectors.stp.wire import (
    Answer,
    InquiryAnswer,
    NoAnswer,
    classify,
    classify_return,
    inquiry_body,
    inquiry_joined,
    read_inquiry,
)
from hub.failpoint import failpoint

REGISTER_PATH: Final = "/speiws/rest/ordenPago/registra"
RETURN_PATH: Final = "/speiws/rest/ordenPago/retornaOrden"
INQUIRE_PATH: Final = "/efws/API/consultaOrden"

_calls = Counter("payhub_stp_calls", "Calls to STP by what they came to.", ("operation", "outcome"))
_seconds = Histogram(
    "payhub_stp_call_seconds",
    "Time of calls to STP.",
    ("operation",),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class Stp(Protocol):
    """The little that we ask of STP."""

    async def register(self, body: str) -> Answer:
        """Send an order, its body exactly as stored."""
        ...

    async def give_back(self, body: str) -> Answer:
        """Give a deposit back to its sender, the body exactly as stored."""
        ...

    async def inquire(self, company: str, key: TrackingKey, day: date | None, signer: Signer) -> InquiryAnswer:
        """Ask for an order of ours on one operation date; without a date, on the current one."""
        ...


class Budget(Protocol):
    """What STP allows a company to ask in an hour."""

    async def take(self, company: str) -> bool:
        """Whether one more question may be asked now; it then counts."""
        ...

    async def drain(self, company: str) -> None:
        """STP says that nothing is left."""
        ...


class StpHttp:
    """STP behind its two hosts: the one that takes orders and the one that answers questions."""

    def __init__(self, orders: Line, consults: Line, settings: StpSettings, budget: Budget | None = None) -> None:
        self._orders = orders
        self._consults = consults
        self._budget = budget
        self._connect_within = settings.connect_timeout
        self._answer_within = settings.read_timeout
        self._consult_within = settings.consult_timeout

    async def register(self, body: str) -> Answer:
        return await self._sent("register", REGISTER_PATH, body, classify)

    async def give_back(self, body: str) -> Answer:
        return await self._sent("give-back", RETURN_PATH, body, classify_return)

    async def _sent(self, operation: str, path: str, body: str, read: Callable[[int, bytes], Answer]) -> Answer:
        failpoint(f"stp.{operation}.before-http")
        answer = await self._answered(operation, path, body, read)
        failpoint(f"stp.{operation}.after-http")
        _calls.labels(operation, answer.outcome).inc()
        return answer

    async def _answered(self, operation: str, path: str, body: str, read: Callable[[int, bytes], Answer]) -> Answer:
        try:
            return read(*await self.command(operation, "PUT", path, body.encode()))
        except NotSent as error:
            return Answer(SendOutcome.NOT_SENT, detail=f"no connection to STP: {error}")
        except NoReply as error:
            return Answer(SendOutcome.UNKNOWN, detail=f"no answer from STP: {error}")

    async def inquire(self, company: str, key: TrackingKey, day: date | None, signer: Signer) -> InquiryAnswer:
        answer = await self._inquired(company, key, day, signer)
        _calls.labels("inquire", type(answer).__name__).inc()
        if isinstance(answer, NoAnswer) and answer.limited and self._budget is not None:
            await self._budget.drain(company)
        return answer

    async def _inquired(self, company: str, key: TrackingKey, day: date | None, signer: Signer) -> InquiryAnswer:
        if self._budget is not None and not await self._budget.take(company):
            return NoAnswer("this hour's inquiries are used up")
        signature = await signer.sign_aside(inquiry_joined(company, key, day))
        try:
            return read_inquiry(
                *await self.consult("inquire", INQUIRE_PATH, inquiry_body(company, key, day, signature))
            )
        except (NotSent, NoReply) as error:
            return NoAnswer(f"no answer from STP: {error}")

    async def command(self, operation: str, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """A call that changes something at STP: the HTTP status and the body. Raises `NotSent` and `NoReply`.

        `operation` is its name in the metrics.
        """
        with _seconds.labels(operation).time():
            return await self._orders.exchange(
                method, path, body, connect_within=self._connect_within, answer_within=self._answer_within
            )

    async def consult(self, operation: str, path: str, body: bytes) -> tuple[int, bytes]:
        """A question to STP: the HTTP status and the body. Raises `NotSent` and `NoReply`."""
        with _seconds.labels(operation).time():
            return await self._consults.exchange(
                "POST", path, body, connect_within=self._connect_within, answer_within=self._consult_within
            )


@asynccontextmanager
async def open_stp(settings: StpSettings, budget: Budget | None = None) -> AsyncIterator[StpHttp]:
    """The connections to STP, closed on leaving. Without a budget nobody counts what is asked."""
    tls = ssl.create_default_context(cafile=str(settings.ca_file)) if settings.ca_file else None
    orders = Line(settings.base_url, size=settings.connections, tls=tls)
    consults = Line(settings.consult_url or settings.base_url, size=settings.connections, tls=tls)
    try:
        yield StpHttp(orders, consults, settings, budget)
    finally:
        orders.close()
        consults.close()
