"""Actions on payments: asked for, approved, carried out and confirmed."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        CREATE TABLE operations.action (
            id                uuid        PRIMARY KEY,
            tenant_id         text        NOT NULL,
            payment_id        text        NOT NULL,
            kind              text        NOT NULL CHECK (kind IN ('retry', 'resolve-incident', 'manual-override',
                'force-complete', 'force-fail', 'cancel', 'recall', 'refund')),
            state             text        NOT NULL CHECK (state IN ('REQUESTED', 'APPROVED', 'CARRYING_OUT',
                'CONFIRMED', 'FAILED', 'REJECTED', 'WITHDRAWN', 'EXPIRED')),
            reason_code       text        NOT NULL,
            reason            text        NOT NULL CHECK (length(reason) >= 10),
            asked             jsonb       NOT NULL,
            plan              jsonb       NOT NULL,
            amount            bigint      NOT NULL CHECK (amount >= 0),
            currency          text        NOT NULL,
            approvals_needed  smallint    NOT NULL CHECK (approvals_needed BETWEEN 0 AND 2),
            requested_by      text        NOT NULL,
            requested_at      timestamptz NOT NULL DEFAULT now(),
            expires_at        timestamptz NOT NULL,
            idempotency_key   text        NOT NULL,
            request_hash      bytea       NOT NULL,
            linked_payment_id text        UNIQUE,
            answer            text        CHECK (answer IN ('RETURNED', 'NOT_RETURNED')),
            code              text,
            detail            text,
            tried_at          timestamptz,
            carried_out_at    timestamptz,
            confirm_by        timestamptz,
            ended_at          timestamptz,
            UNIQUE (tenant_id, requested_by, idempotency_key),
            UNIQUE (id, requested_by),
            CHECK ((ended_at IS NULL) = (state IN ('REQUESTED', 'APPROVED', 'CARRYING_OUT')))
        ) WITH (fillfactor = 80);
        COMMENT ON TABLE operations.action IS 'What operators asked to be done to a payment, and what became of it';
        COMMENT ON COLUMN operations.action.plan IS 'commands, and the records by which it counts as done';
        COMMENT ON COLUMN operations.action.amount IS 'minor units that it is about';
        COMMENT ON COLUMN operations.action.tried_at IS 'a command may have reached the engine since then';
        COMMENT ON COLUMN operations.action.answer IS 'what an operator noted as the answer to a recall';
        -- Two repairs of one payment at once would meet in its process; money that goes back is added up instead.
        CREATE UNIQUE INDEX action_one_repair_at_a_time ON operations.action (tenant_id, payment_id)
            WHERE ended_at IS NULL AND kind NOT IN ('recall', 'refund');
        CREATE INDEX action_of_payment ON operations.action (tenant_id, payment_id, requested_at);
        CREATE INDEX action_listed ON operations.action (tenant_id, requested_at DESC, id DESC);

        CREATE TABLE operations.approval (
            action_id    uuid        NOT NULL,
            requested_by text        NOT NULL,
            approver     text        NOT NULL CHECK (approver <> requested_by),
            approves     boolean     NOT NULL,
            note         text,
            at           timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (action_id, approver),
            FOREIGN KEY (action_id, requested_by) REFERENCES operations.action (id, requested_by)
        );
        COMMENT ON COLUMN operations.approval.requested_by IS
            'the same as the action''s, so that the database refuses whoever approves an own request';

        CREATE TABLE operations.action_outbox (
            id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            action_id     uuid        NOT NULL REFERENCES operations.action,
            message       text        NOT NULL CHECK (message IN ('requested', 'decided', 'answered')),
            publish_after timestamptz NOT NULL DEFAULT now(),
            published_at  timestamptz,
            UNIQUE (action_id, message)
        );
        COMMENT ON TABLE operations.action_outbox IS 'Messages for the engine, written with what they tell of';
        CREATE INDEX action_outbox_due ON operations.action_outbox (publish_after) WHERE published_at IS NULL;

        CREATE TABLE operations.given_back (
            tenant_id  text   NOT NULL,
            payment_id text   NOT NULL,
            currency   text   NOT NULL,
            original   bigint NOT NULL CHECK (original > 0),
            taken      bigint NOT NULL CHECK (taken >= 0),
            PRIMARY KEY (tenant_id, payment_id),
            CHECK (taken <= original)
        );
        COMMENT ON TABLE operations.given_back IS
            'Of each payment, what recalls and refunds gave back or still may: never more than it was';

        CREATE TABLE operations.policy (
            tenant_id  text        PRIMARY KEY,
            version    integer     NOT NULL CHECK (version > 0),
            rules      jsonb       NOT NULL,
            changed_by text        NOT NULL,
            changed_at timestamptz NOT NULL DEFAULT now()
        );
        COMMENT ON TABLE operations.policy IS 'Approvals that each action needs; tenants without a row have defaults';

        CREATE FUNCTION operations.keep_what_was_asked() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.ended_at IS NOT NULL THEN
                RAISE EXCEPTION 'action %% has ended', OLD.id USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            IF (NEW.tenant_id, NEW.payment_id, NEW.kind, NEW.requested_by, NEW.asked, NEW.amount, NEW.currency,
                    NEW.approvals_needed)
                IS DISTINCT FROM (OLD.tenant_id, OLD.payment_id, OLD.kind, OLD.requested_by, OLD.asked, OLD.amount,
                    OLD.currency, OLD.approvals_needed) THEN
                RAISE EXCEPTION 'what was asked for never changes' USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            IF NEW.state = 'APPROVED' AND OLD.state = 'REQUESTED' AND NEW.approvals_needed >
                (SELECT count(*) FROM operations.approval a WHERE a.action_id = NEW.id AND a.approves) THEN
                RAISE EXCEPTION 'action %% lacks approvals', NEW.id USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            IF NEW.state = 'CARRYING_OUT' AND OLD.state = 'REQUESTED' THEN
                RAISE EXCEPTION 'action %% is not approved', NEW.id USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER keeps_what_was_asked BEFORE UPDATE ON operations.action
            FOR EACH ROW EXECUTE FUNCTION operations.keep_what_was_asked();
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP TABLE operations.policy, operations.given_back, operations.action_outbox, operations.approval,
            operations.action;
        DROP FUNCTION operations.keep_what_was_asked();
        """
    )
