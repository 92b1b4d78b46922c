"""Lists to take away."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["export"])
"""Included under `/api/v1`."""
