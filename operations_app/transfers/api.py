"""Payments found and shown."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["transfers"])
"""Included under `/api/v1`."""
