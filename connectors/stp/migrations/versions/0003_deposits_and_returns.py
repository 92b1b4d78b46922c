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
            CHECK (source IN ('answer', 'callback', 'deposit', 'inquiry', 'operator', 'reconciliation'));
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
                   sending = CASE WHEN x.sending = 'REJECTED' OR said_by = 'operator' THEN x.sending
                                  ELSE 'ACCEPTED' END,
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

        CREATE TABLE stp.receiver (
            kind       smallint NOT NULL CHECK (kind IN (3, 10, 40)),
            prefix     text     NOT NULL CHECK (prefix ~ '^[0-9]{1,18}$'),
            tenant_id  text     NOT NULL,
            identifier text,
            PRIMARY KEY (kind, prefix)
        );
        COMMENT ON TABLE stp.receiver IS 'Whose an account is: numbers of this kind that begin with the prefix';
        COMMENT ON COLUMN stp.receiver.kind IS 'tipoCuenta: 3 card, 10 mobile, 40 CLABE';
        COMMENT ON COLUMN stp.receiver.identifier IS 'how the tenant''s book writes the number, where it is another';

        CREATE TABLE stp.deposit (
            payment_id           text        PRIMARY KEY,
            callback_id          bigint      NOT NULL REFERENCES stp.callback,
            tenant_id            text,
            sender_institution   integer     NOT NULL,
            tracking_key         text        NOT NULL,
            operation_date       date        NOT NULL,
            stp_id               bigint,
            amount               bigint      NOT NULL CHECK (amount > 0),
            account              text        NOT NULL,
            identifier           text        NOT NULL,
            received_at          timestamptz NOT NULL,
            waiting_until        timestamptz NOT NULL,
            process_instance_key bigint,
            claimed_at           timestamptz,
            decision             text        CHECK (decision IN ('CREDITED', 'REFUSED')),
            decided_at           timestamptz,
            cause                integer,
            reason               text,
            answer               text        CHECK (answer IN ('confirmar', 'devolver')),
            CHECK (tenant_id IS NOT NULL OR decision = 'REFUSED'),
            CHECK (decision <> 'CREDITED' OR answer = 'confirmar')
        );
        COMMENT ON TABLE stp.deposit IS 'One row per deposit, committed before its process begins or STP is answered';
        COMMENT ON COLUMN stp.deposit.payment_id IS 'derived from sender, tracking key and operation date';
        COMMENT ON COLUMN stp.deposit.amount IS 'centavos';
        COMMENT ON COLUMN stp.deposit.waiting_until IS 'until then STP''s request is open and may be answered devolver';
        COMMENT ON COLUMN stp.deposit.answer IS 'what STP is answered, decided once; a repeat gets the same';
        CREATE INDEX deposit_unclaimed ON stp.deposit (received_at)
            WHERE process_instance_key IS NULL AND decision IS NULL;
        CREATE INDEX deposit_of_day ON stp.deposit (operation_date, tracking_key);

        CREATE FUNCTION stp.keep_what_arrived() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' THEN
                RAISE EXCEPTION 'a deposit is never forgotten' USING ERRCODE = 'restrict_violation';
            END IF;
            IF (NEW.payment_id, NEW.callback_id, NEW.tenant_id, NEW.sender_institution, NEW.tracking_key,
                NEW.operation_date, NEW.amount, NEW.account) IS DISTINCT FROM
               (OLD.payment_id, OLD.callback_id, OLD.tenant_id, OLD.sender_institution, OLD.tracking_key,
                OLD.operation_date, OLD.amount, OLD.account)
               OR OLD.process_instance_key <> NEW.process_instance_key OR OLD.decision <> NEW.decision
               OR OLD.answer <> NEW.answer THEN
                RAISE EXCEPTION 'what arrived and what was decided is never changed'
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER deposit_as_it_came BEFORE UPDATE OR DELETE ON stp.deposit
            FOR EACH ROW EXECUTE FUNCTION stp.keep_what_arrived();
        CREATE INDEX callback_deposit_unhandled ON stp.callback (received_at) WHERE kind = 'deposit' AND result IS NULL;
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP INDEX stp.callback_deposit_unhandled;
        DROP TABLE stp.deposit, stp.receiver;
        DROP FUNCTION stp.keep_what_arrived();
        DROP FUNCTION stp.observe;
        DROP INDEX stp.callback_for_people;
        ALTER TABLE stp.observation DROP CONSTRAINT observation_source_check;
        ALTER TABLE stp.observation ADD CONSTRAINT observation_source_check
            CHECK (source IN ('answer', 'callback', 'inquiry')) NOT VALID;
        ALTER TABLE stp.stp_order DROP COLUMN settled_as, DROP COLUMN contradicted_at;
        """
    )
