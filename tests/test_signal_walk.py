"""The way of a SIGTERM is short enough to be read in one go, and goes as the documentation says."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter

import pytest
from support.command import run_python
from support.docs import ROOT
from support.need import need

HOPS = 10
FILES = 5
TO_THE_DEADLINE = """
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

VISITS = 3
"""A file is entered, and left and entered again twice, at the most."""
TO_THE_EXIT = """
import asyncio, contextlib, http.client, json, os, signal, sys, threading, uvicorn
from graceful_asgi import GracefulMiddleware

calls, over = [], threading.Event()

def trace(frame, event, argument):
    file, name = frame.f_code.co_filename, frame.f_code.co_name
    if name == "handle_exit":
        calls.clear()
    if "graceful_asgi" in file and (file, name) not in calls:
        calls.append((file, name))

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for step in "startup", "shutdown":
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        over.set()
    elif scope["path"] == "/hung":
        while not over.is_set():  # it swallows its cancellation
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a part", "more_body": True})
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

def client():
    hung, cut = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(2)]
    hung.request("GET", "/hung")
    cut.request("GET", "/cut")
    hung.getresponse()

class Server(uvicorn.Server):
    async def main_loop(self):
        global port
        port = self.servers[0].sockets[0].getsockname()[1]
        threading.Thread(target=client, daemon=True).start()
        await super().main_loop()

periods = {"lame_duck_period": 0.2, "grace_period": 0.2, "cancel_period": 0.4}
sys.settrace(trace)
try:
    Server(uvicorn.Config(GracefulMiddleware(app, **periods), port=0, log_level="critical")).run()
finally:
    sys.settrace(None)
    print(json.dumps(calls))
"""

AT_ANY_TIME = {"sweep"}
"""Called every 0.1 s once the listener closes."""


def documented_walk() -> list[tuple[str, str]]:
    """Return the files and functions that the page names, from the signal's handler on."""
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## A SIGTERM")[2].partition("\n2. ")[2].partition("\n## ")[0]
    functions = re.findall(r"`(?:\w+\.)?([a-z]\w+)`\s+\(`(_[\w/]+\.py)`\)", section)
    return [(file, name) for name, file in functions]


@pytest.mark.skipif(sys.platform == "win32", reason="passive there")
def test_a_signal_arms_the_deadline_in_few_steps_and_few_files() -> None:
    need("uvicorn")
    ended = run_python(TO_THE_DEADLINE)
    assert ended.returncode == 0, ended.stderr
    stack = json.loads(ended.stdout)
    assert stack[0].endswith("watchdog.py")
    assert stack[-1].endswith("signals.py")
    assert len(stack) <= HOPS
    assert len(set(stack)) <= FILES


@pytest.mark.skipif(sys.platform == "win32", reason="passive there")
def test_the_way_to_the_exit_is_the_one_that_the_page_tells() -> None:
    """A request hangs, and one answer is sent in part: so each step is taken."""
    need("uvicorn")
    ended = run_python(TO_THE_EXIT)
    assert ended.returncode == 1, ended.stderr
    called = [
        (file.rpartition("graceful_asgi/")[2], name) for file, name in json.loads(ended.stdout)
    ]
    walk = documented_walk()
    assert set(walk) <= set(called)
    order = [step for step in walk if step[1] not in AT_ANY_TIME]
    assert order == sorted(order, key=called.index)


def test_no_file_is_left_and_entered_again_more_than_twice() -> None:
    """A reader who follows a SIGTERM goes through each file in a few parts, in their order."""
    visits = Counter(file for file, _ in itertools.groupby(file for file, _ in documented_walk()))
    assert len(visits) > 10
    assert {file for file, count in visits.items() if count > VISITS} == set()
