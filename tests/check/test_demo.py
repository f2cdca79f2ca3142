"""The demonstration as a newcomer runs it: one command, both servers, a verdict from the counts."""

from __future__ import annotations

import json
import subprocess
import sys


def test_the_demo_counts_no_loss_with_the_middleware_and_says_so_by_its_exit_code() -> None:
    command = [sys.executable, "-m", "graceful_asgi.check", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    verdicts = json.loads(finished.stdout)
    graceful = verdicts["graceful"]
    assert graceful["clean"]
    assert graceful["lost"]["total"] == 0
    assert graceful["exit_code"] == 0
    assert verdicts["plain"]["exit_code"] == -15
    for verdict in verdicts.values():
        assert verdict["slow"] == verdict["stream"] == "200 complete"
        assert verdict["served"]["before"] > 1000  # there was load
