"""Store balances and their disbursement: what a lender owes its partners' stores, and how it is paid (L1 to L57).

Who is paid, and what a credit costs:

    merchants.py  options.py  edits.py   merchants, stores, accounts and options; who changed what, and who validated it
    credits.py                           signed credits
    commission.py  pricing.py            what a credit costs: pure reckoning, and where its inputs and traces are kept
    seed.py  importing.py  fields.py     the same from the seed file and from CSV; what a field must look like

What is owed, and how it is paid (knows nothing of what a credit costs):

    balances.py  updates.py              the verbs that change a balance; one update and the transaction around it
    eligibility.py  explanations.py      would a store be paid now, and if not why
    runs.py  transfers.py                when stores are due; transfers made of pending updates, and how they end
    report.py  report_forms.py           what the merchant is told about a transfer
    events.py  requests.py               what came in, kept whatever becomes of it; idempotency keys
    verify.py                            recomputes every balance from what was written

`model.py` and `refusals.py` have the words. Tables and their functions are in `migrations/`.
"""
