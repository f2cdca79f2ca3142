"""Tests of `graceful_asgi._check.client`."""
