"""Operations on many payments at once, over a list that is frozen when they are asked for.

api.py     the routes
model.py   the words
store.py   the tables
expiry.py  what nobody approved in time
runner.py  begins items at their pace and looks for their ends
single.py  each item by the way of single actions
"""
