"""How the schema `channel` grows; applied by `hub.migrations`."""
