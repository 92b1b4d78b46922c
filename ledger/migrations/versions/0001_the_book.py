"""The book: accounts, postings, holds, and the functions that write them."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

_SQL = Path(__file__).parent.parent / "sql"


def _run(script: str) -> None:
    # Sent as written: SQLAlchemy's text() would take `:name` and psycopg would take `%` for parameters.
    cursor = op.get_bind().connection.cursor()
    cursor.execute((_SQL / script).read_text(encoding="utf-8"))
    cursor.close()


def upgrade() -> None:
    _run("0001_tables.sql")
    _run("0001_functions.sql")


def downgrade() -> None:
    _run("0001_down.sql")
