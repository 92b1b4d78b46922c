"""How every HTTP service of ours behaves at its edge, whatever it serves.

    app = build_app("channel", probes={"database": ...}, verifier=TokenVerifier(read(TokenSettings)))

    @app.get("/things/{thing}")
    async def thing(thing: str, caller: Annotated[Caller, Depends(require("viewer"))]) -> Thing: ...

Every error is `application/problem+json` (RFC 9457) with a stable `code`; a body is read whole, within a size and a
time, before anything else happens; health and metrics are the same everywhere; a log line names the route, never the
path, and nothing that a caller sent.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import socket
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hub.connector import Probe
from hub.errors import Rejected, Unavailable
from hub.telemetry import logger
from hub.transfer import TenantId

MAX_BODY: Final = 1_000_000
"""Bytes; a longer request body is refused with 413 while it is being read."""

RECEIPT_DEADLINE: Final = 10.0
"""Seconds in which the headers, and then the body, of a request must have arrived."""

PROBE_LIMIT: Final = 2.0
"""Seconds after which a readiness probe counts as failed."""

MAX_CONCURRENT: Final = 256
"""Requests answered at the same time by one process; the next one is told 503 and when to come back."""

_UNOBSERVED: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

_requests = Counter("payhub_http_requests", "Requests answered.", ("method", "route", "status"))
_seconds = Histogram(
    "payhub_http_request_seconds",
    "Time from the first byte of a request to the end of its answer.",
    ("method", "route"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_in_flight = Gauge("payhub_http_requests_in_flight", "Requests being answered now.")

log = logger(__name__)


# --- Problems -----------------------------------------------------------------------------------------------------


PROBLEM_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "An error (RFC 9457). `code` is for machines and never changes its meaning.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Each fault with its place: a `pointer` into the body, a `header` or a `parameter`.",
            "items": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}
"""What a `Problem` looks like, for descriptions of an API."""


class Problem(Exception):
    """An error answer: `raise Problem(409, "still-running", "The first request with this key has not ended.")`.

    `code` is for machines and never changes its meaning; `detail` is for people and must hold no personal data.
    `errors` lists single faults; each names its place by `pointer` (RFC 6901, into the body), `header` or `parameter`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.members = members
        super().__init__(f"{status} {code}")

    def response(self) -> Response:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.members,
        }
        if self.errors:
            body["errors"] = list(self.errors)
        return Response(
            to_json(body),
            status_code=self.status,
            headers=dict(self.headers) if self.headers else None,
            media_type="application/problem+json",
        )


def pointer(path: Sequence[str | int]) -> str:
    """The JSON pointer (RFC 6901) of a place in a body: `("payer", "partyIdInfo")` is `/payer/partyIdInfo`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


_CODES: Final = {
    "extra_forbidden": "unknown-field",
    "string_too_long": "too-long",
    "string_too_short": "too-short",
    "too_long": "too-long",
    "too_short": "too-short",
    "enum": "not-allowed",
    "literal_error": "not-allowed",
    "string_pattern_mismatch": "bad-format",
    "value_error": "not-valid",
}


def faults(errors: Sequence[ErrorDetails], place: str = "body") -> list[dict[str, str]]:
    """What pydantic found wrong, as the `errors` of a problem. The values themselves are left out."""
    return [_fault(error["type"], error["msg"], place, tuple(error["loc"])) for error in errors]


def _fault(kind: str, message: str, place: str, path: tuple[str | int, ...]) -> dict[str, str]:
    code = _CODES.get(kind) or ("wrong-type" if kind.endswith("_type") else kind.replace("_", "-"))
    named = {"header": "header", "query": "parameter", "path": "parameter", "cookie": "parameter"}.get(place)
    where = {named: ".".join(str(part) for part in path)} if named else {"pointer": pointer(path)}
    return {**where, "code": code, "detail": message.removeprefix("Value error, ")}


def not_valid(errors: Sequence[Mapping[str, str]]) -> Problem:
    """The 422 that lists every fault of a request."""
    return Problem(
        422, "not-valid", "The request was understood and is not acceptable; errors says where.", errors=errors
    )


def malformed_json(why: str = "") -> Problem:
    """The 400 for a body that is no JSON."""
    return Problem(400, "malformed-json", f"The body is not JSON{': ' if why else ''}{why}.")


M = TypeVar("M", bound=BaseModel)


async def read_json(request: Request, model: type[M]) -> M:
    """The body of a request as `model`, in one pass: for routes that answer often or check who calls before they read.

    Raises the 400, 415 or 422 that says what is wrong and where.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise Problem(415, "unsupported-media-type", "Send the body as application/json.")
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise malformed_json(str(found[0]["ctx"]["error"])) from None
        raise not_valid(faults(found)) from None


async def _on_problem(_: Request, error: Problem) -> Response:
    return error.response()


async def _on_validation(_: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        return malformed_json(str(found[0].get("ctx", {}).get("error", ""))).response()
    return not_valid(
        [_fault(one["type"], one["msg"], str(one["loc"][0]), tuple(one["loc"][1:])) for one in found]
    ).response()


async def _on_http(_: Request, error: HTTPException) -> Response:
    phrase = HTTPStatus(error.status_code).phrase
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code) or phrase.lower().replace(" ", "-")
    detail = {
        404: "There is nothing at this address.",
        405: "This address does not take this method; Allow names those it takes.",
    }.get(error.status_code, phrase + ".")
    return Problem(error.status_code, code, detail, headers=error.headers).response()


async def _on_unavailable(_: Request, error: Unavailable) -> Response:
    log.warning("request.unavailable", cause=str(error))
    wait = max(1, math.ceil(error.after.total_seconds())) if error.after else 1
    detail = "A part this needs is away for the moment. Nothing was done; the same request may be sent again."
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(wait)}).response()


async def _on_rejected(_: Request, error: Rejected) -> Response:
    return Problem(422, error.code(), error.detail or HTTPStatus(422).phrase + ".").response()


# --- The edge: pure ASGI, since every request passes here ---------------------------------------------------------


class _Edge:
    """Outermost of all: request id, security headers, metrics, the log line, a cap on concurrency, and the last net."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNOBSERVED:
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        request_id, trace_id = _ids(scope)
        bound = structlog.contextvars.bind_contextvars(request_id=request_id, trace_id=trace_id)

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).extend(
                    (
                        (b"x-request-id", request_id.encode()),
                        (b"cache-control", b"no-store"),
                        (b"x-content-type-options", b"nosniff"),
                    )
                )
            await send(message)

        self._running += 1
        _in_flight.inc()
        try:
            if self._running > MAX_CONCURRENT:
                problem = Problem(503, "overloaded", "Too many requests at once.", headers={"Retry-After": "1"})
                await problem.response()(scope, receive, send_observed)
            else:
                await self._app(scope, receive, send_observed)
        except Exception as error:  # noqa: BLE001 (the last net)
            # No message and no traceback: either may hold what the caller sent.
            log.error("request.failed", error=type(error).__name__, frames=_frames(error))  # noqa: TRY400
            if status:
                raise _Broken from None
            await Problem(500, "internal", "A defect on our side; it has been logged.").response()(
                scope, receive, send_observed
            )
        finally:
            self._running -= 1
            _in_flight.dec()
            method, route, took = scope["method"], _route_of(scope), time.perf_counter() - began
            if method not in _METHODS:
                method = "other"
            _requests.labels(method, route, status).inc()
            _seconds.labels(method, route).observe(took)
            log.info("request", method=method, route=route, status=status, ms=round(took * 1000, 1))
            structlog.contextvars.reset_contextvars(**bound)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Broken(Exception):
    """An answer broke off half-way; the server closes the connection."""


def _ids(scope: Scope) -> tuple[str, str]:
    """The caller's request id and W3C trace id when they are well formed, else new ones."""
    request_id = trace_id = ""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(found := value.decode("latin-1")):
            request_id = found
        elif name == b"traceparent" and (parsed := _TRACEPARENT.fullmatch(value.decode("latin-1"))):
            trace_id = parsed.group(1)
    trace_id = trace_id or secrets.token_hex(16)
    return request_id or trace_id, trace_id


def _route_of(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", None) or "unmatched"


def _frames(error: BaseException) -> list[str]:
    """Where it happened, innermost last, without any message or value."""
    return [
        f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-6:]
    ]


class _Receipt:
    """Reads a body whole before the application runs, so that size and time are refused in one place.

    The server underneath resets its own timer on each byte and never bounds a slow body. What was left unread makes the
    connection useless for a next request, hence `Connection: close` with each refusal.
    """

    def __init__(self, app: ASGIApp, limit: int, deadline: float) -> None:
        self._app, self._limit, self._deadline = app, limit, deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (length := _announced(scope)):
            await self._app(scope, receive, send)
            return
        try:
            if length > self._limit:
                raise self._too_large()
            async with asyncio.timeout(self._deadline):
                body = await self._whole(receive)
        except TimeoutError:
            late = Problem(
                408, "body-too-slow", f"The body did not arrive within {self._deadline:g} s.", headers=_CLOSE
            )
            await late.response()(scope, receive, send)
            return
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        if body is None:
            return
        message: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def receive_whole() -> Message:
            nonlocal message
            if message is None:
                return await receive()
            given, message = message, None
            return given

        await self._app(scope, receive_whole, send)

    async def _whole(self, receive: Receive) -> bytes | None:
        """The body, or nothing when the caller went away."""
        body: bytes = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                return body

    def _too_large(self) -> Problem:
        return Problem(413, "body-too-large", f"A body may hold {self._limit} bytes.", headers=_CLOSE)


_CLOSE: Final = {"Connection": "close"}


def _announced(scope: Scope) -> int:
    """The announced length of a body; 1 when it comes in chunks, 0 when there is none."""
    length = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value) if value.isdigit() else 1
        elif name == b"transfer-encoding":
            length = length or 1
    return length


# --- The application ----------------------------------------------------------------------------------------------


def build_app(
    title: str,
    *,
    version: str = "1",
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Any]] | None = None,
    probes: Mapping[str, Probe] | None = None,
    verifier: Verifier | None = None,
    max_body: int = MAX_BODY,
    receipt_deadline: float = RECEIPT_DEADLINE,
) -> FastAPI:
    """An application with the edge described above, `/health/live`, `/health/ready` and `/metrics`.

    `verifier` is needed as soon as a route asks for `caller` or `require`. More probes may come later: `add_probes`.
    `receipt_deadline` in seconds, `max_body` in bytes.
    """
    app = FastAPI(
        title=title,
        version=version,
        lifespan=lifespan,
        openapi_url=None,  # what there is to call is told to operators, from `app.openapi()`
        redirect_slashes=False,
        exception_handlers={
            Problem: _on_problem,
            RequestValidationError: _on_validation,
            HTTPException: _on_http,
            Unavailable: _on_unavailable,
            Rejected: _on_rejected,
        },
    )
    app.state.probes = dict(probes or {})
    app.state.verifier = verifier
    app.add_middleware(_Receipt, limit=max_body, deadline=receipt_deadline)
    app.add_middleware(_Edge)
    app.add_api_route("/health/live", _live, methods=["GET"], include_in_schema=False)
    app.add_api_route("/health/ready", _ready, methods=["GET"], include_in_schema=False)
    app.add_api_route("/metrics", _metrics, methods=["GET"], include_in_schema=False)
    return app


def add_probes(app: FastAPI, probes: Mapping[str, Probe]) -> None:
    """Let `/health/ready` look at these too."""
    app.state.probes.update(probes)


async def _live() -> Response:
    return Response(b'{"status":"alive"}', media_type="application/json")


async def _ready(request: Request) -> Response:
    probes: dict[str, Probe] = request.app.state.probes
    answers = await asyncio.gather(*(_looked_at(name, probe) for name, probe in probes.items()))
    checks = dict(zip(probes, answers, strict=True))
    failed = sorted(name for name, answer in checks.items() if answer != "ok")
    if failed:
        detail = f"Not ready: {', '.join(failed)}."
        return Problem(503, "not-ready", detail, headers={"Retry-After": "1"}, checks=checks).response()
    return Response(to_json({"status": "ready", "checks": checks}), media_type="application/json")


async def _looked_at(name: str, probe: Probe) -> str:
    try:
        async with asyncio.timeout(PROBE_LIMIT):
            await probe()
    except TimeoutError:
        return f"no answer in {PROBE_LIMIT:g} s"
    except Exception as error:  # noqa: BLE001 (a probe may fail in any way)
        log.warning("probe.failed", probe=name, error=type(error).__name__)
        return f"failed: {type(error).__name__}"
    return "ok"


async def _metrics() -> Response:
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


# --- Who calls ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as a token that we believe says."""

    subject: str
    tenant: TenantId
    roles: frozenset[str]


class NotAuthenticated(Exception):
    """The token is not to be believed. `code` is stable; `detail` says why without repeating the token."""

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {detail}")


class Verifier(Protocol):
    """Turns a bearer token into its caller."""

    async def verify(self, token: str) -> Caller:
        """Raises `NotAuthenticated`; `hub.errors.Unavailable` when the issuer's keys cannot be had."""
        ...


class _Bearer(HTTPBearer):
    """A dependency that is both the lock on the door and its entry in the service's description."""

    def __init__(self, *roles: str) -> None:
        super().__init__(auto_error=False, scheme_name="token", description="A JSON web token of the issuer.")
        self._roles = frozenset(roles)

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        found = await authenticated(request)
        if self._roles and self._roles.isdisjoint(found.roles):
            raise Problem(403, "role-missing", f"This needs one of the roles: {', '.join(sorted(self._roles))}.")
        return found


async def authenticated(request: Request) -> Caller:
    """Who calls. Raises the 401 with `WWW-Authenticate` when there is no token or not one that we believe."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        detail = "This needs the header Authorization: Bearer <token>."
        raise Problem(401, "token-missing", detail, headers={"WWW-Authenticate": 'Bearer realm="payhub"'})
    verifier: Verifier | None = request.app.state.verifier
    if verifier is None:
        raise LookupError("build_app was given no verifier")
    try:
        return await verifier.verify(token.strip())
    except NotAuthenticated as refused:
        challenge = f'Bearer realm="payhub", error="invalid_token", error_description="{refused.detail}"'
        raise Problem(401, refused.code, refused.detail, headers={"WWW-Authenticate": challenge}) from None


caller: Final[Callable[[Request], Awaitable[Caller]]] = _Bearer()
"""Dependency: who calls, whatever the roles."""


def require(*roles: str) -> Callable[[Request], Awaitable[Caller]]:
    """Dependency: who calls, provided that one of `roles` is among the caller's; 403 otherwise."""
    return _Bearer(*roles)


# --- Serving ------------------------------------------------------------------------------------------------------


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which leaves a connection alone that never finishes its headers; this one hangs up."""

    _headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._headers_due is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        self._no_longer_due()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._no_longer_due()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._headers_due = self.loop.call_later(RECEIPT_DEADLINE, self.transport.close)

    def _no_longer_due(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


class _Server(uvicorn.Server):
    """uvicorn takes the signals for itself and raises them again when it is done, which kills what is still open."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: ASGIApp, host: str, port: int, *, listening: socket.socket | None = None) -> None:
    """Serve until cancelled; then let running requests finish for 20 s at most. Signals belong to the process.

    Raises `OSError` at once when the address is taken; `listening` is a socket that is bound already, for whoever needs
    to know the port beforehand. Run it on uvloop.
    """
    listening = listening or socket.create_server((host, port), family=_family(host), backlog=2048)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = _Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=20,
        )
    )
    log.info("serving", port=listening.getsockname()[1])
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        await asyncio.wait({serving})
    finally:
        server.should_exit = True
        await serving
    raise RuntimeError("the server ended by itself")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
