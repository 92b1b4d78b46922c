"""Where balances live: a double-entry book on PostgreSQL.

The posting row (debit account, credit account, amount > 0) is the truth. Balances are kept in step with it in the same
transaction, corrections are new entries, and triggers refuse to change or remove what was written. The verbs are
`hold`, `capture`, `release` and `post` (`book.py`); each is one database function and one round trip. `verify.py`
recomputes everything from the postings. Every tenant has a book of its own.
"""
