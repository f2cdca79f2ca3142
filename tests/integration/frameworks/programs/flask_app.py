"""Flask, a WSGI app, behind a2wsgi: each request in a thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from a2wsgi import WSGIMiddleware
from flask import Flask, request

from graceful_asgi import GracefulMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator

flask = Flask(__name__)


@flask.get("/")
def root() -> str:
    return "ok"


@flask.get("/slow")
def slow() -> str:
    time.sleep(float(request.args.get("s", "1")))
    return "slow"


@flask.get("/stream")
def stream() -> Iterator[bytes]:
    for number in range(10):
        time.sleep(0.1)
        yield b"%d\n" % number


@flask.post("/upload")
def upload() -> str:
    return str(len(request.get_data()))


app = GracefulMiddleware(WSGIMiddleware(flask, workers=50))
