"""Datasette, whose app is made by its own class; a query takes as long as it counts."""

from __future__ import annotations

from datasette.app import Datasette

from graceful_asgi import GracefulMiddleware

app = GracefulMiddleware(
    Datasette(memory=True, settings={"sql_time_limit_ms": 20_000, "num_sql_threads": 3}).app()
)
