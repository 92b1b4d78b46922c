-- Payment options, what merchants pay for a credit, who changed what, and requests that must not be done twice.

CREATE TABLE disbursement.payment_option (
    tenant_id                 text NOT NULL,
    id                        disbursement.name NOT NULL,
    merchant_id               text NOT NULL,
    store_id                  text NOT NULL,
    code                      text NOT NULL CHECK (length(code) BETWEEN 1 AND 64),
    type                      text NOT NULL CHECK (type IN ('INTEREST', 'INTEREST_FREE')),
    active                    boolean NOT NULL,
    payments                  smallint NOT NULL CHECK (payments BETWEEN 1 AND 360),
    a0 integer NOT NULL DEFAULT 0, a1 integer NOT NULL DEFAULT 0, a2 integer NOT NULL DEFAULT 0, a3 integer NOT NULL DEFAULT 0,
    b0 integer NOT NULL DEFAULT 0, b1 integer NOT NULL DEFAULT 0, b2 integer NOT NULL DEFAULT 0, b3 integer NOT NULL DEFAULT 0,
    c0 integer NOT NULL DEFAULT 0, c1 integer NOT NULL DEFAULT 0, c2 integer NOT NULL DEFAULT 0, c3 integer NOT NULL DEFAULT 0,
    discount                  integer NOT NULL DEFAULT 0 CHECK (discount BETWEEN 0 AND 10000),
    merchant_commission       integer CHECK (merchant_commission BETWEEN 0 AND 10000),
    first_payment_month_shift smallint NOT NULL DEFAULT 0 CHECK (first_payment_month_shift BETWEEN 0 AND 24),
    starts_at                 timestamptz NOT NULL,
    ends_at                   timestamptz NOT NULL,
    priority                  integer NOT NULL CHECK (priority BETWEEN 1 AND 1000),
    currency                  text NOT NULL DEFAULT 'MXN' CHECK (currency = 'MXN'),
    min_amount                bigint NOT NULL CHECK (min_amount > 0),
    max_amount                bigint NOT NULL,
    promotion                 boolean NOT NULL DEFAULT false,
    auto_update               boolean NOT NULL DEFAULT false,
    trial                     boolean NOT NULL DEFAULT false,
    trial_ends_at             timestamptz,
    validated                 boolean NOT NULL DEFAULT false,
    created_at                timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, store_id) REFERENCES disbursement.store (tenant_id, id),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES disbursement.merchant (tenant_id, id),
    UNIQUE (tenant_id, store_id, code),
    CHECK (ends_at >= starts_at),
    CHECK (max_amount >= min_amount),
    CHECK (trial = (trial_ends_at IS NOT NULL)),
    CHECK (0 <= LEAST(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3)),
    CHECK (1000000 >= GREATEST(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3))
);
CREATE INDEX payment_option_recalculated ON disbursement.payment_option (tenant_id, id) WHERE auto_update;
COMMENT ON TABLE disbursement.payment_option IS 'Rates, discount and commission are basis points. Both bounds of the amount and of the time are included.';
COMMENT ON COLUMN disbursement.payment_option.priority IS '1 goes before 2; of equal ones the smaller id goes first.';

CREATE TABLE disbursement.commission_standard (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    text NOT NULL,
    merchant_id  text NOT NULL,
    store_id     text,
    basis_points integer NOT NULL CHECK (basis_points BETWEEN 0 AND 10000),
    actor        text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES disbursement.merchant (tenant_id, id),
    FOREIGN KEY (tenant_id, store_id) REFERENCES disbursement.store (tenant_id, id)
);
CREATE INDEX commission_standard_newest ON disbursement.commission_standard (tenant_id, merchant_id, store_id, id DESC);
COMMENT ON TABLE disbursement.commission_standard IS 'The newest row of a store, else of its merchant without a store, is in force.';

CREATE TABLE disbursement.commission_schedule (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id  text NOT NULL,
    steps      jsonb NOT NULL,
    actor      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX commission_schedule_newest ON disbursement.commission_schedule (tenant_id, id DESC);

CREATE TABLE disbursement.commission_trace (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('SIGNATURE', 'AMOUNT_CHANGED', 'MONTHLY')),
    credit_id   text,
    option_id   text,
    month       date,
    inputs      jsonb NOT NULL,
    result      jsonb NOT NULL,
    actor       text NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((kind = 'MONTHLY') = (credit_id IS NULL)),
    CHECK ((kind = 'MONTHLY') = (month IS NOT NULL))
);
CREATE INDEX commission_trace_credit ON disbursement.commission_trace (tenant_id, credit_id, id) WHERE credit_id IS NOT NULL;
CREATE UNIQUE INDEX commission_trace_month ON disbursement.commission_trace (tenant_id, option_id, month) WHERE kind = 'MONTHLY';
COMMENT ON INDEX disbursement.commission_trace_month IS 'An option takes a month''s change once, however often the month is recalculated.';

CREATE TABLE disbursement.edit (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL,
    object    text NOT NULL CHECK (object IN ('MERCHANT', 'STORE', 'OPTION', 'BANK_ACCOUNT', 'CREDIT', 'SCHEDULE')),
    object_id text NOT NULL,
    action    text NOT NULL CHECK (action IN
        ('ADDED', 'EDITED', 'VALIDATED', 'RESET', 'AUTHENTICATED', 'AUTOMATION', 'RECALCULATED', 'STANDARD')),
    before    jsonb,
    after     jsonb NOT NULL,
    actor     text NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX edit_object ON disbursement.edit (tenant_id, object, object_id, id);

CREATE TABLE disbursement.request (
    tenant_id  text NOT NULL,
    subject    text NOT NULL,
    key        text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    body_hash  bytea NOT NULL CHECK (length(body_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, subject, key)
);
COMMENT ON TABLE disbursement.request IS 'Which body a caller sent under an idempotency key first. What was done under it is found by the operation made of both.';

CREATE INDEX credit_origination ON disbursement.credit (tenant_id, signed_at);

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['commission_standard', 'commission_schedule', 'commission_trace', 'edit', 'request'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON disbursement.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION disbursement.refuse_change()', v_table);
        EXECUTE format('ALTER TABLE disbursement.%I ENABLE ALWAYS TRIGGER append_only', v_table);
        EXECUTE format('GRANT SELECT, INSERT ON disbursement.%I TO payhub_ledger_app', v_table);
    END LOOP;
    CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON disbursement.payment_option
        FOR EACH STATEMENT EXECUTE FUNCTION disbursement.refuse_change();
    ALTER TABLE disbursement.payment_option ENABLE ALWAYS TRIGGER never_removed;
END $$;
GRANT SELECT, INSERT ON disbursement.payment_option TO payhub_ledger_app;
GRANT UPDATE (code, type, active, payments, a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, discount, merchant_commission,
    first_payment_month_shift, starts_at, ends_at, priority, min_amount, max_amount, promotion, auto_update, trial,
    trial_ends_at, validated) ON disbursement.payment_option TO payhub_ledger_app;
