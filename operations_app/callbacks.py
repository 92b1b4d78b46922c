"""What STP told us, and doing it again."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["callbacks"])
"""Included under `/api/v1`."""
