"""Partners and their stores: contributions come in, disbursements go out, and the merchant is told.

The rules of store balances live in `ledger.disbursement`; here are the jobs, the HTTP interface and the messages.

    model.py       our words: jobs, results, messages
    worker.py      one short method per job
    relay.py       gives the engine what the ledger's outbox holds
    notices.py     tells merchants their reports, signed, for three days
    api.py         partners, treasury and operations over HTTP; the routes of each subject stand in its `*_api.py`
    access.py      who may ask for what, and how a refusal is told
    wire.py        what bodies and answers have in common; those of each subject stand in its `*_wire.py`
    connector.py   how it is put together
"""
