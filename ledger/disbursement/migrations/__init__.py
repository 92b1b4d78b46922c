"""How the schema `disbursement` grows; applied by `hub.migrations`."""
