DROP VIEW disbursement.standing;
DROP FUNCTION disbursement.append_update, disbursement.verdict;
DROP TABLE disbursement.outbox, disbursement.event_outcome, disbursement.event_log, disbursement.bank_transfer_item,
    disbursement.balance_update_status, disbursement.balance_update, disbursement.bank_transfer_status,
    disbursement.bank_transfer, disbursement.credit_change, disbursement.credit, disbursement.bank_account,
    disbursement.store, disbursement.merchant;
DROP FUNCTION disbursement.refuse_transition, disbursement.refuse_change;
DROP DOMAIN disbursement.name;
