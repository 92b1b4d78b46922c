"""The jobs by which an operator's action is carried out."""

from __future__ import annotations


class OperationsWorker:
    """Carries out what operators decided."""
