-- Back to the first revision's tables; its functions are made anew after this. Rows of later kinds stay as they are.
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'ledger'::regnamespace AND p.proname <> 'refuse_change'
    LOOP
        EXECUTE 'DROP FUNCTION ' || v_function || ' CASCADE';
    END LOOP;
END $$;
DROP TYPE ledger.answer;

ALTER TABLE ledger.chart DROP COLUMN auto_create_for;
COMMENT ON COLUMN ledger.chart.auto_create IS NULL;
ALTER TABLE ledger.txn DROP COLUMN hold_until, DROP COLUMN hold_freed, DROP CONSTRAINT txn_correction_has_reason,
    DROP CONSTRAINT txn_reverse_names_its_original, DROP CONSTRAINT txn_kind_check;
ALTER TABLE ledger.txn ADD CONSTRAINT txn_kind_check
    CHECK (kind IN ('post', 'hold', 'capture', 'void', 'expire', 'reverse', 'adjust')) NOT VALID;
ALTER TABLE ledger.txn ADD CONSTRAINT txn_book_id_fkey FOREIGN KEY (book_id) REFERENCES ledger.book;
ALTER TABLE ledger.outbox ADD CONSTRAINT outbox_txn_id_fkey FOREIGN KEY (txn_id) REFERENCES ledger.txn;
