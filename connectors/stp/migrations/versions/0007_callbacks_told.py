"""Callbacks are told to the audit view: each change of a callback has a number, and the last one told is kept."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        CREATE SEQUENCE stp.callback_change;
        ALTER TABLE stp.callback
            ADD COLUMN change bigint NOT NULL DEFAULT nextval('stp.callback_change'),
            ADD COLUMN told   bigint NOT NULL DEFAULT 0;
        ALTER SEQUENCE stp.callback_change OWNED BY stp.callback.change;
        COMMENT ON COLUMN stp.callback.change IS 'number of the latest change of this row; only grows';
        COMMENT ON COLUMN stp.callback.told IS 'the change that Kafka was told last';
        CREATE INDEX callback_untold ON stp.callback (change) WHERE told < change;
        CREATE FUNCTION stp.number_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.change := nextval('stp.callback_change');
            RETURN NEW;
        END $$;
        CREATE TRIGGER callback_changes BEFORE UPDATE ON stp.callback FOR EACH ROW
            WHEN (NEW.told = OLD.told) EXECUTE FUNCTION stp.number_change();
        CREATE INDEX deposit_of_callback ON stp.deposit (callback_id);
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP INDEX stp.deposit_of_callback;
        DROP TRIGGER callback_changes ON stp.callback;
        DROP FUNCTION stp.number_change();
        ALTER TABLE stp.callback DROP COLUMN change, DROP COLUMN told;
        """
    )
