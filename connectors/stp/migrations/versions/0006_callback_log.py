"""What an operator asks the inbox by: a payment, a tracking key."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX callback_of_payment ON stp.callback (payment_id, id) WHERE payment_id IS NOT NULL")
    op.execute("CREATE INDEX deposit_by_key ON stp.deposit (tracking_key)")


def downgrade() -> None:
    op.execute("DROP INDEX stp.deposit_by_key")
    op.execute("DROP INDEX stp.callback_of_payment")
