"""The HTTP application of operators: one router per slice, under `/api/v1`.

What the slices share lies in `app.state`: `views` (Elasticsearch), `database` (the connectors' tables and the
operator log), `ledger` (the book), `journal` (the operator log), `engine`, `settings`, `cursors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from hub.api import Caller, Verifier, build_app, caller
from hub.connector import Probe
from hub.messages import Engine
from hub.statements import Statements
from operations_app.actions.api import router as actions
from operations_app.audit import router as audit
from operations_app.balances import router as balances
from operations_app.bulk.api import router as bulk
from operations_app.callbacks import router as callbacks
from operations_app.compat import router as compat
from operations_app.cursors import PREFIX, Cursors, only_known_parameters
from operations_app.description import describe, operation_id
from operations_app.disbursements.api import router as disbursements
from operations_app.export import router as export
from operations_app.health import router as health
from operations_app.incidents import router as incidents
from operations_app.journal import Journal
from operations_app.processes import router as processes
from operations_app.reveal import Reveal
from operations_app.reveal import router as reveal
from operations_app.settings import OperationsSettings
from operations_app.transfers.api import router as transfers
from operations_app.views import Views

SLICES: Final[tuple[APIRouter, ...]] = (
    export,  # before transfers: /transfers.csv is not the payment ".csv"
    transfers,
    actions,
    incidents,
    audit,
    processes,
    bulk,
    callbacks,
    balances,
    disbursements,
    reveal,
    health,
)
"""What lies under `/api/v1`."""


def operations_app(
    verifier: Verifier,
    *,
    views: Views,
    database: Statements,
    ledger: Statements,
    journal: Journal,
    settings: OperationsSettings,
    engine: Engine | None = None,
    search_secret: bytes | None = None,
    probes: Mapping[str, Probe] | None = None,
) -> FastAPI:
    """The operations API. `engine` may be away for whoever only reads; `search_secret`: the exporters', with which a
    party is found by its whole identifier."""
    app = build_app("operations", probes=probes, verifier=verifier)
    app.state.views = views
    app.state.database = database
    app.state.ledger = ledger
    app.state.journal = journal
    app.state.engine = engine
    app.state.settings = settings
    app.state.search_secret = search_secret
    app.state.cursors = Cursors(settings.cursor_secret.get_secret_value().encode())
    for router, prefix in (*((one, PREFIX) for one in (*SLICES, own)), (compat, "")):
        app.include_router(
            router,
            prefix=prefix,
            dependencies=[Depends(only_known_parameters)],
            generate_unique_id_function=operation_id,
        )
    describe(app, (*SLICES, own, compat), {"reveal.reveal": Reveal})
    return app


own = APIRouter(tags=["description"])


@own.get("/openapi.json", response_class=JSONResponse)
async def openapi_document(request: Request, _: Annotated[Caller, Depends(caller)]) -> JSONResponse:
    """This description."""
    return JSONResponse(request.app.openapi())
