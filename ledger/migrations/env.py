"""Run by Alembic: the schema `ledger`."""

from __future__ import annotations

from hub.migrations import revise

revise("ledger")
