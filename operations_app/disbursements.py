"""Payouts to stores."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["disbursements"])
"""Included under `/api/v1`."""
