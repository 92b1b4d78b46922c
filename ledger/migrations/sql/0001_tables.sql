-- The book. The posting row (debit account, credit account, amount > 0) is the truth; balances are kept in step with it
-- in the same transaction. Amounts are whole minor units in bigint. Only balance, hold_state, account_holder and
-- account_identifier are ever updated; everything else is written once (triggers at the end of this file).

CREATE TABLE ledger.book (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code       text NOT NULL UNIQUE CHECK (code <> ''),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ledger.book IS 'One set of books per tenant; code is the tenant id.';

CREATE TABLE ledger.asset (
    code  text PRIMARY KEY,
    scale smallint NOT NULL CHECK (scale BETWEEN 0 AND 6),
    CHECK (code ~ '^[A-Z]{3}/[0-6]$' AND right(code, 1) = scale::text)
);
COMMENT ON TABLE ledger.asset IS 'A currency with its number of minor digits, as in MXN/2; the scale never changes.';

CREATE TABLE ledger.chart (
    book_id       bigint NOT NULL REFERENCES ledger.book,
    kind          text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9-]*$'),
    side          char(1) NOT NULL CHECK (side IN ('D', 'C')),
    auto_create   boolean NOT NULL,
    floor_default bigint,
    PRIMARY KEY (book_id, kind)
);
COMMENT ON TABLE ledger.chart IS 'The chart of accounts. auto_create: the one account of the book itself is opened on first use. floor_default: NULL is unbounded.';

CREATE TABLE ledger.account (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book_id    bigint NOT NULL,
    kind       text NOT NULL,
    owner_type text NOT NULL,
    owner_id   text NOT NULL,
    asset      text NOT NULL REFERENCES ledger.asset,
    shard      smallint NOT NULL DEFAULT 0 CHECK (shard >= 0),
    side       char(1) NOT NULL CHECK (side IN ('D', 'C')),
    opened_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (book_id, kind) REFERENCES ledger.chart,
    UNIQUE (book_id, kind, owner_id, asset, owner_type, shard),
    UNIQUE (id, asset),
    CHECK ((owner_type = 'book') = (owner_id = ''))
);
COMMENT ON COLUMN ledger.account.owner_type IS 'book: the accounts of the book itself, touched by nearly every payment and therefore locked last.';

CREATE TABLE ledger.account_holder (
    account_id bigint PRIMARY KEY REFERENCES ledger.account,
    name       text NOT NULL
);
COMMENT ON TABLE ledger.account_holder IS 'Personal data, kept apart from the book so that it can be corrected and erased.';

CREATE TABLE ledger.account_identifier (
    book_id    bigint NOT NULL REFERENCES ledger.book,
    id_type    text NOT NULL,
    identifier text NOT NULL,
    account_id bigint NOT NULL REFERENCES ledger.account,
    PRIMARY KEY (book_id, id_type, identifier)
);
CREATE INDEX account_identifier_account ON ledger.account_identifier (account_id);

CREATE TABLE ledger.account_policy_event (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES ledger.account,
    action     text NOT NULL CHECK (action IN
        ('floor', 'freeze-debits', 'unfreeze-debits', 'freeze-credits', 'unfreeze-credits', 'close', 'reopen')),
    floor      bigint,
    actor      text NOT NULL,
    reason     text NOT NULL,
    booked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (action = 'floor' OR floor IS NULL)
);
CREATE INDEX account_policy_event_account ON ledger.account_policy_event (account_id, id);

CREATE TABLE ledger.balance (
    account_id     bigint PRIMARY KEY REFERENCES ledger.account,
    side           char(1) NOT NULL CHECK (side IN ('D', 'C')),
    debits         bigint NOT NULL DEFAULT 0 CHECK (debits >= 0),
    credits        bigint NOT NULL DEFAULT 0 CHECK (credits >= 0),
    hold_out       bigint NOT NULL DEFAULT 0 CHECK (hold_out >= 0),
    hold_in        bigint NOT NULL DEFAULT 0 CHECK (hold_in >= 0),
    floor          bigint,
    ver            bigint NOT NULL DEFAULT 0 CHECK (ver >= 0),
    debits_frozen  boolean NOT NULL DEFAULT false,
    credits_frozen boolean NOT NULL DEFAULT false,
    closed         boolean NOT NULL DEFAULT false,
    CHECK (floor IS NULL
        OR (side = 'C' AND credits - debits - hold_out >= floor)
        OR (side = 'D' AND debits - credits - hold_out >= floor))
) WITH (fillfactor = 50);
COMMENT ON COLUMN ledger.balance.ver IS 'Number of posting sides booked on the account: the sequence of the last one.';
COMMENT ON COLUMN ledger.balance.hold_in IS 'Held in favour of this account; zero while holds name no beneficiary.';

CREATE TABLE ledger.txn (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book_id      bigint NOT NULL REFERENCES ledger.book,
    idem_key     text NOT NULL CHECK (idem_key <> '' AND length(idem_key) <= 200),
    idem_hash    bytea NOT NULL CHECK (length(idem_hash) = 32),
    kind         text NOT NULL CHECK (kind IN ('post', 'hold', 'capture', 'void', 'expire', 'reverse', 'adjust')),
    reason_code  text,
    ext_ref      text,
    effective_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    booked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor        text NOT NULL,
    reverses_id  bigint REFERENCES ledger.txn,
    hold_id      bigint,
    process_key  bigint,
    meta         jsonb CHECK (octet_length(meta::text) <= 4096),
    UNIQUE (book_id, idem_key)
);
CREATE UNIQUE INDEX txn_reversed_once ON ledger.txn (reverses_id) WHERE reverses_id IS NOT NULL;
CREATE INDEX txn_reference ON ledger.txn (book_id, ext_ref, id) WHERE ext_ref IS NOT NULL;
COMMENT ON COLUMN ledger.txn.ext_ref IS 'What it was booked for: the payment id.';

CREATE TABLE ledger.posting (
    txn_id     bigint NOT NULL REFERENCES ledger.txn,
    leg        smallint NOT NULL CHECK (leg > 0),
    dr_account bigint NOT NULL,
    cr_account bigint NOT NULL,
    asset      text NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0),
    dr_seq     bigint NOT NULL CHECK (dr_seq > 0),
    dr_after   bigint NOT NULL,
    cr_seq     bigint NOT NULL CHECK (cr_seq > 0),
    cr_after   bigint NOT NULL,
    PRIMARY KEY (txn_id, leg),
    CHECK (dr_account <> cr_account),
    UNIQUE (dr_account, dr_seq),
    UNIQUE (cr_account, cr_seq),
    FOREIGN KEY (dr_account, asset) REFERENCES ledger.account (id, asset),
    FOREIGN KEY (cr_account, asset) REFERENCES ledger.account (id, asset)
);
COMMENT ON COLUMN ledger.posting.dr_seq IS 'Sequence of this side on its account; gapless over both sides together.';
COMMENT ON COLUMN ledger.posting.dr_after IS 'Balance of the account after this side, positive on the account''s own side.';

CREATE VIEW ledger.entry AS
    SELECT p.txn_id, p.leg, p.dr_account AS account_id, p.dr_seq AS seq, 'D'::char(1) AS side, p.asset, p.amount,
           p.dr_after AS balance_after, p.cr_account AS contra_id
      FROM ledger.posting p
    UNION ALL
    SELECT p.txn_id, p.leg, p.cr_account, p.cr_seq, 'C'::char(1), p.asset, p.amount, p.cr_after, p.dr_account
      FROM ledger.posting p;

CREATE TABLE ledger.hold (
    id           bigint PRIMARY KEY REFERENCES ledger.txn,
    from_account bigint NOT NULL,
    to_account   bigint REFERENCES ledger.account,
    asset        text NOT NULL,
    amount       bigint NOT NULL CHECK (amount > 0),
    fee          bigint NOT NULL DEFAULT 0 CHECK (fee >= 0 AND fee < amount),
    expires_at   timestamptz,
    FOREIGN KEY (from_account, asset) REFERENCES ledger.account (id, asset)
);
COMMENT ON COLUMN ledger.hold.fee IS 'The part of amount that goes to fee income when the hold is captured.';
COMMENT ON COLUMN ledger.hold.expires_at IS 'NULL: never by time. Holds of payments have none: only the payment''s outcome frees them.';
ALTER TABLE ledger.txn ADD FOREIGN KEY (hold_id) REFERENCES ledger.hold;

CREATE TABLE ledger.hold_state (
    hold_id      bigint PRIMARY KEY REFERENCES ledger.hold,
    from_account bigint NOT NULL,
    amount       bigint NOT NULL,
    captured     bigint NOT NULL DEFAULT 0 CHECK (captured >= 0),
    released     bigint NOT NULL DEFAULT 0 CHECK (released >= 0),
    final        boolean NOT NULL GENERATED ALWAYS AS (captured + released = amount) STORED,
    expires_at   timestamptz,
    CHECK (captured + released <= amount)
) WITH (fillfactor = 70);
CREATE INDEX hold_open ON ledger.hold_state (from_account, hold_id) WHERE NOT final;
CREATE INDEX hold_expiring ON ledger.hold_state (expires_at) WHERE expires_at IS NOT NULL AND NOT final;
COMMENT ON COLUMN ledger.hold_state.expires_at IS 'The present expiry: hold.expires_at unless it was renewed.';

CREATE TABLE ledger.outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic   text NOT NULL,
    key     text NOT NULL,
    payload jsonb,
    txn_id  bigint NOT NULL REFERENCES ledger.txn,
    xact    xid8 NOT NULL DEFAULT pg_current_xact_id()
);
COMMENT ON COLUMN ledger.outbox.payload IS 'NULL: the transaction itself, which never changes and is read by txn_id.';
COMMENT ON COLUMN ledger.outbox.xact IS 'A reader takes only rows whose xact is below pg_snapshot_xmin: identity order is not commit order.';

CREATE TABLE ledger.outbox_cursor (
    consumer text PRIMARY KEY,
    last_id  bigint NOT NULL
);

CREATE TABLE ledger.tariff (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book_id    bigint NOT NULL REFERENCES ledger.book,
    asset      text NOT NULL REFERENCES ledger.asset,
    valid_from timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX tariff_newest ON ledger.tariff (book_id, asset, id DESC);
COMMENT ON TABLE ledger.tariff IS 'A fee table of a book and currency; the one with the highest id whose valid_from has come is in force.';

CREATE TABLE ledger.tariff_band (
    tariff_id    bigint NOT NULL REFERENCES ledger.tariff,
    from_amount  bigint NOT NULL CHECK (from_amount > 0),
    to_amount    bigint CHECK (to_amount >= from_amount),
    fixed        bigint NOT NULL CHECK (fixed >= 0),
    basis_points integer NOT NULL CHECK (basis_points BETWEEN 0 AND 10000),
    min_fee      bigint NOT NULL CHECK (min_fee >= 0),
    max_fee      bigint CHECK (max_fee >= min_fee),
    PRIMARY KEY (tariff_id, from_amount)
);
COMMENT ON TABLE ledger.tariff_band IS 'Bounds are inclusive; to_amount NULL is unbounded. An amount in no band is not allowed.';

CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger.% is append-only: % refused; correct it by a new entry', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['book', 'asset', 'chart', 'account', 'account_policy_event', 'txn', 'posting', 'hold',
                                   'outbox', 'tariff', 'tariff_band'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', v_table);
        EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER append_only', v_table);
    END LOOP;
    FOREACH v_table IN ARRAY ARRAY['balance', 'hold_state'] LOOP
        EXECUTE format('CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON ledger.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', v_table);
        EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER never_removed', v_table);
    END LOOP;
END $$;
