"""The routes of Payment Hub EE's operations application that only read."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["compat"])
"""Included under `/api/v1`."""
