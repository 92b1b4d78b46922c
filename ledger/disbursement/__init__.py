"""Store balances and their disbursement: what a lender owes its partners' stores, and how it is paid (L1 to L57)."""
