"""No thread of this package is there while the process forks; afterwards all of them are."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from support.client import get
from support.command import run_python
from support.polling import PATIENCE
from support.server import PACKAGE_ROOT, TESTS, uvicorn

from graceful_asgi.threads import COUNTS_LATE

if TYPE_CHECKING:
    from pathlib import Path

LONG = 1000.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")

PRELUDE = """
import logging, os, re, signal, sys, threading, time
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

def count():
    return len(os.listdir("/proc/self/task"))

def settled(wanted):
    until = time.monotonic() + 15
    while count() != wanted and time.monotonic() < until:
        time.sleep(0.01)
    return count()

at_fork = []
os.register_at_fork(before=lambda: at_fork.append(count()))  # called after those added later

from graceful_asgi import log
from graceful_asgi._diagnostics.watchdog import Watchdog

def fork(in_child=lambda: 0):
    child = os.fork()
    if not child:
        signal.alarm(60)  # a child that hangs does not outlive its test for long
        code = 99
        try:
            code = in_child()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

watchdog = Watchdog(lambda: print("last words", flush=True))
assert watchdog.start()
log.start()
"""


def test_the_threads_end_before_a_fork_and_are_back_after_it() -> None:
    ended = run_python(
        PRELUDE
        + """
before = settled(4)
for _ in range(20):
    fork()
print(before, set(at_fork), settled(4))
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "4 {1} 4\n"), ended.stderr


def test_a_thread_may_end_at_whichever_moment_the_process_begins_to_fork() -> None:
    """It removes itself from the set of those that pause. A failure there goes to stderr."""
    ended = run_python(
        PRELUDE
        + """
import itertools
from graceful_asgi import threads

begin_to_fork = threads._forks._before.__func__.__code__

def ends_at(moment):
    lines = itertools.count()
    over = threading.Event()
    thread = threads.BareThread(lambda: not over.wait(15), wake=over.set, lost=int, forget=int)
    assert thread.start()
    ended = False

    def trace(frame, event, _):
        nonlocal ended
        inside = frame  # before Python 3.12 a comprehension has its own frame
        while inside is not None and inside.f_code is not begin_to_fork:
            inside = inside.f_back
        if inside is None:
            return None
        if event == "line" and next(lines) == moment:  # also at each turn of a loop in one line
            sys.settrace(None)
            threads.remove_participant(thread)  # as the thread does at its end
            ended = True
        return trace

    sys.settrace(trace)
    fork()
    sys.settrace(None)
    over.set()
    return ended

moment = 0
while ends_at(moment):
    moment += 1
print(moment > 5)
"""
    )
    assert ended.stdout == "True\n", ended.stderr
    assert "Traceback" not in ended.stderr  # a `DeprecationWarning` is right: that thread is there


def test_a_deadline_outlives_a_fork_and_its_backstop_too() -> None:
    for hang in (f"time.sleep({LONG})", "re.match(r'(a+)+$', 'a' * 64 + 'b')"):
        ended = run_python(f"{PRELUDE}\nwatchdog.arm(2)\nfork()\nprint(at_fork)\n{hang}\n")
        assert ended.returncode == 1, ended.stderr
        assert "[1]\n" in ended.stdout


def test_a_child_has_a_log_and_deadlines_of_its_own() -> None:
    """At the fork the parent has a deadline, whose timer only one watchdog of a process can use."""
    ended = run_python(
        PRELUDE
        + f"""
def child():
    own = Watchdog(lambda: log.caution("the child is stuck"))
    own.arm(0.2)
    re.match(r'(a+)+$', 'a' * 64 + 'b')  # only the timer can end this

watchdog.arm({LONG})
print(fork(child), flush=True)
log.caution("the parent goes on")
log.flush()
watchdog.close()
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0] == "1"
    assert ended.stdout.endswith("the parent goes on\n")


def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_the_parent_holds() -> None:
    ended = run_python(
        PRELUDE
        + """
held, free = threading.Event(), threading.Event()

def hold():
    with log._writer._lock:
        held.set()
        free.wait()

def child():
    log.start()
    log.caution("the child logs")
    log.flush()
    return 0

threading.Thread(target=hold, daemon=True).start()
held.wait()
print(fork(child))
free.set()
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert "the child logs" in ended.stdout
    assert ended.stdout.endswith("0\n")


def test_a_log_that_blocks_delays_one_fork_for_a_moment_and_loses_no_line() -> None:
    ended = run_python(
        PRELUDE
        + """
blocked, released, lines = threading.Event(), threading.Event(), []

class Stuck(logging.Handler):
    def emit(self, record):
        blocked.set()
        released.wait()
        lines.append(record.getMessage().rpartition(" ")[2])

logging.root.handlers[:] = [Stuck()]
for number in range(3):
    log.caution("%d", number)
blocked.wait()
began = time.monotonic()
for _ in range(20):
    fork()
print(time.monotonic() - began < 8)
released.set()
log.flush()
fork()
log.caution("%d", 3)
log.flush()
print(lines, at_fork[-1])
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "True\n['0', '1', '2', '3'] 1\n"


def test_where_no_thread_is_left_after_a_fork_lines_are_written_and_the_lack_is_known() -> None:
    ended = run_python(
        PRELUDE
        + """
import _thread
log.caution("before")
log.flush()

def refuse(*args):
    raise RuntimeError("can't start new thread")

def take_the_last_threads():
    _thread.start_new_thread = refuse

os.register_at_fork(before=take_the_last_threads)
fork()
log.caution("after")
log.flush()
print(settled(1), watchdog.start(), flush=True)
os._exit(0)
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert [line.rpartition(" ")[2] for line in ended.stdout.splitlines()[:2]] == [
        "before",
        "after",
    ]
    assert ended.stdout.endswith("1 False\n")


def test_threads_that_fork_at_once_leave_all_threads_there() -> None:
    ended = run_python(
        PRELUDE
        + """
def forks():
    for _ in range(20):
        fork()
        log.caution("line")

workers = [threading.Thread(target=forks) for _ in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(settled(4), log.flush())
fork()
print(at_fork[-1])
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("line\n") == 80
    assert ended.stdout.endswith("4 True\n1\n")


# In a server


@pytest.mark.parametrize("path", ["/", "/stop"])
def test_a_server_forks_as_if_its_app_had_no_middleware(tmp_path: Path, path: str) -> None:
    """The interpreter warns by the same count, from Python 3.12 on."""
    seen = []
    for app in ("plain", "graceful"):
        env = {"PYTHONWARNINGS": "always::DeprecationWarning"}
        with uvicorn(tmp_path, app=f"support.forking_app:{app}", env=env) as server:
            response = get(server.port, path)
            assert response.status == 200, server.log
            if path == "/":
                server.signal(signal.SIGTERM)
            server.wait(PATIENCE)
            # With a deadline set the threads are back too early for those interpreters.
            early = COUNTS_LATE and path == "/stop"
            seen.append((response.body, 0 if early else server.count("is multi-threaded")))
    assert seen[0][0].startswith(b"[1, 1, ")
    assert seen[1] == seen[0]


@pytest.mark.parametrize(
    ("program", "threads"),
    [
        pytest.param(("uvicorn",), 2, id="uvicorn"),  # one that answers its parent's pings
        pytest.param(("graceful_asgi", "run"), 1, id="run"),
    ],
)
def test_workers_and_their_control_sockets_fork_without_threads_as_well(
    tmp_path: Path, program: tuple[str, ...], threads: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import support.forks_seen")
    paths = (tmp_path, TESTS, PACKAGE_ROOT)
    env = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "GRACEFUL_CONTROL_DIR": str(tmp_path / "control"),
    }
    workers = ("--workers", "2")
    app = "support.forking_app:graceful"
    with uvicorn(tmp_path, *workers, app=app, env=env, program=program) as server:
        server.wait_for("Application startup complete", count=2)
        response = get(server.port, "/")
        assert set(json.loads(response.body)) == {threads}, response.body
        server.signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
