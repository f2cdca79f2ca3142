"""Frameworks for real: small programs as people write them, each drained under load."""
