"""The commands of `payhub` that belong to one part, a module each. `hub.cli` puts them together."""
