"""What operators do to a payment: asked for, approved, carried out by the engine, confirmed by its records.

model.py      the words: kinds, states, jobs, messages
situation.py  where a payment stands, read from the views and the connectors' tables
ways.py       the drawn ways out of each place where a payment can be stuck
possible.py   what can be done there, why not, and by which commands
overrides.py  which variables may be changed where
policy.py     how many approvals an action needs
store.py      the tables
service.py    asking, approving, rejecting, withdrawing
relay.py      hands what was committed to the engine
carrying.py   carries out, and looks for the engine's record
"""
