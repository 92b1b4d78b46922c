"""What operators did: an append-only log whose rows are chained by their hashes."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    cursor.execute(_TABLES)
    cursor.execute(_GRANTS)
    cursor.close()


_TABLES = """
CREATE TABLE operations.act (
    seq         bigint      PRIMARY KEY CHECK (seq > 0),
    at          timestamptz NOT NULL,
    tenant_id   text,
    actor       text        NOT NULL,
    roles       text[]      NOT NULL,
    action      text        NOT NULL,
    target      text        NOT NULL,
    payment_id  text,
    reason_code text,
    reason      text,
    before      jsonb,
    after       jsonb,
    request_id  text,
    outcome     text        NOT NULL,
    prev_hash   bytea       NOT NULL UNIQUE CHECK (length(prev_hash) = 32),
    hash        bytea       NOT NULL UNIQUE CHECK (length(hash) = 32)
);
COMMENT ON TABLE operations.act IS 'The operator log: append-only, without gaps, each row chained to the one before';
COMMENT ON COLUMN operations.act.tenant_id IS 'null for what the hub itself writes, such as checkpoints';
COMMENT ON COLUMN operations.act.hash IS 'SHA-256 of prev_hash and of the row''s canonical JSON';
CREATE INDEX act_of_payment ON operations.act (tenant_id, payment_id, seq) WHERE payment_id IS NOT NULL;
CREATE INDEX act_of_tenant ON operations.act (tenant_id, seq);
CREATE INDEX act_by_action ON operations.act (action, seq);

CREATE TABLE operations.act_cursor (
    consumer text   PRIMARY KEY,
    seq      bigint NOT NULL DEFAULT 0 CHECK (seq >= 0)
);
COMMENT ON TABLE operations.act_cursor IS 'How much of the log was told to whom; numbers are committed in their order';

CREATE FUNCTION operations.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'operations.% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operations.act
    FOR EACH STATEMENT EXECUTE FUNCTION operations.refuse_change();
ALTER TABLE operations.act ENABLE ALWAYS TRIGGER append_only;

CREATE FUNCTION operations.follow_the_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_seq  bigint;
    v_hash bytea;
BEGIN
    SELECT seq, hash INTO v_seq, v_hash FROM operations.act ORDER BY seq DESC LIMIT 1;
    IF NEW.seq <> coalesce(v_seq, 0) + 1 OR NEW.prev_hash <> coalesce(v_hash, decode(repeat('00', 32), 'hex')) THEN
        RAISE EXCEPTION 'row % does not follow the operator log''s last row', NEW.seq
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER follows BEFORE INSERT ON operations.act
    FOR EACH ROW EXECUTE FUNCTION operations.follow_the_chain();
ALTER TABLE operations.act ENABLE ALWAYS TRIGGER follows;
"""

# The role that the operations application works as. It appends to the log, works on the other tables of its schema and
# reads what the connectors wrote; it owns nothing, so it can neither change the log nor switch a trigger off.
# Roles belong to the whole server: other databases may have made it already, or be making it right now.
_GRANTS = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'payhub_operations_app') THEN
        CREATE ROLE payhub_operations_app NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role payhub_operations_app does not exist and % may not create it', current_user
            USING HINT = 'Let an administrator run: CREATE ROLE payhub_operations_app NOLOGIN';
END $$;

-- Whoever migrates may also work as the role: on one machine the same user does both.
DO $$
BEGIN
    FOR attempt IN 1 .. 10 LOOP
        EXIT WHEN pg_has_role(current_user, 'payhub_operations_app', 'SET');
        BEGIN
            EXECUTE format('GRANT payhub_operations_app TO %I', current_user);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE '% may not work as payhub_operations_app', current_user;
                EXIT;
            WHEN internal_error OR unique_violation THEN  -- the same grant at the same time, in another database
                PERFORM pg_sleep(0.05);
        END;
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA operations TO payhub_operations_app;
GRANT SELECT, INSERT ON operations.act, operations.act_cursor TO payhub_operations_app;
GRANT UPDATE (seq) ON operations.act_cursor TO payhub_operations_app;
-- Tables of later revisions: requests, approvals and bulk items move on; nothing is deleted.
ALTER DEFAULT PRIVILEGES IN SCHEMA operations GRANT SELECT, INSERT, UPDATE ON TABLES TO payhub_operations_app;

DO $$
DECLARE
    v_schema text;
BEGIN
    FOREACH v_schema IN ARRAY ARRAY['channel', 'stp'] LOOP
        CONTINUE WHEN to_regnamespace(v_schema) IS NULL;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO payhub_operations_app', v_schema);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO payhub_operations_app', v_schema);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO payhub_operations_app',
                       v_schema);
    END LOOP;
END $$;
"""


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        ALTER DEFAULT PRIVILEGES IN SCHEMA operations REVOKE ALL ON TABLES FROM payhub_operations_app;
        DO $$ DECLARE v_schema text; BEGIN
            FOREACH v_schema IN ARRAY ARRAY['channel', 'stp'] LOOP
                CONTINUE WHEN to_regnamespace(v_schema) IS NULL;
                EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %%I REVOKE ALL ON TABLES FROM payhub_operations_app',
                               v_schema);
                EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %%I FROM payhub_operations_app', v_schema);
                EXECUTE format('REVOKE ALL ON SCHEMA %%I FROM payhub_operations_app', v_schema);
            END LOOP;
        END $$;
        REVOKE ALL ON SCHEMA operations FROM payhub_operations_app;
        DROP TABLE operations.act_cursor, operations.act;
        DROP FUNCTION operations.follow_the_chain(), operations.refuse_change();
        """
    )
