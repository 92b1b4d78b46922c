"""Payments found and shown.

filters.py   what a search asks, as Elasticsearch understands it
records.py   a payment as the channel took it in, where the view does not have it yet
ids.py       which ids somebody may mean who asks for a payment
diagram.py   where an instance stands in the drawing that it was started with
wire.py      how it looks in JSON
api.py       the routes
"""
