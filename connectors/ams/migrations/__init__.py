"""How the schema `ams` grows; applied by `hub.migrations`."""
