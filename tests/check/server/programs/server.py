"""Servers to run as a subprocess: ``python server.py BEHAVIOUR PORT``. Standard library only."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Container


class AnyHost:
    """Contains every name."""

    def __contains__(self, name: object) -> bool:
        return True


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every GET; keeps the connection only when asked to by nobody."""

    hosts: ClassVar[Container[str]]

    def do_GET(self) -> None:
        """HttpAnswer, and end the connection: HTTP/1.0."""
        if self.path == "/slow":
            time.sleep(1)
        self.send_response(200 if self.headers["Host"] in self.hosts else 403)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
        if self.path == "/exit":
            os._exit(9)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing per request."""


def serve(port: int) -> http.server.ThreadingHTTPServer:
    """Serve from a thread; the main thread is for the signals."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def drain(server: http.server.ThreadingHTTPServer) -> None:
    """Exit once what is in flight has been answered."""
    server.daemon_threads = False  # `server_close` waits for them

    def handle(number: int, frame: object) -> None:
        server.shutdown()
        server.server_close()
        sys.exit(0)

    signal.signal(signal.SIGTERM, handle)


def leave(number: int, frame: object) -> None:
    """Exit in a way that can be told from every other."""
    sys.exit(7)


def main(behaviour: str, port: int) -> None:
    """Behave."""
    sys.stderr.write(f"behaviour: {behaviour}\n")
    sys.stderr.flush()
    if behaviour == "exits early":
        sys.exit(3)
    if behaviour == "exits 7":
        signal.signal(signal.SIGTERM, leave)
    if behaviour == "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "has a child":
        child_port = sys.argv[3]
        subprocess.Popen([sys.executable, str(Path(__file__)), "ignores SIGTERM", child_port])
    if behaviour == "accepts and is silent":
        silent = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        silent.timeout = None  # kept, and with it the port
    elif behaviour != "never opens":
        Handler.hosts = [behaviour[6:]] if behaviour.startswith("wants ") else AnyHost()
        server = serve(port)
        if behaviour == "drains":
            drain(server)
    while True:
        # Not longer: a signal that the kernel gives to another thread does not end it, and Python
        # runs the handler in this one.
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
