"""The drawings that are deployed."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["processes"])
"""Included under `/api/v1`."""
