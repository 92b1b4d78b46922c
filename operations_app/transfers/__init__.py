"""Payments found and shown.

filters.py   what a search asks, as Elasticsearch understands it
detail.py    all there is about one payment, from the views, the channel's tables and the book
diagram.py   where an instance stands in the drawing that it was started with
wire.py      how it looks in JSON
api.py       the routes
"""
