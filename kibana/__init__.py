"""Kibana's saved objects for the views: two data views, three searches, a dashboard.

    python -m kibana.generate           writes kibana/payhub.ndjson
    python -m kibana.generate --check   fails when the file is not what the generator makes

Kibana keeps JSON inside of JSON strings; the file is generated because nobody can edit that by hand.
"""
