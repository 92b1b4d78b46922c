"""A settled payment may still be returned; every other final outcome stays for ever."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _keep_unless("OLD.outcome = 'UNKNOWN' OR (OLD.outcome = 'SETTLED' AND NEW.outcome IS NOT DISTINCT FROM 'RETURNED')")


def downgrade() -> None:
    _keep_unless("OLD.outcome = 'UNKNOWN'")


def _keep_unless(allowed: str) -> None:
    op.get_bind().exec_driver_sql(
        f"""
        CREATE OR REPLACE FUNCTION channel.keep_final_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.outcome IS DISTINCT FROM OLD.outcome AND OLD.outcome IS NOT NULL AND NOT ({allowed}) THEN
                RAISE EXCEPTION 'a final outcome never changes';
            END IF;
            RETURN NEW;
        END $$;
        """
    )
