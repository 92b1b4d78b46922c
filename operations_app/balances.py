"""Balances of accounts and stores."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["balances"])
"""Included under `/api/v1`."""
