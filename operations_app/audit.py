"""The engine's records and operators' acts, searched."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["audit"])
"""Included under `/api/v1`."""
