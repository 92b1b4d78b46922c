"""Orders, what was observed of them, and the inbox of callbacks."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


UP = (
    """
    CREATE TABLE stp.stp_order (
        payment_id      text        PRIMARY KEY,
        tenant_id       text        NOT NULL,
        company         text        NOT NULL,
        tracking_key    text        NOT NULL UNIQUE,
        amount          bigint      NOT NULL CHECK (amount > 0),
        payee_account   text        NOT NULL,
        body            text        NOT NULL,
        joined_sha256   text        NOT NULL,
        operation_date  date        NOT NULL,
        sending         text        NOT NULL DEFAULT 'CLAIMED' CHECK (sending IN
            ('CLAIMED', 'NOT_SENT', 'UNKNOWN', 'REGISTERED', 'ACCEPTED', 'REFUSED', 'REJECTED')),
        sends           integer     NOT NULL DEFAULT 1,
        doubts          integer     NOT NULL DEFAULT 1,
        claimed_at      timestamptz NOT NULL DEFAULT now(),
        answered_at     timestamptz,
        stp_id          bigint,
        error_id        integer,
        error_detail    text,
        error_text      text,
        state           text        NOT NULL DEFAULT 'PENDING' CHECK (state IN
            ('PENDING', 'SETTLED', 'RETURNED', 'CANCELLED')),
        cause           integer,
        settled_at      timestamptz,
        state_at        timestamptz,
        observation     text,
        told            text,
        created_at      timestamptz NOT NULL DEFAULT now()
    )
    """,
    "COMMENT ON TABLE stp.stp_order IS 'One row per order, committed before the order is sent'",
    "COMMENT ON COLUMN stp.stp_order.amount IS 'centavos'",
    "COMMENT ON COLUMN stp.stp_order.body IS 'the JSON exactly as sent; a repeat sends these bytes'",
    "COMMENT ON COLUMN stp.stp_order.joined_sha256 IS 'hash of the string that was signed'",
    """
    COMMENT ON COLUMN stp.stp_order.operation_date IS 'date of the earliest attempt that may have arrived'
    """,
    """
    COMMENT ON COLUMN stp.stp_order.sends IS 'attempts claimed so far; fences one attempt from the next'
    """,
    """
    COMMENT ON COLUMN stp.stp_order.doubts IS 'attempts of which it is not certain that they left nothing at STP'
    """,
    """
    COMMENT ON COLUMN stp.stp_order.observation IS 'digest of the observation that brought the present state'
    """,
    """
    COMMENT ON COLUMN stp.stp_order.told IS 'digest of the last observation that the engine has been told'
    """,
    "CREATE INDEX stp_order_by_stp_id ON stp.stp_order (stp_id) WHERE stp_id IS NOT NULL",
    """
    CREATE INDEX stp_order_untold ON stp.stp_order (state_at)
        WHERE state <> 'PENDING' AND told IS DISTINCT FROM observation
    """,
    """
    CREATE TABLE stp.callback (
        id               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        kind             text        NOT NULL,
        body             bytea       NOT NULL,
        body_sha256      bytea       NOT NULL,
        times            integer     NOT NULL DEFAULT 1,
        received_at      timestamptz NOT NULL DEFAULT now(),
        last_received_at timestamptz NOT NULL DEFAULT now(),
        result           text,
        payment_id       text        REFERENCES stp.stp_order,
        handled_at       timestamptz,
        UNIQUE (kind, body_sha256)
    )
    """,
    """
    COMMENT ON TABLE stp.callback IS 'What STP posted to us, raw, committed before it is read; a repeat counts up'
    """,
    "COMMENT ON COLUMN stp.callback.result IS 'what became of it; null until it was handled'",
    "CREATE INDEX callback_unhandled ON stp.callback (received_at) WHERE result IS NULL OR result = 'unknown-order'",
    """
    CREATE TABLE stp.observation (
        id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        payment_id   text        NOT NULL REFERENCES stp.stp_order,
        source       text        NOT NULL CHECK (source IN ('answer', 'callback', 'inquiry')),
        digest       text        NOT NULL,
        word         text        NOT NULL,
        state        text,
        stp_id       bigint,
        cause        integer,
        detail       text,
        happened_at  timestamptz,
        callback_id  bigint      REFERENCES stp.callback,
        observed_at  timestamptz NOT NULL DEFAULT now(),
        UNIQUE (payment_id, digest)
    )
    """,
    "COMMENT ON TABLE stp.observation IS 'Everything STP ever said about an order; rows are only added'",
    """
    CREATE FUNCTION stp.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of stp.% are only added', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER observation_append_only BEFORE UPDATE OR DELETE ON stp.observation
        FOR EACH ROW EXECUTE FUNCTION stp.refuse_change()
    """,
    """
    CREATE TRIGGER observation_no_truncate BEFORE TRUNCATE ON stp.observation
        FOR EACH STATEMENT EXECUTE FUNCTION stp.refuse_change()
    """,
    """
    CREATE FUNCTION stp.keep_what_was_sent() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            RAISE EXCEPTION 'an order is never forgotten' USING ERRCODE = 'restrict_violation';
        END IF;
        IF OLD.sending = 'NOT_SENT' AND OLD.doubts = 0 AND NEW.payment_id = OLD.payment_id
           AND NEW.tenant_id = OLD.tenant_id AND NEW.tracking_key = OLD.tracking_key THEN
            RETURN NEW;
        END IF;
        IF (NEW.payment_id, NEW.tenant_id, NEW.company, NEW.tracking_key, NEW.amount, NEW.payee_account, NEW.body,
            NEW.joined_sha256) IS DISTINCT FROM
           (OLD.payment_id, OLD.tenant_id, OLD.company, OLD.tracking_key, OLD.amount, OLD.payee_account, OLD.body,
            OLD.joined_sha256) THEN
            RAISE EXCEPTION 'what was sent is never changed' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER stp_order_as_sent BEFORE UPDATE OR DELETE ON stp.stp_order
        FOR EACH ROW EXECUTE FUNCTION stp.keep_what_was_sent()
    """,
)

DOWN = (
    "DROP TABLE stp.observation",
    "DROP TABLE stp.callback",
    "DROP TABLE stp.stp_order",
    "DROP FUNCTION stp.refuse_change()",
    "DROP FUNCTION stp.keep_what_was_sent()",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
