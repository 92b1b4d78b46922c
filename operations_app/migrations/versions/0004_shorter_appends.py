"""The operator log is appended to by one statement, and overdue bulk operations are found."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Sent as written: SQLAlchemy and psycopg would take % for parameters.
    cursor = op.get_bind().connection.cursor()
    cursor.execute(_UP)
    cursor.close()


_UP = """
-- The application writes the canonical JSON, all of it but the instant and the number, which are known under the lock
-- only: so the lock is held for one statement and the commit, and JSON is written in one way.
CREATE FUNCTION operations.append_act(
    p_until_at text, p_until_seq text, p_rest text,
    p_tenant_id text, p_actor text, p_roles text[], p_action text, p_target text, p_payment_id text,
    p_reason_code text, p_reason text, p_before jsonb, p_after jsonb, p_request_id text, p_outcome text
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_at   timestamptz;
    v_seq  bigint;
    v_hash bytea;
    v_text text;
BEGIN
    PERFORM pg_advisory_xact_lock(7206);
    -- A statement of its own: one that waited for the lock would still see the log as it was before.
    SELECT seq, hash INTO v_seq, v_hash FROM operations.act ORDER BY seq DESC LIMIT 1;
    v_at := clock_timestamp();
    v_seq := coalesce(v_seq, 0) + 1;
    v_hash := coalesce(v_hash, decode(repeat('00', 32), 'hex'));
    v_text := p_until_at || to_char(v_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
        || p_until_seq || v_seq || p_rest;
    INSERT INTO operations.act (seq, at, tenant_id, actor, roles, action, target, payment_id, reason_code, reason,
        before, after, request_id, outcome, prev_hash, hash)
    VALUES (v_seq, v_at, p_tenant_id, p_actor, p_roles, p_action, p_target, p_payment_id, p_reason_code, p_reason,
        p_before, p_after, p_request_id, p_outcome, v_hash, sha256(v_hash || convert_to(v_text, 'UTF8')));
    RETURN v_seq;
END $$;

CREATE INDEX bulk_waiting ON operations.bulk_operation (expires_at) WHERE state = 'REQUESTED';
"""


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP INDEX operations.bulk_waiting;
        DROP FUNCTION operations.append_act(text, text, text, text, text, text[], text, text, text, text, text, jsonb,
            jsonb, text, text);
        """
    )
