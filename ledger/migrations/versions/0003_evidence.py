"""Evidence and reading: roles, the hash chain, snapshots, and what a bank asks of its books."""

from __future__ import annotations

from pathlib import Path

from hub.migrations import run_script

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    run_script(_SQL / "0003_tables.sql")
    run_script(_SQL / "0003_functions.sql")
    run_script(_SQL / "0003_grants.sql")


def downgrade() -> None:
    run_script(_SQL / "0003_down.sql")
