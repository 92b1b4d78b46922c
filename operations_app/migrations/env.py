"""Run by Alembic: the schema `operations`."""

from __future__ import annotations

from hub.migrations import revise

revise("operations")
