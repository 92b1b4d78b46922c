"""STP, the *Sistema de Transferencias y Pagos*: the door through which our tenants' money enters SPEI.

SPEI is the real-time settlement system of Banco de México; STP is a participant that lets companies send orders over
it. An order is one PUT of a JSON body that carries its own RSA signature over 34 fields joined by `|`. The answer says
only that STP captured the order: whether it was settled, cancelled or returned comes later, by a callback to us, or is
asked for with the order's *tracking key* (`claveRastreo`). The tracking key is derived from the payment's id and is the
one thing that keeps an order from being paid twice, so it never changes and the exact bytes sent are kept.

    model.py       our words: jobs, messages, refusals, states                    no input, no output
    wire.py        STP's words, and the translation both ways                     pure
    cleaning.py  accounts.py  tracking.py  calendar.py  signature.py  breaks.py    pure; one rule each
    tenants.py     whose orders are made how: company, account and key of each tenant

    orders.py      what we sent and what we heard (PostgreSQL, schema `stp`)
    transport.py   HTTP that says what certainly did not leave
    client.py      STP over it: orders, deposits given back, inquiries
    dispatch.py    claim, send, record; look before repeating
    worker.py      the payer's two jobs: send an order, ask for it
    returns.py     deposits given back: the same way as orders
    poller.py      asks when no status comes, within what consults.py lets a company ask in an hour
    account_registry.py  by_hand.py   accounts of customers at STP; what a person does without a process

    api.py  authentication.py         what STP calls, and who may call
    callbacks.py  deposits.py         what a status and what incoming money does
    reconciliation.py                 ledger = orders = STP, day by day
    fake.py        a pretend STP, as nasty as the real one

Sources: STP's answers and callbacks as recorded by public clients (stpmex, speid), Banxico's catalogues, and the rules
L32 to L44, H3 and H4 of this project. What nobody documents is a setting or is treated as unknown, never guessed.
"""
