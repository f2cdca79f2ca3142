"""Servers to run as a subprocess: ``python servers.py BEHAVIOUR PORT``. Standard library only."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every GET; keeps the connection only when asked to by nobody."""

    def do_GET(self) -> None:
        """Answer, and end the connection: HTTP/1.0."""
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
        if self.path == "/exit":
            os._exit(9)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing per request."""


def serve(port: int) -> http.server.ThreadingHTTPServer:
    """Serve from a thread; the main thread is for the signals."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


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
        http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    elif behaviour != "never opens":
        serve(port)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
