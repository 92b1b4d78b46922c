"""Stand-in limits for the time when the account system is away."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        ALTER TABLE channel.tenant
            ADD COLUMN stand_in_payments integer CHECK (stand_in_payments >= 0),
            ADD COLUMN stand_in_amounts  jsonb NOT NULL DEFAULT '{}';
        COMMENT ON COLUMN channel.tenant.stand_in_payments IS
            'how many payments may wait while the account system is away; NULL: the setting';
        COMMENT ON COLUMN channel.tenant.stand_in_amounts IS
            'by currency, in minor units: {"MXN": {"each": 500000, "together": 10000000}}; what is absent has no limit';

        CREATE TABLE channel.stand_in_payment (
            payment_id uuid        PRIMARY KEY,
            tenant_id  text        NOT NULL,
            currency   text        NOT NULL,
            amount     bigint      NOT NULL,
            since      timestamptz NOT NULL
        );
        COMMENT ON TABLE channel.stand_in_payment IS 'Payments that wait for the account system to come back';
        CREATE INDEX stand_in_payment_age ON channel.stand_in_payment (tenant_id, since);

        CREATE TABLE channel.stand_in_use (
            tenant_id text    NOT NULL,
            currency  text    NOT NULL,
            payments  integer NOT NULL CHECK (payments >= 0),
            amount    numeric NOT NULL CHECK (amount >= 0),
            PRIMARY KEY (tenant_id, currency)
        );
        COMMENT ON TABLE channel.stand_in_use IS
            'Number and sum of the rows of stand_in_payment, kept in the same transaction';

        CREATE FUNCTION channel.count_stand_in() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                INSERT INTO channel.stand_in_use AS u (tenant_id, currency, payments, amount)
                SELECT tenant_id, currency, count(*), sum(amount) FROM changed GROUP BY 1, 2 ORDER BY 1, 2
                ON CONFLICT (tenant_id, currency) DO UPDATE
                    SET payments = u.payments + excluded.payments, amount = u.amount + excluded.amount;
            ELSE
                UPDATE channel.stand_in_use AS u SET payments = u.payments - c.payments, amount = u.amount - c.amount
                FROM (SELECT tenant_id, currency, count(*) AS payments, sum(amount) AS amount FROM changed
                      GROUP BY 1, 2) AS c
                WHERE u.tenant_id = c.tenant_id AND u.currency = c.currency;
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER stand_in_payment_added AFTER INSERT ON channel.stand_in_payment
            REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION channel.count_stand_in();
        CREATE TRIGGER stand_in_payment_ended AFTER DELETE ON channel.stand_in_payment
            REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION channel.count_stand_in();

        -- Accept a payment while the account system is away, or say which limit (refused) or which payment (hash) is in
        -- the way. The tenant's row is locked first, and each statement below sees what was committed before it began,
        -- so two requests cannot pass a limit together.
        CREATE FUNCTION channel.accept_standing_in(
            p_id uuid, p_tenant text, p_key text, p_hash bytea, p_client_ref text, p_amount bigint, p_currency text,
            p_payer jsonb, p_payee jsonb, p_concept text, p_reference integer, p_callback text,
            p_lease double precision, p_payments integer,
            OUT refused text, OUT id text, OUT hash bytea)
        LANGUAGE plpgsql AS $$
        #variable_conflict use_column
        DECLARE
            v_limits jsonb;
            v_most   integer;
            v_number bigint;
            v_sum    numeric;
        BEGIN
            SELECT coalesce(t.stand_in_payments, p_payments), coalesce(t.stand_in_amounts -> p_currency, '{}')
              INTO v_most, v_limits FROM channel.tenant t WHERE t.id = p_tenant FOR NO KEY UPDATE;
            SELECT p.id::text, p.request_hash INTO id, hash FROM channel.payment p
             WHERE p.tenant_id = p_tenant AND p.idempotency_key = p_key;
            IF FOUND THEN
                RETURN;
            END IF;
            SELECT coalesce(sum(u.payments), 0), coalesce(sum(u.amount) FILTER (WHERE u.currency = p_currency), 0)
              INTO v_number, v_sum FROM channel.stand_in_use u WHERE u.tenant_id = p_tenant;
            IF p_amount > (v_limits ->> 'each')::bigint THEN
                refused := 'each';
            ELSIF v_number >= v_most THEN
                refused := 'payments';
            ELSIF v_sum + p_amount > coalesce((v_limits ->> 'together')::bigint, 9223372036854775807) THEN
                refused := 'together';
            END IF;
            IF refused IS NOT NULL THEN
                RETURN;
            END IF;
            INSERT INTO channel.payment (id, tenant_id, idempotency_key, request_hash, client_ref_id, amount, currency,
                payer, payee, concept, reference_number, callback_url, publish_after)
            VALUES (p_id, p_tenant, p_key, p_hash, p_client_ref, p_amount, p_currency, p_payer, p_payee, p_concept,
                p_reference, p_callback, now() + make_interval(secs => p_lease))
            ON CONFLICT (tenant_id, idempotency_key) DO NOTHING;
            IF NOT FOUND THEN -- a process that does not stand in yet was quicker
                SELECT p.id::text, p.request_hash INTO id, hash FROM channel.payment p
                 WHERE p.tenant_id = p_tenant AND p.idempotency_key = p_key;
                RETURN;
            END IF;
            INSERT INTO channel.stand_in_payment (payment_id, tenant_id, currency, amount, since)
            VALUES (p_id, p_tenant, p_currency, p_amount, now());
            id := p_id::text;
        END $$;
        """
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP FUNCTION channel.accept_standing_in(
            uuid, text, text, bytea, text, bigint, text, jsonb, jsonb, text, integer, text, double precision, integer);
        DROP TABLE channel.stand_in_payment, channel.stand_in_use;
        DROP FUNCTION channel.count_stand_in();
        ALTER TABLE channel.tenant DROP COLUMN stand_in_payments, DROP COLUMN stand_in_amounts;
        """
    )
