-- Takes everything of the first revision away, the book included. The schema stays: it holds the version table.
DROP VIEW ledger.entry;
ALTER TABLE ledger.txn DROP CONSTRAINT txn_hold_id_fkey;
DROP TABLE ledger.tariff_band, ledger.tariff, ledger.outbox_cursor, ledger.outbox, ledger.hold_state, ledger.hold,
    ledger.posting, ledger.txn, ledger.balance, ledger.account_policy_event, ledger.account_identifier,
    ledger.account_holder, ledger.account, ledger.chart, ledger.asset, ledger.book;
DROP FUNCTION ledger.quote,
    ledger.fee_of,
    ledger.set_policy,
    ledger.expire_holds,
    ledger.release_hold,
    ledger.capture_hold,
    ledger.place_hold,
    ledger.post,
    ledger.move,
    ledger.open_account,
    ledger.find_account,
    ledger.earlier,
    ledger.owner_of,
    ledger.refused,
    ledger.refuse_change;
DROP TYPE ledger.answer;
