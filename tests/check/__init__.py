"""Tests of `graceful_asgi.check`."""
