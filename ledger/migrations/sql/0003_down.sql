-- The role stays: other databases of the server may use it.
REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM payhub_ledger_app;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM payhub_ledger_app;
REVOKE ALL ON SCHEMA ledger FROM payhub_ledger_app;
DROP FUNCTION ledger.take_snapshots, ledger.trial_balance, ledger.sums_before, ledger.entries_between, ledger.value_dated_around,
    ledger.is_value_dated;
DROP INDEX ledger.txn_value_dated, ledger.txn_booked;
DROP TABLE ledger.rebuilt_balance, ledger.snapshot, ledger.snapshot_run, ledger.chain_block;
ALTER TABLE ledger.outbox_cursor DROP COLUMN sent, ADD COLUMN last_id bigint NOT NULL DEFAULT 0;
ALTER TABLE ledger.outbox_cursor ALTER COLUMN last_id DROP DEFAULT;
