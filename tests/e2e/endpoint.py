"""The app under test with a drain endpoint: `uvicorn e2e.endpoint:app`."""

from __future__ import annotations

from .app import make_app

TOKEN = "a token of the tests, of no use elsewhere"

app = make_app(drain_path="/drain", drain_token=TOKEN)
