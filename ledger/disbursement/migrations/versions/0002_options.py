"""Payment options, edits, and what partners sent before."""

from __future__ import annotations

from pathlib import Path

from hub.migrations import run_script

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    run_script(_SQL / "0002_tables.sql")


def downgrade() -> None:
    run_script(_SQL / "0002_down.sql")
