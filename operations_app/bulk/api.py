"""Bulk operations over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["bulk"])
"""Included under `/api/v1`."""
