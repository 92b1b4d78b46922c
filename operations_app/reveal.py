"""Personal data, shown to whoever may see it and written down."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["reveal"])
"""Included under `/api/v1`."""
