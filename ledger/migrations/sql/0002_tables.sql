-- What reversals, partial captures, renewed holds and customers' accounts opened on first use need of the tables.
-- Existing rows are not judged by the new rules (NOT VALID): what was written stays as it was written.
ALTER TABLE ledger.txn DROP CONSTRAINT txn_kind_check;
ALTER TABLE ledger.txn ADD CONSTRAINT txn_kind_check
    CHECK (kind IN ('post', 'hold', 'capture', 'void', 'expire', 'reverse', 'adjust', 'renew')) NOT VALID;
ALTER TABLE ledger.txn ADD CONSTRAINT txn_reverse_names_its_original
    CHECK ((kind = 'reverse') = (reverses_id IS NOT NULL)) NOT VALID;
ALTER TABLE ledger.txn ADD CONSTRAINT txn_correction_has_reason
    CHECK (kind NOT IN ('adjust', 'reverse') OR (reason_code IS NOT NULL AND reason_code <> '')) NOT VALID;
ALTER TABLE ledger.txn ADD COLUMN hold_freed bigint CHECK (hold_freed > 0);
ALTER TABLE ledger.txn ADD COLUMN hold_until timestamptz;
COMMENT ON COLUMN ledger.txn.hold_freed IS 'What a void, an expiry or a final capture of less than the whole gave back of its hold.';
COMMENT ON COLUMN ledger.txn.hold_until IS 'The expiry that a renewal gave its hold.';

ALTER TABLE ledger.chart ADD COLUMN auto_create_for text NOT NULL DEFAULT 'book'
    CHECK (auto_create_for IN ('book', 'customer'));
COMMENT ON COLUMN ledger.chart.auto_create IS 'Accounts of this kind are opened on first use.';
COMMENT ON COLUMN ledger.chart.auto_create_for IS 'book: only the one account of the book itself; customer: an account per owner.';

-- These two checks look up and lock a parent row per inserted row, and the book's is one row for all payments of a tenant. A
-- quarter of a batch went there. The functions take both ids from the very rows, which are append-only and so cannot go away,
-- and the auditor compares them again. A posting's transaction and its accounts, hence its currency, stay foreign keys.
ALTER TABLE ledger.txn DROP CONSTRAINT txn_book_id_fkey;
ALTER TABLE ledger.outbox DROP CONSTRAINT outbox_txn_id_fkey;
