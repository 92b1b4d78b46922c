"""What leaves the engine: the audit and operations streams into Elasticsearch. Nothing is here yet."""
