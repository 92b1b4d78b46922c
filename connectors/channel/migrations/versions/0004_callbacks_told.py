"""Callbacks are told to the audit view: each change of a callback has a number, and the last one told is kept."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        CREATE SEQUENCE channel.callback_change;
        ALTER TABLE channel.callback
            ADD COLUMN change bigint NOT NULL DEFAULT nextval('channel.callback_change'),
            ADD COLUMN told   bigint NOT NULL DEFAULT 0;
        ALTER SEQUENCE channel.callback_change OWNED BY channel.callback.change;
        COMMENT ON COLUMN channel.callback.change IS 'number of the latest change of this row; only grows';
        COMMENT ON COLUMN channel.callback.told IS 'the change that Kafka was told last';
        CREATE INDEX callback_untold ON channel.callback (change) WHERE told < change;
        CREATE FUNCTION channel.number_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.change := nextval('channel.callback_change');
            RETURN NEW;
        END $$;
        CREATE TRIGGER callback_changes BEFORE UPDATE ON channel.callback FOR EACH ROW
            WHEN (NEW.told = OLD.told) EXECUTE FUNCTION channel.number_change();
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP TRIGGER callback_changes ON channel.callback;
        DROP FUNCTION channel.number_change();
        ALTER TABLE channel.callback DROP COLUMN change, DROP COLUMN told;
        """
    )
