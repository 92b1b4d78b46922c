"""How the parts of the hub are."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["health"])
"""Included under `/api/v1`."""
