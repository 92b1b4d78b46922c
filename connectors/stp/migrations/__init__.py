"""How the schema `stp` grows; applied by `hub.migrations`."""
