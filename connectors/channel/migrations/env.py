"""Run by Alembic: the schema `channel`."""

from __future__ import annotations

from hub.migrations import revise

revise("channel")
