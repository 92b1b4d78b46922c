"""The jobs of a disbursement."""

from __future__ import annotations


class DisbursementWorker:
    """Collects, records and reports disbursements."""
