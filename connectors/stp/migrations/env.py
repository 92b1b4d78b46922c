"""Run by Alembic: the schema `stp`."""

from __future__ import annotations

from hub.migrations import revise

revise("stp")
