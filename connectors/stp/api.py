"""What STP calls: `POST /stp/order-status` and `POST /stp/deposits`.

Who calls is checked before a byte of the body is read; the raw body is committed before it is parsed; the answer is
given after that. STP repeats a callback until the answer is one it understands: `{"mensaje": "recibido"}` to a status,
`{"mensaje": "confirmar"}` or `{"mensaje": "devolver", "id": CAUSE}` (HTTP 400) to a deposit.
"""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request
from pydantic_core import to_json
from starlette.middleware import Middleware
from starlette.responses import Response

from connectors.stp.authentication import Authentication, Gate
from connectors.stp.callbacks import Callbacks
from connectors.stp.deposit_store import DepositAnswer
from connectors.stp.deposits import Deposits
from connectors.stp.orders import CallbackResult
from connectors.stp.settings import StpCallbackSettings
from hub.api import Problem, build_app

RECEIVED: Final = b'{"mensaje":"recibido"}'
KEEP: Final = b'{"mensaje":"confirmar"}'


def build_callbacks_app(settings: StpCallbackSettings, callbacks: Callbacks, deposits: Deposits) -> FastAPI:
    """The application that STP calls. Health and metrics need no authentication; everything under /stp does.

    Raises `SettingsError` when a check that the settings ask for cannot be made.
    """
    app = build_app("STP callbacks")
    authentication = Authentication(settings)
    # Inside the edge, which counts and logs the refusal, and outside of what reads the body.
    app.user_middleware.insert(1, Middleware(Gate, authentication=authentication))

    async def body_of(request: Request) -> bytes:
        body = await request.body()
        authentication.check_body(request.scope, body)
        return body

    @app.post("/stp/order-status", response_class=Response)
    async def order_status(request: Request) -> Response:
        """An order's status changed. A repeat, an unknown order and an unknown status are stored and answered alike."""
        result = await callbacks.receive(await body_of(request), settings.publish_within)
        if result is CallbackResult.MALFORMED:
            raise Problem(400, "malformed-status", "The body is no order status of any known form; it was kept.")
        return Response(RECEIVED, media_type="application/json")

    @app.post("/stp/deposits", response_class=Response)
    async def deposit(request: Request) -> Response:
        """Money came in. The same deposit is always answered alike."""
        reply = await deposits.receive(await body_of(request), settings.deposit_answer_within)
        if reply.answer is None:
            raise Problem(400, "malformed-deposit", "The body is no deposit of any known form; it was kept.")
        if reply.answer is DepositAnswer.KEEP:
            return Response(KEEP, media_type="application/json")
        back = to_json({"mensaje": reply.answer.value, "id": reply.cause})
        return Response(back, status_code=400, media_type="application/json")

    return app
