-- For the role that the hub's processes work as: it reads and appends, and updates what is a present state.
GRANT USAGE ON SCHEMA disbursement TO payhub_ledger_app;
GRANT SELECT, INSERT ON disbursement.merchant, disbursement.store, disbursement.bank_account, disbursement.credit,
    disbursement.credit_change, disbursement.bank_transfer, disbursement.bank_transfer_status, disbursement.balance_update,
    disbursement.balance_update_status, disbursement.bank_transfer_item, disbursement.event_log, disbursement.event_outcome,
    disbursement.outbox TO payhub_ledger_app;
GRANT SELECT ON disbursement.standing TO payhub_ledger_app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA disbursement TO payhub_ledger_app;
GRANT UPDATE (name, tax_id, partner, automation, validated) ON disbursement.merchant TO payhub_ledger_app;
GRANT UPDATE (name, frequency, minimum_amount, manual_confirmation, validated) ON disbursement.store TO payhub_ledger_app;
GRANT UPDATE (authenticated_at, authenticated_by) ON disbursement.bank_account TO payhub_ledger_app;
GRANT UPDATE (amount, commission, disbursed) ON disbursement.credit TO payhub_ledger_app;
GRANT UPDATE (status, confirmed_by, confirmed_at, process_instance_key, reason, reason_detail, settled_at)
    ON disbursement.bank_transfer TO payhub_ledger_app;
GRANT UPDATE (status, overwritten) ON disbursement.balance_update TO payhub_ledger_app;
GRANT UPDATE (released_at) ON disbursement.bank_transfer_item TO payhub_ledger_app;
GRANT UPDATE (published_at, publish_after) ON disbursement.outbox TO payhub_ledger_app;
