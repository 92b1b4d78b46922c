"""The channel: where customers' applications hand payments in, ask for their state and are told the outcome.

Paths, headers and bodies are Payment Hub EE's, with truthful status codes. Accepting a payment is one commit of one
row, which is at once the idempotency record and the outbox entry; the engine hears of it right afterwards, or later
when it is busy or away.

    identifiers.py   the checks of CLABEs, cards, IBANs and numbers                pure
    model.py         our words: two jobs and the start message                     no input, no output
    wire.py          Payment Hub EE's words, and the translation both ways         pure
    store.py         payments, their history, callbacks, tenants (PostgreSQL, schema `channel`)
    relay.py         hands accepted payments to the engine, a bounded window at a time
    stand_in.py      notices that the account system is away, and bounds what may wait for it (H8)
    callbacks.py     tells outcomes to the channel's own address, signed, for three days (H5)
    worker.py        one short method per job
    api.py           the routes
"""
