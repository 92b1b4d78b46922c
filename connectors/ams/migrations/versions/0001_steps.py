"""What was asked of an account system that cannot be asked by a payment's id."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        CREATE TABLE ams.step (
            tenant_id  text        NOT NULL,
            payment_id text        NOT NULL,
            step       text        NOT NULL CHECK (step IN ('hold', 'end', 'credit', 'reverse')),
            kind       text        NOT NULL CHECK (kind IN ('hold', 'capture', 'book', 'release', 'credit', 'reverse')),
            account    text        NOT NULL,
            currency   text        NOT NULL,
            amount     bigint      NOT NULL CHECK (amount > 0),
            fee        bigint      NOT NULL CHECK (fee >= 0),
            payee      text,
            claimed_at timestamptz NOT NULL DEFAULT now(),
            done_at    timestamptz,
            PRIMARY KEY (tenant_id, payment_id, step)
        );
        COMMENT ON TABLE ams.step IS
            'One row per effect on the account system: claimed before it is sent, done when it certainly happened. A '
            'row that is not done may have been sent, so the account system is asked before it is sent again';
        COMMENT ON COLUMN ams.step.account IS 'the payer''s; of a credit, the payee''s';
        COMMENT ON COLUMN ams.step.amount IS 'minor units, without the fee';
        COMMENT ON COLUMN ams.step.payee IS 'of a booking between two accounts of the tenant: who gets it';
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE ams.step")
