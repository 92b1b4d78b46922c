"""The HTTP application of operators: one router per slice, under `/api/v1`."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI

from hub.api import Verifier, build_app
from hub.connector import Probe


def operations_app(verifier: Verifier, probes: Mapping[str, Probe]) -> FastAPI:
    """The operations API."""
    return build_app("operations", probes=probes, verifier=verifier)
