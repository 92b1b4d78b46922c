"""Reconciliation runs and their breaks; the budget of consults; what is asked of open orders; receipts."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


UP = (
    """
    CREATE TABLE stp.consult_budget (
        company       text        PRIMARY KEY,
        full_again_at timestamptz NOT NULL
    )
    """,
    """
    COMMENT ON COLUMN stp.consult_budget.full_again_at IS
        'when the bucket of questions will be full again; the further ahead, the fewer are left'
    """,
    """
    CREATE TABLE stp.poll (
        payment_id text        PRIMARY KEY REFERENCES stp.stp_order,
        asks       integer     NOT NULL,
        next_at    timestamptz NOT NULL,
        alerted_at timestamptz
    )
    """,
    "COMMENT ON TABLE stp.poll IS 'How often an order without a final state was asked for, and when it is again'",
    "CREATE INDEX stp_order_open ON stp.stp_order (claimed_at) WHERE state = 'PENDING'",
    "CREATE INDEX stp_order_of_day ON stp.stp_order (operation_date)",
    """
    CREATE TABLE stp.reconciliation_date (
        operation_date date        PRIMARY KEY,
        process_key    bigint      NOT NULL,
        begun_at       timestamptz NOT NULL
    )
    """,
    """
    COMMENT ON TABLE stp.reconciliation_date IS
        'Which process instance reconciles a date; the timer also fires on days on which no operation date ended'
    """,
    """
    CREATE TABLE stp.reconciliation (
        id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        company        text        NOT NULL,
        operation_date date        NOT NULL,
        started_at     timestamptz NOT NULL,
        finished_at    timestamptz,
        result         text        CHECK (result IN ('matched', 'breaks', 'abandoned')),
        sent_pages     integer     NOT NULL DEFAULT 0,
        sent_done      boolean     NOT NULL DEFAULT false,
        received_pages integer     NOT NULL DEFAULT 0,
        received_done  boolean     NOT NULL DEFAULT false,
        orders         integer,
        deposits       integer,
        CHECK ((finished_at IS NULL) = (result IS NULL))
    )
    """,
    """
    COMMENT ON TABLE stp.reconciliation IS
        'One comparison of a company''s date; pages that were read are counted, so that a run goes on where it ended'
    """,
    """
    CREATE UNIQUE INDEX reconciliation_open ON stp.reconciliation (company, operation_date) WHERE finished_at IS NULL
    """,
    "CREATE INDEX reconciliation_of_day ON stp.reconciliation (operation_date, company, id)",
    """
    CREATE TABLE stp.statement_line (
        company        text        NOT NULL,
        direction      text        NOT NULL CHECK (direction IN ('out', 'in')),
        operation_date date        NOT NULL,
        stp_id         bigint      NOT NULL,
        run_id         bigint      NOT NULL REFERENCES stp.reconciliation,
        tracking_key   text        NOT NULL,
        amount         bigint      NOT NULL,
        account        text,
        institution    integer,
        payment_type   integer,
        word           text        NOT NULL,
        state          text,
        cause          integer,
        settled_at     timestamptz,
        PRIMARY KEY (company, direction, operation_date, stp_id)
    )
    """,
    "COMMENT ON TABLE stp.statement_line IS 'What STP''s conciliation shows; run_id is the run that saw it last'",
    "COMMENT ON COLUMN stp.statement_line.amount IS 'centavos'",
    "CREATE INDEX statement_line_by_key ON stp.statement_line (tracking_key)",
    """
    CREATE TABLE stp.receipt (
        company      text        NOT NULL,
        direction    text        NOT NULL,
        stp_id       bigint      NOT NULL,
        tracking_key text        NOT NULL,
        seal         text,
        url          text,
        name         text,
        tax_id       text,
        kept_at      timestamptz NOT NULL,
        UNIQUE NULLS NOT DISTINCT (company, direction, stp_id, seal, url, name, tax_id)
    )
    """,
    """
    COMMENT ON TABLE stp.receipt IS
        'Data of Banco de Mexico''s electronic receipt (CEP) as STP showed them: evidence, which decides nothing'
    """,
    """
    CREATE TRIGGER receipt_append_only BEFORE UPDATE OR DELETE ON stp.receipt
        FOR EACH ROW EXECUTE FUNCTION stp.refuse_change()
    """,
    """
    CREATE TABLE stp.reconciliation_break (
        id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        company        text        NOT NULL,
        operation_date date        NOT NULL,
        direction      text        NOT NULL CHECK (direction IN ('out', 'in')),
        class          text        NOT NULL,
        subject        text        NOT NULL,
        tenant_id      text,
        payment_id     text,
        stp_id         bigint,
        ours           text,
        theirs         text,
        found_in       bigint      NOT NULL REFERENCES stp.reconciliation,
        found_at       timestamptz NOT NULL,
        last_seen_at   timestamptz NOT NULL,
        times          integer     NOT NULL DEFAULT 1,
        closed_in      bigint      REFERENCES stp.reconciliation,
        closed_at      timestamptz
    )
    """,
    "COMMENT ON TABLE stp.reconciliation_break IS 'Where ledger, orders and STP differ; one that heals is closed'",
    "COMMENT ON COLUMN stp.reconciliation_break.subject IS 'the tracking key, or what the book calls the payment'",
    """
    CREATE UNIQUE INDEX reconciliation_break_open
        ON stp.reconciliation_break (company, operation_date, direction, class, subject) WHERE closed_at IS NULL
    """,
    """
    CREATE FUNCTION stp.keep_break() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'a break is closed, never deleted' USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER reconciliation_break_kept BEFORE DELETE ON stp.reconciliation_break
        FOR EACH ROW EXECUTE FUNCTION stp.keep_break()
    """,
)

DOWN = (
    "DROP TABLE stp.reconciliation_break",
    "DROP FUNCTION stp.keep_break()",
    "DROP TABLE stp.receipt",
    "DROP TABLE stp.statement_line",
    "DROP TABLE stp.reconciliation",
    "DROP TABLE stp.reconciliation_date",
    "DROP INDEX stp.stp_order_of_day",
    "DROP INDEX stp.stp_order_open",
    "DROP TABLE stp.poll",
    "DROP TABLE stp.consult_budget",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
