"""Orders in full: deposits that are given back travel the same way as orders, each at most once."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


UP = (
    """
    ALTER TABLE stp.stp_order
        ADD COLUMN kind text NOT NULL DEFAULT 'order' CHECK (kind IN ('order', 'return')),
        ADD COLUMN deposit text,
        ADD CONSTRAINT stp_order_return_of CHECK ((kind = 'return') = (deposit IS NOT NULL))
    """,
    """
    COMMENT ON COLUMN stp.stp_order.kind IS
        'order: a payment of ours; return: an incoming transfer that we give back to its sender'
    """,
    "COMMENT ON COLUMN stp.stp_order.deposit IS 'digest of the deposit that is given back: a deposit goes back once'",
    "CREATE UNIQUE INDEX stp_order_deposit ON stp.stp_order (company, deposit) WHERE deposit IS NOT NULL",
)

DOWN = (
    "DROP INDEX stp.stp_order_deposit",
    "ALTER TABLE stp.stp_order DROP COLUMN deposit, DROP COLUMN kind",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
