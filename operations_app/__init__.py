"""What an operator sees and does: payments found and shown, repaired by actions that the engine carries out.

    connector.py   how it is put together
    app.py         the HTTP application: one router per slice
    worker.py      the jobs of operator-action.bpmn
    access.py  cursors.py  wire.py  description.py   what every slice uses

Slices are packages where they are large: `transfers`, `disbursements`, `actions`, `bulk`; else a module each. The
operator log is `journal.py`, told to Kafka by `mirror.py` and proved by `verify.py`. Beside the API, `truth.py`
compares ledger, scheme book, engine and views (`payhub reconcile`).
"""
