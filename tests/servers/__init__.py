"""Tests of `graceful_asgi._servers` against the installed uvicorn."""
