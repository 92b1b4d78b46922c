"""Evidence and reading: roles, the hash chain, snapshots, and what a bank asks of its books."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def _run(script: str) -> None:
    # Sent as written: SQLAlchemy's text() would take `:name` and psycopg would take `%` for parameters.
    cursor = op.get_bind().connection.cursor()
    cursor.execute((_SQL / script).read_text(encoding="utf-8"))
    cursor.close()


def upgrade() -> None:
    _run("0003_tables.sql")
    _run("0003_functions.sql")
    _run("0003_grants.sql")


def downgrade() -> None:
    _run("0003_down.sql")
