"""Whose money an order moves."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


UP = (
    """
    ALTER TABLE stp.stp_order
        ADD COLUMN purpose text NOT NULL DEFAULT 'payment' CHECK (purpose IN ('payment', 'disbursement'))
    """,
    """
    COMMENT ON COLUMN stp.stp_order.purpose IS
        'a customer''s payment, or a disbursement of the tenant; who must hear of a late return depends on it'
    """,
)

DOWN = ("ALTER TABLE stp.stp_order DROP COLUMN purpose",)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
