"""Run by Alembic: the schema `disbursement`."""

from __future__ import annotations

from hub.migrations import revise

revise("disbursement")
