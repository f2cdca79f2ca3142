"""Tests of `graceful_asgi._cli`."""
