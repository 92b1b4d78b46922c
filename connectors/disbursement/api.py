"""Partners, treasury and operations over HTTP, one router per slice.

A partner sees what belongs to its own merchants; each route says which roles are staff to it. The tenant of the token
is the tenant: another's objects are not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from connectors.disbursement import balances_api, credits_api, merchants_api, reports_api
from connectors.disbursement.access import PARTNER, STAFF, Deeds, on_refusal
from connectors.disbursement.description import describe
from hub.api import Caller, Verifier, build_app, require
from hub.connector import Probe
from hub.statements import Statements
from ledger.disbursement.eligibility import Eligibility
from ledger.disbursement.events import EventLog
from ledger.disbursement.model import DisbursementRefused
from ledger.disbursement.pricing import Commissions
from ledger.disbursement.runs import Defaults, Runs
from ledger.model import LedgerRefused

router = APIRouter(tags=["description"])


@router.get("/openapi.json", response_class=JSONResponse)
async def description(_: Annotated[Caller, Depends(require(PARTNER, *STAFF))], request: Request) -> JSONResponse:
    """What can be asked, as OpenAPI."""
    return JSONResponse(request.app.openapi())


def disbursement_app(
    statements: Statements, verifier: Verifier, probes: Mapping[str, Probe], defaults: Defaults | None = None
) -> FastAPI:
    """The HTTP interface of stores, credits, balances and disbursements. `defaults`: when stores are due otherwise."""
    app = build_app("disbursement", probes=probes, verifier=verifier)
    app.state.statements = statements
    app.state.deeds = Deeds(statements)
    app.state.commissions = Commissions(statements)
    app.state.events = EventLog(statements)
    app.state.runs = Runs(statements, defaults)
    app.state.eligibility = Eligibility(statements)
    app.add_exception_handler(DisbursementRefused, on_refusal)
    app.add_exception_handler(LedgerRefused, on_refusal)
    for part in (merchants_api, credits_api, balances_api, reports_api):
        app.include_router(part.router)
    app.include_router(router)
    describe(app)
    return app
