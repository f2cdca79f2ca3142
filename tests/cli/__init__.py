"""Tests of `graceful_asgi.cli`."""
