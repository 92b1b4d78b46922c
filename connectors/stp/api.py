"""What STP calls: `POST /stp/order-status`.

Who calls is checked before a byte of the body is read; the raw body is committed before it is parsed; the answer
`{"mensaje": "recibido"}` is given after that, and STP repeats its callback until it gets exactly this.
"""

from __future__ import annotations

import hmac
from typing import Final

from fastapi import FastAPI, Request
from prometheus_client import Counter
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.stp.callbacks import Callbacks
from connectors.stp.orders import CallbackResult
from connectors.stp.settings import StpCallbackSettings
from hub.api import Problem, build_app
from hub.telemetry import logger

SECRET_HEADER: Final = "X-STP-Secret"  # noqa: S105 (the name, not the secret)
SHORT_SECRET: Final = 16
RECEIVED: Final = b'{"mensaje":"recibido"}'

_refused = Counter("payhub_stp_callbacks_refused", "Callbacks without the right secret.")

log = logger(__name__)


def build_callbacks_app(settings: StpCallbackSettings, callbacks: Callbacks) -> FastAPI:
    """The application that STP calls. Health and metrics need no secret; everything under /stp does."""
    app = build_app("STP callbacks")
    if len(settings.callback_secret.get_secret_value()) < SHORT_SECRET:
        log.warning("callback.secret-short", advice=f"use {SHORT_SECRET} random characters or more")
    # Inside the edge, which counts and logs the refusal, and outside of what reads the body.
    app.user_middleware.insert(1, Middleware(_Secret, secret=settings.callback_secret.get_secret_value()))

    @app.post("/stp/order-status", response_class=Response)
    async def order_status(request: Request) -> Response:
        """An order's status changed. A repeat, an unknown order and an unknown status are stored and answered alike."""
        result = await callbacks.receive(await request.body(), settings.publish_within)
        if result is CallbackResult.MALFORMED:
            raise Problem(400, "malformed-status", "The body is no order status of any known form; it was kept.")
        return Response(RECEIVED, media_type="application/json")

    return app


class _Secret:
    """Lets through what brings the shared secret, and answers 401 to the rest without reading it (L33)."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/stp/") or self._brought(scope):
            await self._app(scope, receive, send)
            return
        _refused.inc()
        log.warning("callback.refused", peer=(scope.get("client") or ("",))[0])
        detail = f"This needs the header {SECRET_HEADER} with the secret agreed upon."
        problem = Problem(
            401, "secret-missing", detail, headers={"WWW-Authenticate": SECRET_HEADER, "Connection": "close"}
        )
        await problem.response()(scope, receive, send)

    def _brought(self, scope: Scope) -> bool:
        name = SECRET_HEADER.lower().encode()
        given = [value for header, value in scope["headers"] if header == name]
        return len(given) == 1 and hmac.compare_digest(given[0], self._secret)
