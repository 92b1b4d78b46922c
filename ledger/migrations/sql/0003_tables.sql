-- Evidence: what was written is sealed into a chain of hashes, and past balances are kept so that they can be asked for.

CREATE TABLE ledger.chain_block (
    seq       bigint PRIMARY KEY CHECK (seq > 0),
    from_txn  bigint NOT NULL,
    to_txn    bigint NOT NULL CHECK (to_txn >= from_txn),
    members   int8multirange NOT NULL CHECK (NOT isempty(members)),
    contents  text[] NOT NULL,
    prev_hash bytea NOT NULL CHECK (length(prev_hash) = 32),
    hash      bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    sealed_at timestamptz NOT NULL
);
COMMENT ON COLUMN ledger.chain_block.members IS 'The transactions that this block seals. A number below to_txn that was committed late belongs to a later block.';
COMMENT ON COLUMN ledger.chain_block.contents IS 'The columns that were hashed, as in txn.id: what was added to the tables later is not expected in older blocks.';

CREATE TABLE ledger.snapshot_run (
    as_of    timestamptz PRIMARY KEY,
    every    boolean NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN ledger.snapshot_run.every IS 'Whether every account was looked at, or only those of the books themselves.';

CREATE TABLE ledger.snapshot (
    account_id bigint NOT NULL REFERENCES ledger.account,
    as_of      timestamptz NOT NULL,
    debits     bigint NOT NULL CHECK (debits >= 0),
    credits    bigint NOT NULL CHECK (credits >= 0),
    whole_to   bigint NOT NULL CHECK (whole_to >= 0),
    last_seq   bigint NOT NULL CHECK (last_seq >= whole_to),
    PRIMARY KEY (account_id, as_of)
);
COMMENT ON TABLE ledger.snapshot IS 'The sums of an account''s postings booked before as_of. An account without a row at an instant has that of the instant before.';
COMMENT ON COLUMN ledger.snapshot.whole_to IS 'Every side up to this sequence is in the sums; up to last_seq some are. They differ on accounts that are locked after a transaction got its time.';

CREATE TABLE ledger.rebuilt_balance (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES ledger.account,
    was        jsonb NOT NULL,
    became     jsonb NOT NULL,
    reason     text NOT NULL CHECK (reason <> ''),
    rebuilt_by text NOT NULL DEFAULT session_user,
    rebuilt_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ledger.rebuilt_balance IS 'Balances that disagreed with their postings and were replaced by `payhub ledger rebuild --write`.';

ALTER TABLE ledger.outbox_cursor DROP COLUMN last_id, ADD COLUMN sent int8multirange NOT NULL DEFAULT '{}';
COMMENT ON COLUMN ledger.outbox_cursor.sent IS 'The outbox rows that the consumer acknowledged. Not the highest one: a lower number may be committed later.';

-- Rows lie in the order of their time, nearly: a summary per block of rows is enough, and costs a write almost nothing.
CREATE INDEX txn_booked ON ledger.txn USING brin (booked_at) WITH (pages_per_range = 16, autosummarize = on);
-- The transactions whose value date is not their booking date; the functions below name the same minute.
CREATE INDEX txn_value_dated ON ledger.txn (book_id, effective_at, booked_at, id)
    WHERE booked_at - effective_at NOT BETWEEN interval '-1 minute' AND interval '1 minute';

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['chain_block', 'snapshot_run', 'snapshot', 'rebuilt_balance'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', v_table);
        EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER append_only', v_table);
    END LOOP;
END $$;
