"""Run by Alembic: the schema `ams`."""

from __future__ import annotations

from hub.migrations import revise

revise("ams")
