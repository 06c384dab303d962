"""The `wan` command: everything that a person types."""
