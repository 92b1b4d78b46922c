-- When stores are due, and what each run found.

CREATE TABLE disbursement.schedule (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL CHECK (tenant_id <> ''),
    frequency text NOT NULL CHECK (frequency IN ('INSTANT', 'HOURLY', 'DAILY', 'WEEKLY', 'MONTHLY')),
    cron      text NOT NULL CHECK (cron <> ''),
    time_zone text NOT NULL CHECK (time_zone <> ''),
    set_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    set_by    text NOT NULL CHECK (set_by <> '')
);
CREATE INDEX schedule_newest ON disbursement.schedule (tenant_id, frequency, id DESC);
COMMENT ON TABLE disbursement.schedule IS 'The newest one of a tenant and frequency counts; without one the settings do.';

CREATE TABLE disbursement.run (
    id                   text PRIMARY KEY,
    number               bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant_id            text NOT NULL,
    frequency            text NOT NULL CHECK (frequency IN ('INSTANT', 'HOURLY', 'DAILY', 'WEEKLY', 'MONTHLY')),
    scheduled_for        timestamptz NOT NULL,
    requested_by         text,
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    process_instance_key bigint,
    claimed_at           timestamptz,
    closed_at            timestamptz,
    UNIQUE (tenant_id, frequency, scheduled_for),
    CHECK ((process_instance_key IS NULL) = (claimed_at IS NULL))
);
CREATE INDEX run_open ON disbursement.run (number) WHERE closed_at IS NULL;
CREATE INDEX run_tenant ON disbursement.run (tenant_id, number);
COMMENT ON TABLE disbursement.run IS 'One firing of a frequency for a tenant; two firings of one moment are one run (L31).';
COMMENT ON COLUMN disbursement.run.scheduled_for IS 'The moment the schedule named, or at which a person asked.';
COMMENT ON COLUMN disbursement.run.requested_by IS 'Who asked for it; nobody when its schedule fired.';

CREATE TABLE disbursement.run_store (
    run_id        text NOT NULL REFERENCES disbursement.run,
    store_id      text NOT NULL,
    verdict       text NOT NULL,
    updates       bigint NOT NULL,
    total         bigint NOT NULL,
    minimum       bigint NOT NULL,
    payment_id    text,
    considered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, store_id),
    CHECK ((payment_id IS NOT NULL) = (verdict = 'PAY'))
);
COMMENT ON TABLE disbursement.run_store IS 'What a run found of each store it looked at: asked to be paid, or why not.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON disbursement.schedule
    FOR EACH STATEMENT EXECUTE FUNCTION disbursement.refuse_change();
ALTER TABLE disbursement.schedule ENABLE ALWAYS TRIGGER append_only;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON disbursement.run_store
    FOR EACH STATEMENT EXECUTE FUNCTION disbursement.refuse_change();
ALTER TABLE disbursement.run_store ENABLE ALWAYS TRIGGER append_only;
CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON disbursement.run
    FOR EACH STATEMENT EXECUTE FUNCTION disbursement.refuse_change();
ALTER TABLE disbursement.run ENABLE ALWAYS TRIGGER never_removed;

GRANT SELECT, INSERT ON disbursement.schedule, disbursement.run, disbursement.run_store TO payhub_ledger_app;
GRANT UPDATE (process_instance_key, claimed_at, closed_at) ON disbursement.run TO payhub_ledger_app;
