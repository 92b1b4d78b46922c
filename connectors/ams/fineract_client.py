"""Fineract over HTTP. The money hangs on whether a request may have arrived, so failures are told apart by that.

could not connect, refused by credentials, 409, 429   Unavailable   nothing was done
no answer or no end of it, 5xx, nothing readable      Uncertain     of a change; of a question, Unavailable
an error of Fineract's                                Refused       with its code; the caller knows what it means
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

import httpx
from prometheus_client import Histogram

from connectors.ams import fineract_wire as wire
from connectors.ams.model import AccountUnknown, StatementLine
from connectors.ams.settings import FineractSettings
from hub.errors import Unavailable, Uncertain
from hub.failpoint import failpoint
from hub.money import Money
from hub.transfer import TenantId

T = TypeVar("T")

Action = Literal["PREPARE", "CREATE", "RELEASE"]

_TENANT: Final = "Fineract-Platform-TenantId"
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}
_BIGGEST_ANSWER: Final = 20_000_000  # an account's whole life, when it has to be looked up
_NOT_DONE: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})

_seconds = Histogram(
    "payhub_ams_fineract_call_seconds",
    "Time of calls to Fineract.",
    ("operation", "outcome"),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class Refused(Exception):
    """Fineract's certain no, with its code; empty for a no that gives none."""

    def __init__(self, code: str, status: int) -> None:
        self.code, self.status = code, status
        super().__init__(f"{code or 'no code'} ({status})")


class Fineract:
    """One Fineract, all its tenants. Methods raise as said above; account ids are external ids."""

    def __init__(self, http: httpx.AsyncClient, settings: FineractSettings) -> None:
        self._http, self._settings = http, settings
        self._limit = settings.connect_timeout + settings.read_timeout

    async def party(self, tenant: TenantId, id_type: str, identifier: str) -> str:
        """The account that an identifier points to."""
        path = f"interoperation/parties/{id_type}/{_segment(identifier)}"
        return await self._ask("party", self._request(tenant, "GET", path), wire.read_party)

    async def account(self, tenant: TenantId, account: str) -> wire.Account:
        path = f"interoperation/accounts/{_segment(account)}"
        return await self._ask("account", self._request(tenant, "GET", path), wire.read_account)

    async def holder(self, tenant: TenantId, client: int) -> str | None:
        """A customer's name."""
        return await self._ask("client", self._request(tenant, "GET", f"clients/{client}"), wire.read_holder)

    async def quote(self, tenant: TenantId, account: str, amount: Money) -> Money:
        """What paying costs the payer. It changes nothing, so it may be asked again."""
        request = self._request(tenant, "POST", "interoperation/quotes", body=wire.quote_body(account, amount))
        return await self._ask("quote", request, partial(wire.read_fee, currency=amount.currency))

    async def transactions(self, tenant: TenantId, account: str, currency: str) -> list[StatementLine]:
        """All that was booked on an account, newest first."""
        path = f"interoperation/accounts/{_segment(account)}/transactions"
        request = self._request(tenant, "GET", path, {"debit": "true", "credit": "true"})
        return await self._ask("transactions", request, partial(wire.read_statement, currency=currency))

    async def savings(self, tenant: TenantId, account: str) -> wire.Savings:
        """An account with all its transactions: what is looked at when an answer is missing."""
        path = f"savingsaccounts/external-id/{_segment(account)}"
        return await self._ask(
            "savings", self._request(tenant, "GET", path, {"associations": "transactions"}), wire.read_savings
        )

    async def transfer(self, tenant: TenantId, action: Action, transfer: wire.Transfer) -> None:
        """Hold, pay or free money. Raises `Uncertain` when Fineract may have done it."""
        path = "interoperation/transfers"
        request = self._request(tenant, "POST", path, {"action": action}, transfer.body())
        failpoint(f"ams.fineract.{action.lower()}.before-http")
        await self._sent(action.lower(), request)
        failpoint(f"ams.fineract.{action.lower()}.after-http")

    async def undo(self, tenant: TenantId, savings: int, transaction: int) -> None:
        """Take a transaction back: it stays, marked reversed. Raises `Uncertain` when Fineract may have done it."""
        path = f"savingsaccounts/{savings}/transactions/{transaction}"
        await self._sent("undo", self._request(tenant, "POST", path, {"command": "undo"}, b"{}"))

    async def ping(self) -> None:
        """Raises `Unavailable`. Its own health page answers `OK`, which says nothing of the database behind it."""
        known = self._settings.tenants
        tenant = TenantId(next(iter(known), "default") if known else "default")
        with suppress(Refused):  # it answers, whatever it says
            await self.party(tenant, "ALIAS", "payhub-ping")

    # --- The line ---

    def _request(
        self,
        tenant: TenantId,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> httpx.Request:
        headers = {**_JSON, _TENANT: self._tenant(tenant)}
        url = f"{self._settings.base_url}/{path}"
        return self._http.build_request(method, url, params=query, content=body, headers=headers)

    async def _ask(self, operation: str, request: httpx.Request, read: Callable[[Any], T]) -> T:
        """A question: whatever goes wrong with it, nothing was done."""
        try:
            return read(await self._sent(operation, request))
        except Uncertain as error:
            raise Unavailable(str(error), error.after) from error
        except wire.NotFineract as error:
            raise Unavailable(f"Fineract's answer is {error}") from error

    async def _sent(self, operation: str, request: httpx.Request) -> Any:
        began, outcome = time.perf_counter(), "failed"
        try:
            answer = await self._answer(request)
            outcome = "answered"
        except Refused as refused:
            outcome = refused.code or str(refused.status)
            raise
        finally:
            _seconds.labels(operation, outcome).observe(time.perf_counter() - began)
        return answer

    async def _answer(self, request: httpx.Request) -> Any:
        try:
            async with asyncio.timeout(self._limit):  # httpx's own starts again with each byte
                status, headers, content = await self._whole(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise Unavailable(f"no connection to Fineract: {type(error).__name__}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise Uncertain(f"no answer from Fineract: {type(error).__name__}") from error
        if status in _NOT_DONE:
            raise Unavailable(f"Fineract answered {status}", _after(headers))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Uncertain(f"Fineract answered {status}", _after(headers))
        try:
            answer = wire.read_body(content)
        except wire.NotFineract as error:
            raise Uncertain(f"Fineract answered {status}, unreadable") from error
        if status >= HTTPStatus.BAD_REQUEST:
            raise Refused(wire.error_code(answer), status)
        return answer

    async def _whole(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytes]:
        response = await self._http.send(request, stream=True, follow_redirects=False)
        try:
            content = b""
            async for part in response.aiter_bytes():
                content += part
                if len(content) > _BIGGEST_ANSWER:
                    raise httpx.DecodingError("the answer is too large", request=request)
        finally:
            await response.aclose()
        return response.status_code, response.headers, content

    def _tenant(self, tenant: TenantId) -> str:
        known = self._settings.tenants
        if known is None:
            return tenant
        if tenant not in known:
            raise AccountUnknown("tenant")
        return known[tenant]


@asynccontextmanager
async def open_fineract(settings: FineractSettings) -> AsyncIterator[Fineract]:
    """One pooled client for all calls, closed on leaving. Proxies named in the environment are ignored."""
    if settings.base_url.startswith("https://"):
        verify = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    else:
        verify = ssl.SSLContext(
            ssl.PROTOCOL_TLS_CLIENT
        )  # trusts nobody; loading whom to trust takes a tenth of a second
    # Idle connections are dropped before Fineract's front does it: a change sent into a dying one would be uncertain.
    limits = httpx.Limits(
        max_connections=settings.connections, max_keepalive_connections=settings.connections, keepalive_expiry=3
    )
    timeout = httpx.Timeout(
        connect=settings.connect_timeout,
        read=settings.read_timeout,
        write=settings.read_timeout,
        pool=settings.connect_timeout,
    )
    auth = httpx.BasicAuth(settings.user, settings.password.get_secret_value())
    async with httpx.AsyncClient(
        limits=limits, timeout=timeout, auth=auth, verify=verify, follow_redirects=False, trust_env=False
    ) as http:
        yield Fineract(http, settings)


def _segment(text: str) -> str:
    return quote(text, safe="")


def _after(headers: httpx.Headers) -> timedelta | None:
    said = headers.get("retry-after", "")
    return timedelta(seconds=min(int(said), 3600)) if said.isascii() and said.isdigit() else None
