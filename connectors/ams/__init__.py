"""The account system (AMS): where customers' balances live, and what a payment asks of it.

A payment looks the parties up and learns the fee, sets the payer's money aside, and in the end either pays it out or
frees it. `client.AccountSystem` is the contract, fulfilled by our own ledger and by Apache Fineract. Every effect is
named after the payment, so a repeat finds what was done and does it no second time.

    model.py               our words: jobs, results, refusals
    client.py              the contract of every account system
    worker.py              one short method per job
    ledger_backend.py      our own ledger
    fineract_wire.py       Fineract's words, and the translation both ways          pure
    fineract_client.py     Fineract over HTTP: what may have arrived, and what certainly did not
    fineract_steps.py      what was asked of Fineract (PostgreSQL, schema `ams`)
    fineract_backend.py    Fineract as an account system
    fake.py, fake_accounts.py   a pretend Fineract over real HTTP
"""
