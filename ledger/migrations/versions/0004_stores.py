"""Accounts of the lender's business: what stores are owed, what borrowers owe, and what is earned on it."""

from __future__ import annotations

from pathlib import Path

from hub.migrations import run_script

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    run_script(_SQL / "0004_chart.sql")


def downgrade() -> None:
    run_script(_SQL / "0004_down.sql")
