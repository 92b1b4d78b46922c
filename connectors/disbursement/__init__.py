"""Partners and their stores: contributions come in, disbursements go out, and the merchant is told.

The rules of store balances live in `ledger.disbursement`; here are the jobs, the HTTP interface and the messages.

    model.py       our words: jobs, results, messages
    worker.py      one short method per job
    notices.py     tells merchants their reports, signed, for three days
    reports_api.py reports over HTTP: JSON, CSV, a page to print
    api.py         partners, treasury and operations over HTTP
    connector.py   how it is put together
"""
