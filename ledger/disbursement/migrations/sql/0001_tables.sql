-- Stores, what changed their balances, and the transfers that paid them. Amounts are whole minor units in bigint.
-- A store's balance is its account store-payable in the book; a balance update is one transaction of the book seen from the
-- store. Nothing is ever removed; what is updated is a current state whose changes have rows of their own (L13).

CREATE FUNCTION disbursement.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'disbursement.% is append-only: % refused; correct it by a new entry', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE FUNCTION disbursement.refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'disbursement.%: what row % became is not allowed', TG_TABLE_NAME, OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME, TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
END $$;

CREATE DOMAIN disbursement.name AS text CHECK (VALUE ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$');
COMMENT ON DOMAIN disbursement.name IS 'An id that the caller chooses; unique per tenant.';

CREATE TABLE disbursement.merchant (
    tenant_id  text NOT NULL CHECK (tenant_id <> ''),
    id         disbursement.name NOT NULL,
    name       text NOT NULL CHECK (name <> ''),
    tax_id     text NOT NULL,
    partner    text,
    automation boolean NOT NULL DEFAULT true,
    validated  boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON COLUMN disbursement.merchant.partner IS 'The subject of the tokens that may act for this merchant.';
COMMENT ON COLUMN disbursement.merchant.automation IS 'Off: no trigger fires for its stores; their balances still grow (L30).';

CREATE TABLE disbursement.store (
    tenant_id           text NOT NULL,
    id                  disbursement.name NOT NULL,
    merchant_id         text NOT NULL,
    name                text NOT NULL CHECK (name <> ''),
    currency            text NOT NULL DEFAULT 'MXN' CHECK (currency = 'MXN'),
    frequency           text NOT NULL CHECK (frequency IN ('INSTANT', 'HOURLY', 'DAILY', 'WEEKLY', 'MONTHLY')),
    minimum_amount      bigint NOT NULL DEFAULT 0 CHECK (minimum_amount >= 0),
    manual_confirmation boolean NOT NULL DEFAULT false,
    validated           boolean NOT NULL DEFAULT false,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES disbursement.merchant
);
CREATE INDEX store_merchant ON disbursement.store (tenant_id, merchant_id);
CREATE INDEX store_frequency ON disbursement.store (tenant_id, frequency, id);
COMMENT ON COLUMN disbursement.store.minimum_amount IS 'A transfer is made only of more than this (L28).';

CREATE TABLE disbursement.bank_account (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id        text NOT NULL,
    store_id         text NOT NULL,
    clabe            text NOT NULL CHECK (clabe ~ '^[0-9]{18}$'),
    holder_name      text NOT NULL CHECK (holder_name <> ''),
    tax_id           text NOT NULL,
    added_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    authenticated_at timestamptz,
    authenticated_by text,
    FOREIGN KEY (tenant_id, store_id) REFERENCES disbursement.store,
    CHECK ((authenticated_at IS NULL) = (authenticated_by IS NULL))
);
CREATE INDEX bank_account_newest ON disbursement.bank_account (tenant_id, store_id, id DESC);
COMMENT ON TABLE disbursement.bank_account IS 'The newest one of a store is its account.';

CREATE TABLE disbursement.credit (
    tenant_id  text NOT NULL,
    id         disbursement.name NOT NULL,
    store_id   text NOT NULL,
    option_id  text,
    amount     bigint NOT NULL CHECK (amount > 0),
    commission bigint,
    signed_at  timestamptz NOT NULL,
    disbursed  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, store_id) REFERENCES disbursement.store,
    CHECK (commission BETWEEN 0 AND amount)
);
CREATE INDEX credit_store ON disbursement.credit (tenant_id, store_id, id);
COMMENT ON COLUMN disbursement.credit.commission IS 'Fixed at signature (L45); NULL: not approved for disbursement.';
COMMENT ON COLUMN disbursement.credit.disbursed IS 'A contribution of it was paid to the store and not returned (L35, L40).';

CREATE TABLE disbursement.credit_change (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id         text NOT NULL,
    credit_id         text NOT NULL,
    amount_before     bigint NOT NULL,
    amount            bigint NOT NULL,
    commission_before bigint,
    commission        bigint,
    disbursed_before  boolean NOT NULL,
    disbursed         boolean NOT NULL,
    operation         text,
    at                timestamptz NOT NULL DEFAULT clock_timestamp(),
    cause             text NOT NULL CHECK (cause <> ''),
    actor             text NOT NULL CHECK (actor <> ''),
    FOREIGN KEY (tenant_id, credit_id) REFERENCES disbursement.credit,
    UNIQUE (tenant_id, operation)
);
CREATE INDEX credit_change_credit ON disbursement.credit_change (tenant_id, credit_id, id);

CREATE TABLE disbursement.bank_transfer (
    id                   text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'),
    number               bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant_id            text NOT NULL,
    store_id             text NOT NULL,
    amount               bigint NOT NULL CHECK (amount > 0),
    currency             text NOT NULL,
    status               text NOT NULL DEFAULT 'WAITING_FOR_CONFIRMATION' CHECK (status IN
        ('WAITING_FOR_CONFIRMATION', 'IN_TRANSIT', 'APPLIED', 'CANCELLED', 'REJECTED')),
    trigger              text NOT NULL CHECK (trigger IN ('INSTANT', 'HOURLY', 'DAILY', 'WEEKLY', 'MONTHLY', 'MANUAL')),
    run_id               text,
    clabe                text NOT NULL,
    holder_name          text NOT NULL,
    tax_id               text NOT NULL,
    needs_confirmation   boolean NOT NULL,
    confirmed_by         text,
    confirmed_at         timestamptz,
    process_instance_key bigint,
    reason               text,
    reason_detail        text,
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at           timestamptz,
    FOREIGN KEY (tenant_id, store_id) REFERENCES disbursement.store,
    CHECK ((confirmed_at IS NULL) = (confirmed_by IS NULL)),
    CHECK (needs_confirmation OR confirmed_at IS NULL),
    CHECK (status <> 'APPLIED' OR settled_at IS NOT NULL)
) WITH (fillfactor = 80);
CREATE INDEX bank_transfer_store ON disbursement.bank_transfer (tenant_id, store_id, number);
CREATE INDEX bank_transfer_tenant ON disbursement.bank_transfer (tenant_id, number);
CREATE INDEX bank_transfer_run ON disbursement.bank_transfer (tenant_id, run_id, number) WHERE run_id IS NOT NULL;
CREATE INDEX bank_transfer_open ON disbursement.bank_transfer (tenant_id, status, number)
    WHERE status IN ('WAITING_FOR_CONFIRMATION', 'IN_TRANSIT');
COMMENT ON COLUMN disbursement.bank_transfer.id IS 'The payment id, chosen by whoever asked for the transfer: asking again is the same transfer.';
COMMENT ON COLUMN disbursement.bank_transfer.clabe IS 'Where it goes, as it stood when the transfer was made; later edits of the store do not redirect it.';
COMMENT ON COLUMN disbursement.bank_transfer.process_instance_key IS 'The engine''s instance that this payment belongs to; any other one ends.';
CREATE TRIGGER bank_transfer_transition BEFORE UPDATE OF status ON disbursement.bank_transfer FOR EACH ROW
    WHEN ((OLD.status, NEW.status) NOT IN (
        ('WAITING_FOR_CONFIRMATION', 'IN_TRANSIT'), ('WAITING_FOR_CONFIRMATION', 'CANCELLED'), ('IN_TRANSIT', 'APPLIED'),
        ('IN_TRANSIT', 'CANCELLED'), ('IN_TRANSIT', 'REJECTED'), ('APPLIED', 'REJECTED')))
    EXECUTE FUNCTION disbursement.refuse_transition(); -- L21, L22

CREATE TABLE disbursement.bank_transfer_status (
    transfer_id text NOT NULL REFERENCES disbursement.bank_transfer,
    status      text NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    cause       text NOT NULL CHECK (cause <> ''),
    actor       text NOT NULL CHECK (actor <> ''),
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
);
CREATE INDEX bank_transfer_status_transfer ON disbursement.bank_transfer_status (transfer_id, id);

CREATE TABLE disbursement.balance_update (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text NOT NULL,
    store_id    text NOT NULL,
    seq         bigint NOT NULL CHECK (seq > 0),
    type        text NOT NULL CHECK (type IN
        ('CONTRIBUTION', 'DISBURSEMENT', 'DISBURSEMENT_OVERRIDE', 'CREDIT_CANCELLATION', 'BALANCE_ADJUSTMENT')),
    effect      bigint NOT NULL,
    previous    bigint NOT NULL,
    new         bigint NOT NULL,
    status      text NOT NULL CHECK (status IN ('PENDING', 'IN_TRANSIT', 'APPLIED')),
    overwritten boolean NOT NULL DEFAULT false,
    overwrites  bigint UNIQUE REFERENCES disbursement.balance_update,
    credit_id   text,
    transfer_id text REFERENCES disbursement.bank_transfer,
    txn_id      bigint NOT NULL UNIQUE REFERENCES ledger.txn,
    operation   text NOT NULL CHECK (operation <> ''),
    reason      text,
    actor       text NOT NULL CHECK (actor <> ''),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (tenant_id, store_id, seq),
    UNIQUE (tenant_id, operation),
    UNIQUE (transfer_id, type),
    FOREIGN KEY (tenant_id, store_id) REFERENCES disbursement.store,
    FOREIGN KEY (tenant_id, credit_id) REFERENCES disbursement.credit,
    CONSTRAINT balance_update_follows CHECK (new = previous + effect AND (seq > 1 OR previous = 0)), -- L3, L4
    CONSTRAINT balance_update_sign CHECK (CASE type -- L6, L8 to L11
        WHEN 'CONTRIBUTION' THEN effect >= 0 WHEN 'CREDIT_CANCELLATION' THEN effect <= 0
        WHEN 'DISBURSEMENT' THEN effect < 0 WHEN 'DISBURSEMENT_OVERRIDE' THEN effect > 0 ELSE effect <> 0 END),
    CONSTRAINT balance_update_credit CHECK ((credit_id IS NOT NULL) = (type IN ('CONTRIBUTION', 'CREDIT_CANCELLATION'))),
    CONSTRAINT balance_update_transfer
        CHECK ((transfer_id IS NOT NULL) = (type IN ('DISBURSEMENT', 'DISBURSEMENT_OVERRIDE'))),
    CONSTRAINT balance_update_born_applied
        CHECK (type NOT IN ('DISBURSEMENT', 'DISBURSEMENT_OVERRIDE') OR status = 'APPLIED'), -- L8, L9
    CONSTRAINT balance_update_overwritable CHECK (NOT overwritten OR type IN ('CONTRIBUTION', 'DISBURSEMENT')), -- L14
    CONSTRAINT balance_update_compensates
        CHECK ((overwrites IS NOT NULL) = (type IN ('CREDIT_CANCELLATION', 'DISBURSEMENT_OVERRIDE'))),
    CONSTRAINT balance_update_reason CHECK (type <> 'BALANCE_ADJUSTMENT' OR coalesce(reason, '') <> '') -- L11
) WITH (fillfactor = 80);
CREATE INDEX balance_update_pending ON disbursement.balance_update (tenant_id, store_id, seq) INCLUDE (effect)
    WHERE status = 'PENDING';
CREATE INDEX balance_update_in_transit ON disbursement.balance_update (tenant_id, store_id) INCLUDE (effect)
    WHERE status = 'IN_TRANSIT';
CREATE INDEX balance_update_credit_id ON disbursement.balance_update (tenant_id, credit_id, seq) WHERE credit_id IS NOT NULL;
CREATE UNIQUE INDEX balance_update_one_contribution ON disbursement.balance_update (tenant_id, credit_id)
    WHERE type = 'CONTRIBUTION' AND NOT overwritten;
COMMENT ON TABLE disbursement.balance_update IS 'The only thing that changes a store''s balance (L1). seq numbers a store''s updates without a gap.';
COMMENT ON COLUMN disbursement.balance_update.transfer_id IS 'The transfer that a disbursement or an override is of. Which transfer pays an update: bank_transfer_item.';
CREATE TRIGGER balance_update_transition BEFORE UPDATE OF status, overwritten ON disbursement.balance_update FOR EACH ROW
    WHEN ((OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (
            ('PENDING', 'IN_TRANSIT'), ('IN_TRANSIT', 'APPLIED'), ('IN_TRANSIT', 'PENDING'), ('APPLIED', 'PENDING')))
        OR (OLD.overwritten AND NOT NEW.overwritten))
    EXECUTE FUNCTION disbursement.refuse_transition(); -- L12, L16

CREATE TABLE disbursement.balance_update_status (
    update_id bigint NOT NULL REFERENCES disbursement.balance_update,
    status    text NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    cause     text NOT NULL CHECK (cause <> ''),
    actor     text NOT NULL CHECK (actor <> ''),
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
);
CREATE INDEX balance_update_status_update ON disbursement.balance_update_status (update_id, id);

CREATE TABLE disbursement.bank_transfer_item (
    update_id   bigint NOT NULL REFERENCES disbursement.balance_update,
    transfer_id text NOT NULL REFERENCES disbursement.bank_transfer,
    linked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    PRIMARY KEY (transfer_id, update_id)
);
CREATE UNIQUE INDEX bank_transfer_item_live ON disbursement.bank_transfer_item (update_id) WHERE released_at IS NULL;
CREATE INDEX bank_transfer_item_update ON disbursement.bank_transfer_item (update_id);
COMMENT ON TABLE disbursement.bank_transfer_item IS 'Which transfers an update was in; at most one of them is live (L19).';

CREATE TABLE disbursement.event_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text,
    source      text NOT NULL,
    kind        text NOT NULL,
    event_id    text NOT NULL,
    payload     jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX event_log_event ON disbursement.event_log (tenant_id, event_id, id);
COMMENT ON TABLE disbursement.event_log IS 'What came in, repeats included, each written before it was handled (L34).';

CREATE TABLE disbursement.event_outcome (
    event_id bigint PRIMARY KEY REFERENCES disbursement.event_log,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    outcome  text NOT NULL CHECK (outcome IN ('handled', 'repeated', 'refused', 'failed')),
    error    text
);
COMMENT ON TABLE disbursement.event_outcome IS 'What became of an event. One without a row here was cut off while it was handled, which left nothing.';

CREATE TABLE disbursement.outbox (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message       text NOT NULL,
    correlation   text NOT NULL,
    payload       jsonb NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    publish_after timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at  timestamptz
);
CREATE INDEX outbox_waiting ON disbursement.outbox (publish_after, id) WHERE published_at IS NULL;
COMMENT ON TABLE disbursement.outbox IS 'Messages for the engine, written with what they are about and published after it.';

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['credit_change', 'balance_update_status', 'bank_transfer_status', 'event_log',
                                   'event_outcome'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON disbursement.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION disbursement.refuse_change()', v_table);
        EXECUTE format('ALTER TABLE disbursement.%I ENABLE ALWAYS TRIGGER append_only', v_table);
    END LOOP;
    FOREACH v_table IN ARRAY ARRAY['merchant', 'store', 'bank_account', 'credit', 'balance_update', 'bank_transfer',
                                   'bank_transfer_item', 'outbox'] LOOP
        EXECUTE format('CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON disbursement.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION disbursement.refuse_change()', v_table);
        EXECUTE format('ALTER TABLE disbursement.%I ENABLE ALWAYS TRIGGER never_removed', v_table);
    END LOOP;
END $$;
ALTER TABLE disbursement.bank_transfer ENABLE ALWAYS TRIGGER bank_transfer_transition;
ALTER TABLE disbursement.balance_update ENABLE ALWAYS TRIGGER balance_update_transition;
