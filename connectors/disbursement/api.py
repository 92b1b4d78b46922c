"""Partners, treasury and operations over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI

from hub.api import Verifier, build_app
from hub.connector import Probe
from hub.statements import Statements


def disbursement_app(statements: Statements, verifier: Verifier, probes: Mapping[str, Probe]) -> FastAPI:
    """The HTTP interface of stores, credits, balances and disbursements."""
    app = build_app("disbursement", probes=probes, verifier=verifier)
    app.state.statements = statements
    return app
