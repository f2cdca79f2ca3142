"""The app under test with a drain endpoint: `uvicorn e2e.endpoint:app`."""

from __future__ import annotations

from graceful_asgi import Probes

from .app import make_app

TOKEN = "a token of the tests, of no use elsewhere"

app = make_app(Probes(readiness="/readyz", liveness="/livez", drain="/drain", drain_token=TOKEN))
