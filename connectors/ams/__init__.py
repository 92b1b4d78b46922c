"""The account system (AMS): where customers' balances live, and what a payment asks of it.

A payment looks the parties up and learns the fee, sets the payer's money aside, and in the end either pays it out or
frees it. `client.AccountSystem` is the contract; `ledger_backend.py` fulfils it with our own ledger. Every effect
carries an operation id made from the payment's id, so a repeat finds what was done and does it no second time.
"""
