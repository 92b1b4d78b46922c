"""How the schema `operations` grows; applied by `hub.migrations`."""
