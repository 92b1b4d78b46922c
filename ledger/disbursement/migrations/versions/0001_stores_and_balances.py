"""Merchants, stores, credits, balance updates and bank transfers."""

from __future__ import annotations

from pathlib import Path

from hub.migrations import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    run_script(_SQL / "0001_tables.sql")
    run_script(_SQL / "0001_functions.sql")
    run_script(_SQL / "0001_grants.sql")


def downgrade() -> None:
    run_script(_SQL / "0001_down.sql")
