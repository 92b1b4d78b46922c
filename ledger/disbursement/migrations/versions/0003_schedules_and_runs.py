"""When stores are due, and what each run found."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    # Sent as written: SQLAlchemy's text() would take `:name` and psycopg would take `%` for parameters.
    cursor = op.get_bind().connection.cursor()
    cursor.execute((_SQL / "0003_tables.sql").read_text(encoding="utf-8"))
    cursor.close()


def downgrade() -> None:
    op.execute("DROP TABLE disbursement.run_store, disbursement.run, disbursement.schedule")
