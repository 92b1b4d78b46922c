DROP TABLE disbursement.report_attempt, disbursement.report_delivery, disbursement.report_address, disbursement.report;
