"""The book: accounts, postings, holds, and the functions that write them."""

from __future__ import annotations

from pathlib import Path

from hub.migrations import run_script

revision = "0001"
down_revision = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    run_script(_SQL / "0001_tables.sql")
    run_script(_SQL / "0001_functions.sql")


def downgrade() -> None:
    run_script(_SQL / "0001_down.sql")
