-- Kinds that accounts were opened of stay: what was booked on them does, too.
ALTER TABLE ledger.chart DISABLE TRIGGER append_only;
DELETE FROM ledger.chart c
 WHERE c.kind IN ('store-payable', 'credit-receivable', 'commission-income', 'balance-adjustment')
   AND NOT EXISTS (SELECT FROM ledger.account a WHERE a.book_id = c.book_id AND a.kind = c.kind);
ALTER TABLE ledger.chart ENABLE ALWAYS TRIGGER append_only;
