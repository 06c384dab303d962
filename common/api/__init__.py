"""The HTTP surface of a service."""
