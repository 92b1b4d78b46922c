"""What is stuck, grouped by why."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["incidents"])
"""Included under `/api/v1`."""
