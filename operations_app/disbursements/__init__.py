"""Payouts to stores, shown: `wire.py` is how they look in JSON, `api.py` has the routes."""
