-- What merchants are told about their transfers (L56), where, and how the telling went.

CREATE TABLE disbursement.report (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text NOT NULL,
    transfer_id text NOT NULL REFERENCES disbursement.bank_transfer,
    kind        text NOT NULL CHECK (kind IN ('SETTLEMENT', 'CORRECTION')),
    merchant_id text NOT NULL,
    amount      bigint NOT NULL,
    lines_total bigint NOT NULL,
    body        text NOT NULL,
    made_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (transfer_id, kind),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES disbursement.merchant,
    CONSTRAINT report_adds_up CHECK (lines_total = amount),
    CONSTRAINT report_sign CHECK (CASE kind WHEN 'SETTLEMENT' THEN amount > 0 ELSE amount < 0 END)
);
CREATE INDEX report_merchant ON disbursement.report (tenant_id, merchant_id, number);
COMMENT ON TABLE disbursement.report IS 'One per settled transfer, and one more when the money came back after all.';
COMMENT ON COLUMN disbursement.report.body IS 'The JSON exactly as it is sent and signed; every other form is made of it.';

CREATE TABLE disbursement.report_address (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text NOT NULL,
    merchant_id text NOT NULL,
    url         text,
    secret      text,
    allow_list  text[] NOT NULL,
    actor       text NOT NULL CHECK (actor <> ''),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES disbursement.merchant,
    CHECK ((url IS NULL) = (secret IS NULL))
);
CREATE INDEX report_address_newest ON disbursement.report_address (tenant_id, merchant_id, id DESC);
COMMENT ON TABLE disbursement.report_address IS 'The newest row of a merchant is in force; one without url: it is not told.';
COMMENT ON COLUMN disbursement.report_address.secret IS 'standard-webhooks secret, whsec_ and base64; never shown';

CREATE TABLE disbursement.report_delivery (
    report_number   bigint PRIMARY KEY REFERENCES disbursement.report,
    tenant_id       text NOT NULL,
    merchant_id     text NOT NULL,
    state           text NOT NULL DEFAULT 'DUE' CHECK (state IN ('DUE', 'DELIVERED', 'REFUSED', 'GIVEN_UP')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at        timestamptz,
    CHECK ((state = 'DUE') = (ended_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX report_delivery_due ON disbursement.report_delivery (next_attempt_at) WHERE state = 'DUE';
COMMENT ON TABLE disbursement.report_delivery IS 'A report that is told to its merchant; made with the report when the merchant has an address.';

CREATE TABLE disbursement.report_attempt (
    report_number bigint NOT NULL REFERENCES disbursement.report_delivery,
    attempt       integer NOT NULL,
    answer        text NOT NULL,
    state         text NOT NULL,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (report_number, attempt)
);
COMMENT ON TABLE disbursement.report_attempt IS 'What came of each attempt. One that is missing was cut off, and may have arrived.';

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['report', 'report_address', 'report_attempt'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON disbursement.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION disbursement.refuse_change()', v_table);
        EXECUTE format('ALTER TABLE disbursement.%I ENABLE ALWAYS TRIGGER append_only', v_table);
        EXECUTE format('GRANT SELECT, INSERT ON disbursement.%I TO payhub_ledger_app', v_table);
    END LOOP;
    CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON disbursement.report_delivery
        FOR EACH STATEMENT EXECUTE FUNCTION disbursement.refuse_change();
    ALTER TABLE disbursement.report_delivery ENABLE ALWAYS TRIGGER never_removed;
END $$;
GRANT SELECT, INSERT ON disbursement.report_delivery TO payhub_ledger_app;
GRANT UPDATE (state, attempts, next_attempt_at, ended_at) ON disbursement.report_delivery TO payhub_ledger_app;
