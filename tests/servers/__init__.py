"""Tests of `graceful_asgi.servers` against the installed uvicorn."""
