"""What merchants are told about their transfers, and how the telling went."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def _run(script: str) -> None:
    # Sent as written: SQLAlchemy's text() would take `:name` and psycopg would take `%` for parameters.
    cursor = op.get_bind().connection.cursor()
    cursor.execute((_SQL / script).read_text(encoding="utf-8"))
    cursor.close()


def upgrade() -> None:
    _run("0004_tables.sql")


def downgrade() -> None:
    _run("0004_down.sql")
