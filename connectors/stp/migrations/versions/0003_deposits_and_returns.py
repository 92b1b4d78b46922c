"""Deposits in, late returns, conflicts."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        ALTER TABLE stp.stp_order ADD COLUMN settled_as text, ADD COLUMN contradicted_at timestamptz;
        COMMENT ON COLUMN stp.stp_order.settled_as IS
            'digest of the observation that settled the order; it stays when the order is returned afterwards';
        COMMENT ON COLUMN stp.stp_order.contradicted_at IS
            'when STP first said what cannot be true together with the state; an operator must look';
        UPDATE stp.stp_order SET settled_as = observation WHERE state = 'SETTLED';
        CREATE INDEX stp_order_contradicted ON stp.stp_order (contradicted_at) WHERE contradicted_at IS NOT NULL;

        ALTER TABLE stp.observation DROP CONSTRAINT observation_source_check;
        ALTER TABLE stp.observation ADD CONSTRAINT observation_source_check
            CHECK (source IN ('answer', 'callback', 'deposit', 'inquiry', 'reconciliation'));
        CREATE INDEX callback_for_people ON stp.callback (id)
            WHERE result IN ('conflict', 'unknown-order', 'unknown-status', 'malformed', 'failed');

        CREATE FUNCTION stp.observe(
            said_of text, said_by text, said text, word_said text, state_said text, id_said bigint, cause_said integer,
            detail_said text, happened timestamptz, from_callback bigint, told_now boolean, may_follow text[],
            contradicts text[], moment timestamptz
        ) RETURNS TABLE (
            payment_id text, tenant_id text, sending text, state text, stp_id bigint, cause integer, observation text,
            told text, settled_as text, moved boolean, conflict boolean, other_id boolean
        ) LANGUAGE plpgsql AS $$
        DECLARE
            o stp.stp_order;
        BEGIN
            -- The lock comes first: from here on nobody else's news can change what the rules below look at.
            SELECT x.* INTO o FROM stp.stp_order x WHERE x.payment_id = said_of FOR UPDATE;
            IF NOT FOUND THEN
                RETURN;
            END IF;
            moved := coalesce(o.state = ANY (may_follow), false);
            conflict := coalesce(o.state = ANY (contradicts), false)
                OR (o.sending = 'REJECTED' AND state_said IS DISTINCT FROM 'CANCELLED');
            other_id := coalesce(o.stp_id <> id_said, false);

            INSERT INTO stp.observation (payment_id, source, digest, word, state, stp_id, cause, detail, happened_at,
                                         callback_id)
            VALUES (said_of, said_by, said, word_said, state_said, id_said, cause_said, detail_said, happened,
                    from_callback)
            ON CONFLICT ON CONSTRAINT observation_payment_id_digest_key DO NOTHING;

            UPDATE stp.stp_order x
               SET state = CASE WHEN moved THEN state_said ELSE x.state END,
                   cause = CASE WHEN moved THEN cause_said ELSE x.cause END,
                   state_at = CASE WHEN moved THEN moment ELSE x.state_at END,
                   settled_at = CASE WHEN moved THEN coalesce(happened, x.settled_at) ELSE x.settled_at END,
                   observation = CASE WHEN moved THEN said ELSE x.observation END,
                   settled_as = CASE WHEN moved AND state_said = 'SETTLED' THEN said ELSE x.settled_as END,
                   -- Who asked about a payment is told how it ended; a return after that is another process's.
                   told = CASE WHEN moved AND told_now AND x.state = 'PENDING' THEN said ELSE x.told END,
                   contradicted_at = CASE WHEN conflict THEN coalesce(x.contradicted_at, moment)
                                          ELSE x.contradicted_at END,
                   -- Whatever STP says of an order, it has it.
                   sending = CASE WHEN x.sending = 'REJECTED' THEN x.sending ELSE 'ACCEPTED' END,
                   stp_id = CASE WHEN moved OR x.sending NOT IN ('ACCEPTED', 'REJECTED')
                                 THEN coalesce(x.stp_id, id_said) ELSE x.stp_id END
             WHERE x.payment_id = said_of AND (moved OR conflict OR x.sending NOT IN ('ACCEPTED', 'REJECTED'))
            RETURNING x.* INTO o;
            IF NOT FOUND THEN
                SELECT x.* INTO o FROM stp.stp_order x WHERE x.payment_id = said_of;
            END IF;

            IF from_callback IS NOT NULL THEN
                UPDATE stp.callback c
                   SET handled_at = moment, payment_id = said_of,
                       result = CASE WHEN state_said IS NULL THEN 'unknown-status'
                                     WHEN conflict THEN 'conflict'
                                     WHEN moved THEN 'moved'
                                     -- Handled once more after its handling broke off: it did move the order.
                                     WHEN c.result = 'moved' THEN c.result
                                     ELSE 'unchanged' END
                 WHERE c.id = from_callback;
            END IF;
            RETURN QUERY SELECT o.payment_id, o.tenant_id, o.sending, o.state, o.stp_id, o.cause, o.observation, o.told,
                                o.settled_as, moved, conflict, other_id;
        END $$;
        COMMENT ON FUNCTION stp.observe IS
            'One thing STP said of an order: kept, and the state moved by rank; what was settled is never unsettled';
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP FUNCTION stp.observe;
        DROP INDEX stp.callback_for_people;
        ALTER TABLE stp.observation DROP CONSTRAINT observation_source_check;
        ALTER TABLE stp.observation ADD CONSTRAINT observation_source_check
            CHECK (source IN ('answer', 'callback', 'inquiry')) NOT VALID;
        ALTER TABLE stp.stp_order DROP COLUMN settled_as, DROP COLUMN contradicted_at;
        """
    )
