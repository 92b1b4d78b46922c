"""Tenants, payments, what became of them, and the callbacks that tell it."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        CREATE TABLE channel.tenant (
            id                  text   PRIMARY KEY,
            name                text   NOT NULL,
            callback_allow_list text[] NOT NULL DEFAULT '{}',
            callback_secret     text
        );
        COMMENT ON COLUMN channel.tenant.callback_allow_list IS 'prefixes of URLs; * stands for any port';
        COMMENT ON COLUMN channel.tenant.callback_secret IS 'standard-webhooks secret, whsec_ and base64; never shown';

        CREATE TABLE channel.payment (
            id                   uuid        PRIMARY KEY,
            tenant_id            text        NOT NULL,
            idempotency_key      text        NOT NULL,
            request_hash         bytea       NOT NULL,
            client_ref_id        text,
            amount               bigint      NOT NULL CHECK (amount > 0),
            currency             text        NOT NULL,
            payer                jsonb       NOT NULL,
            payee                jsonb       NOT NULL,
            concept              text        NOT NULL,
            reference_number     integer,
            callback_url         text,
            accepted_at          timestamptz NOT NULL DEFAULT now(),
            publish_after        timestamptz NOT NULL,
            published_at         timestamptz,
            process_instance_key bigint,
            claimed_at           timestamptz,
            outcome              text CHECK (outcome IN ('SETTLED', 'REJECTED', 'RETURNED', 'CANCELLED', 'UNKNOWN')),
            reason               text,
            reason_detail        text,
            outcomes             integer     NOT NULL DEFAULT 0,
            completed_at         timestamptz,
            UNIQUE (tenant_id, idempotency_key)
        ) WITH (fillfactor = 80);
        COMMENT ON TABLE channel.payment IS 'One row per accepted payment: idempotency record, outbox entry and state';
        COMMENT ON COLUMN channel.payment.amount IS 'minor units of the currency';
        COMMENT ON COLUMN channel.payment.request_hash IS 'SHA-256 of the request as understood';
        COMMENT ON COLUMN channel.payment.publish_after IS 'until then one relay has it in hand; then any may take it';
        COMMENT ON COLUMN channel.payment.process_instance_key IS 'the one process instance that runs this payment';
        COMMENT ON COLUMN channel.payment.outcomes IS 'outcomes recorded so far: an unknown one may become final';
        CREATE INDEX payment_unclaimed ON channel.payment (publish_after) WHERE process_instance_key IS NULL;
        CREATE INDEX payment_in_window ON channel.payment (published_at)
            WHERE process_instance_key IS NULL AND published_at IS NOT NULL;

        CREATE TABLE channel.payment_outcome (
            payment_id    uuid        NOT NULL REFERENCES channel.payment (id),
            sequence      integer     NOT NULL,
            outcome       text        NOT NULL,
            reason        text        NOT NULL,
            reason_detail text,
            recorded_at   timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (payment_id, sequence)
        );
        COMMENT ON TABLE channel.payment_outcome IS 'History: every outcome that was recorded; rows never change';

        CREATE TABLE channel.callback (
            payment_id      uuid        NOT NULL,
            sequence        integer     NOT NULL,
            tenant_id       text        NOT NULL,
            url             text        NOT NULL,
            state           text        NOT NULL DEFAULT 'DUE'
                CHECK (state IN ('DUE', 'DELIVERED', 'REFUSED', 'GIVEN_UP')),
            attempts        integer     NOT NULL DEFAULT 0,
            next_attempt_at timestamptz NOT NULL DEFAULT now(),
            last_answer     text,
            created_at      timestamptz NOT NULL DEFAULT now(),
            ended_at        timestamptz,
            PRIMARY KEY (payment_id, sequence),
            FOREIGN KEY (payment_id, sequence) REFERENCES channel.payment_outcome (payment_id, sequence)
        );
        COMMENT ON COLUMN channel.callback.state IS
            'REFUSED: the receiver said 410, or its address is no longer allowed; GIVEN_UP: three days without success';
        COMMENT ON COLUMN channel.callback.last_answer IS 'HTTP status or the kind of failure of the last attempt';
        CREATE INDEX callback_due ON channel.callback (next_attempt_at) WHERE state = 'DUE';

        CREATE FUNCTION channel.refuse_change() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'rows of this table never change'; END $$;
        CREATE TRIGGER payment_outcome_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON channel.payment_outcome
            FOR EACH STATEMENT EXECUTE FUNCTION channel.refuse_change();

        CREATE FUNCTION channel.keep_final_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.outcome <> 'UNKNOWN' AND NEW.outcome IS DISTINCT FROM OLD.outcome THEN
                RAISE EXCEPTION 'a final outcome never changes';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER payment_keeps_its_final_outcome BEFORE UPDATE OF outcome ON channel.payment
            FOR EACH ROW EXECUTE FUNCTION channel.keep_final_outcome();
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP TABLE channel.callback, channel.payment_outcome, channel.payment, channel.tenant;
        DROP FUNCTION channel.refuse_change(), channel.keep_final_outcome();
        """
    )
