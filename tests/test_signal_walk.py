"""The way from the signal handler to the armed deadline is short enough to be read in one go."""

from __future__ import annotations

import json
import sys

import pytest
from support.command import run_python
from support.need import need

HOPS = 10
FILES = 5
PROGRAM = """
import json, os, signal, sys, threading, uvicorn
from graceful_asgi import GracefulMiddleware

stacks = []

def trace(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "arm" and not stacks:
        stack = []
        while frame is not None and frame.f_code.co_name != "handle_exit":
            stack.append(frame.f_code.co_filename)
            frame = frame.f_back
        if frame is not None:
            stacks.append(stack)

async def app(scope, receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.startup":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            return

# Not `setprofile`: that is called for `os.kill` as well, and on Python 3.10 the signal's handler
# then runs in the middle of the call, unseen.
sys.settrace(trace)
uvicorn.run(GracefulMiddleware(app, lame_duck_period=0), port=0, log_level="critical")
sys.settrace(None)
print(json.dumps(stacks[0]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="passive there")
def test_a_signal_arms_the_deadline_in_few_steps_and_few_files() -> None:
    need("uvicorn")
    ended = run_python(PROGRAM)
    assert ended.returncode == 0, ended.stderr
    stack = json.loads(ended.stdout)
    assert stack[0].endswith("watchdog.py")
    assert stack[-1].endswith("signals.py")
    assert len(stack) <= HOPS
    assert len(set(stack)) <= FILES
