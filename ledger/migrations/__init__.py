"""How the schema `ledger` grows: Alembic revisions, each with its SQL beside it under `sql/` and its way back."""
