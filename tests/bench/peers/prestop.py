"""A server behind a preStop hook: `python -m tests.bench.peers.prestop PORT COMMAND ...`.

At SIGTERM it asks the drain endpoint and waits for the answer, then it sends SIGTERM on: as a
platform does that runs a hook before it stops a container.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys

from .app import TOKEN


def main(port: int, command: list[str]) -> int:
    """Run the command; return its exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = subprocess.Popen(
        command, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    )
    signal.sigwait({signal.SIGTERM})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("POST", "/drain", headers={"Authorization": f"Bearer {TOKEN}"})
        connection.getresponse().read()
    server.terminate()
    return server.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
