"""What an operator sees. Nothing is here yet."""
