"""Evidence and reading: roles, the hash chain, snapshots, and what a bank asks of its books."""

from __future__ import annotations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
