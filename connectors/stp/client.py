"""STP over HTTP. Each call comes to one of a few outcomes; nothing is retried here and no exception means "perhaps".

Whether an order left us is what the money hangs on, so transport failures are told apart by when they happen: before
the request could have left, it was certainly not sent; after that, nothing is certain.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Final, Protocol

import httpx
from prometheus_client import Counter, Histogram

from connectors.stp.model import SendOutcome
from connectors.stp.settings import StpSettings
from connectors.stp.signature import Signer
from connectors.stp.tracking import TrackingKey
from connectors.stp.wire import (
    Answer,
    InquiryAnswer,
    NoAnswer,
    classify,
    inquiry_body,
    inquiry_joined,
    read_inquiry,
)
from hub.failpoint import failpoint

REGISTER_PATH: Final = "/speiws/rest/ordenPago/registra"
INQUIRE_PATH: Final = "/efws/API/consultaOrden"

_BIGGEST_ANSWER: Final = 1_000_000
_JSON: Final = {"Content-Type": "application/json; charset=utf-8", "Accept": "application/json"}

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

    async def inquire(self, company: str, key: TrackingKey, day: date | None, signer: Signer) -> InquiryAnswer:
        """Ask for an order of ours on one operation date; without a date, on the current one."""
        ...


class StpHttp:
    """STP behind its base URL."""

    def __init__(self, http: httpx.AsyncClient, settings: StpSettings) -> None:
        self._http = http
        self._register_url = settings.base_url + REGISTER_PATH
        self._inquire_url = (settings.consult_url or settings.base_url) + INQUIRE_PATH
        self._send_limit = settings.connect_timeout + settings.read_timeout
        self._send_timeout = _timeout(settings.connect_timeout, settings.read_timeout)
        self._ask_limit = settings.connect_timeout + settings.consult_timeout
        self._ask_timeout = _timeout(settings.connect_timeout, settings.consult_timeout)

    async def register(self, body: str) -> Answer:
        began = time.perf_counter()
        failpoint("stp.register.before-http")
        answer = await self._sent(body)
        failpoint("stp.register.after-http")
        _seconds.labels("register").observe(time.perf_counter() - began)
        _calls.labels("register", answer.outcome).inc()
        return answer

    async def _sent(self, body: str) -> Answer:
        request = self._http.build_request(
            "PUT", self._register_url, content=body.encode(), headers=_JSON, timeout=self._send_timeout
        )
        try:
            # httpx's read time-out starts again with each byte; this one does not.
            async with asyncio.timeout(self._send_limit):
                status, answer = await self._whole(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            return Answer(SendOutcome.NOT_SENT, detail=f"no connection to STP: {type(error).__name__}")
        except (httpx.HTTPError, TimeoutError) as error:
            return Answer(SendOutcome.UNKNOWN, detail=f"no answer from STP: {type(error).__name__}")
        return classify(status, answer)

    async def inquire(self, company: str, key: TrackingKey, day: date | None, signer: Signer) -> InquiryAnswer:
        began = time.perf_counter()
        signature = await signer.sign_aside(inquiry_joined(company, key, day))
        request = self._http.build_request(
            "POST",
            self._inquire_url,
            content=inquiry_body(company, key, day, signature),
            headers=_JSON,
            timeout=self._ask_timeout,
        )
        answer: InquiryAnswer
        try:
            async with asyncio.timeout(self._ask_limit):
                answer = read_inquiry(*await self._whole(request))
        except (httpx.HTTPError, TimeoutError) as error:
            answer = NoAnswer(f"no answer from STP: {type(error).__name__}")
        _seconds.labels("inquire").observe(time.perf_counter() - began)
        _calls.labels("inquire", type(answer).__name__).inc()
        return answer

    async def _whole(self, request: httpx.Request) -> tuple[int, bytes]:
        """The status and the body, up to a size beyond which it is no answer of STP's."""
        response = await self._http.send(request, stream=True, follow_redirects=False)
        try:
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _BIGGEST_ANSWER:
                    raise httpx.DecodingError("the answer is too large", request=request)
        finally:
            await response.aclose()
        return response.status_code, body


@asynccontextmanager
async def open_stp(settings: StpSettings) -> AsyncIterator[StpHttp]:
    """One pooled client for all calls, closed on leaving. Proxies named in the environment are ignored."""
    verify = ssl.create_default_context(cafile=str(settings.ca_file)) if settings.ca_file else True
    # Idle connections are dropped before STP's front does it: an order sent into a dying connection would be UNKNOWN.
    limits = httpx.Limits(
        max_connections=settings.connections, max_keepalive_connections=settings.connections, keepalive_expiry=3
    )
    async with httpx.AsyncClient(limits=limits, verify=verify, follow_redirects=False, trust_env=False) as http:
        yield StpHttp(http, settings)


def _timeout(connect: float, read: float) -> httpx.Timeout:
    return httpx.Timeout(connect=connect, read=read, write=read, pool=connect)
