-- Books that are there already learn the kinds that new ones start with; see STANDARD_CHART.
INSERT INTO ledger.chart (book_id, kind, side, auto_create, floor_default)
SELECT k.id, n.kind, n.side, n.auto_create, NULL
  FROM ledger.book k
 CROSS JOIN (VALUES ('store-payable', 'C', false), ('credit-receivable', 'D', true), ('commission-income', 'C', true),
                    ('balance-adjustment', 'C', true)) AS n (kind, side, auto_create)
    ON CONFLICT DO NOTHING;
