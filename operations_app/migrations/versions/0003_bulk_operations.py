"""Bulk operations: one action over a frozen list of payments."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Sent as written: SQLAlchemy and psycopg would take % for parameters.
    cursor = op.get_bind().connection.cursor()
    cursor.execute(_UP)
    cursor.close()


_UP = """
CREATE TABLE operations.bulk_operation (
    id               uuid        PRIMARY KEY,
    tenant_id        text        NOT NULL,
    kind             text        NOT NULL,
    asked            jsonb       NOT NULL,
    selection        jsonb       NOT NULL,
    reason_code      text        NOT NULL,
    reason           text        NOT NULL,
    dry_run          boolean     NOT NULL,
    per_second       integer     NOT NULL CHECK (per_second BETWEEN 1 AND 100),
    at_once          integer     NOT NULL CHECK (at_once BETWEEN 1 AND 50),
    approvals_needed smallint    NOT NULL CHECK (approvals_needed BETWEEN 0 AND 2),
    state            text        NOT NULL CHECK (state IN ('REQUESTED', 'RUNNING', 'SUSPENDED', 'COMPLETED',
        'CANCELLED', 'REJECTED', 'WITHDRAWN', 'EXPIRED')),
    items            integer     NOT NULL CHECK (items > 0),
    totals           jsonb       NOT NULL,
    list_sha256      bytea       NOT NULL,
    requested_by     text        NOT NULL,
    roles            text[]      NOT NULL,
    requested_at     timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz NOT NULL,
    next_at          timestamptz NOT NULL DEFAULT now(),
    ended_at         timestamptz,
    idempotency_key  text        NOT NULL,
    request_hash     bytea       NOT NULL,
    UNIQUE (tenant_id, requested_by, idempotency_key),
    UNIQUE (id, requested_by)
);
COMMENT ON TABLE operations.bulk_operation IS 'One action over a list of payments, frozen when asked for';
COMMENT ON COLUMN operations.bulk_operation.selection IS 'the query or the ids as they were asked for';
COMMENT ON COLUMN operations.bulk_operation.totals IS 'minor units per currency';
COMMENT ON COLUMN operations.bulk_operation.list_sha256 IS 'of the ids in order; the operator log has it';
COMMENT ON COLUMN operations.bulk_operation.next_at IS 'when the next item may begin, for all workers';
CREATE INDEX bulk_running ON operations.bulk_operation (next_at) WHERE state = 'RUNNING';
CREATE INDEX bulk_listed ON operations.bulk_operation (tenant_id, requested_at DESC, id DESC);

CREATE TABLE operations.bulk_approval (
    bulk_id      uuid        NOT NULL,
    requested_by text        NOT NULL,
    approver     text        NOT NULL CHECK (approver <> requested_by),
    approves     boolean     NOT NULL,
    note         text,
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bulk_id, approver),
    FOREIGN KEY (bulk_id, requested_by) REFERENCES operations.bulk_operation (id, requested_by)
);

CREATE TABLE operations.bulk_item (
    bulk_id    uuid        NOT NULL REFERENCES operations.bulk_operation,
    position   integer     NOT NULL CHECK (position > 0),
    payment_id text        NOT NULL,
    amount     bigint      NOT NULL,
    currency   text        NOT NULL,
    state      text        NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'RUNNING', 'SENT', 'DONE',
        'FAILED', 'CANCELLED')),
    round      integer     NOT NULL DEFAULT 1,
    attempts   integer     NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT now(),
    action_id  text,
    code       text,
    detail     text,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bulk_id, position),
    UNIQUE (bulk_id, payment_id)
) WITH (fillfactor = 70);
COMMENT ON COLUMN operations.bulk_item.state IS
    'RUNNING: a worker has it until due_at; SENT: its action is made and looked at again at due_at';
COMMENT ON COLUMN operations.bulk_item.round IS 'how often it was begun anew, each time as another action';
CREATE INDEX bulk_item_open ON operations.bulk_item (bulk_id, state, position)
    WHERE state IN ('PENDING', 'RUNNING');
CREATE INDEX bulk_item_sent ON operations.bulk_item (due_at) WHERE state = 'SENT';

CREATE FUNCTION operations.keep_bulk_as_asked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'bulk operations are never removed' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (NEW.id, NEW.tenant_id, NEW.kind, NEW.asked, NEW.selection, NEW.dry_run, NEW.approvals_needed, NEW.items,
        NEW.totals, NEW.list_sha256, NEW.requested_by)
        IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.kind, OLD.asked, OLD.selection, OLD.dry_run,
        OLD.approvals_needed, OLD.items, OLD.totals, OLD.list_sha256, OLD.requested_by) THEN
        RAISE EXCEPTION 'what was asked for never changes' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.state = 'RUNNING' AND OLD.state = 'REQUESTED' AND NEW.approvals_needed >
        (SELECT count(*) FROM operations.bulk_approval a WHERE a.bulk_id = NEW.id AND a.approves) THEN
        RAISE EXCEPTION 'bulk operation % lacks approvals', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keeps_what_was_asked BEFORE UPDATE OR DELETE ON operations.bulk_operation
    FOR EACH ROW EXECUTE FUNCTION operations.keep_bulk_as_asked();

CREATE FUNCTION operations.keep_list_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF (SELECT b.items FROM operations.bulk_operation b WHERE b.id = NEW.bulk_id AND b.state IN
            ('REQUESTED', 'RUNNING') AND b.requested_at = now()) >= NEW.position THEN
            RETURN NEW;
        END IF;
    ELSIF TG_OP = 'UPDATE' AND (NEW.bulk_id, NEW.position, NEW.payment_id, NEW.amount, NEW.currency) =
        (OLD.bulk_id, OLD.position, OLD.payment_id, OLD.amount, OLD.currency) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the list of a bulk operation is frozen' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER frozen BEFORE INSERT OR UPDATE OR DELETE ON operations.bulk_item
    FOR EACH ROW EXECUTE FUNCTION operations.keep_list_frozen();
"""


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP TABLE operations.bulk_item, operations.bulk_approval, operations.bulk_operation;
        DROP FUNCTION operations.keep_list_frozen(), operations.keep_bulk_as_asked();
        """
    )
