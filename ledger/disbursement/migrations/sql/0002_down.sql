DROP INDEX disbursement.credit_origination;
DROP TABLE disbursement.request, disbursement.edit, disbursement.commission_trace, disbursement.commission_schedule,
    disbursement.commission_standard, disbursement.payment_option;
