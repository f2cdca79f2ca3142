"""The hard deadline, in processes of their own: whatever they do, they are gone.

The periods are short; what is asserted about time leaves room for a machine that is busy.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from support.command import run_python

if TYPE_CHECKING:
    import subprocess

PRELUDE = """
import faulthandler, logging, os, queue, re, signal, sys, threading, time
from graceful_asgi._diagnostics.watchdog import Watchdog

def last_words():
    print("last words", file=sys.stderr, flush=True)

watchdog = Watchdog(last_words)
"""
PATIENT = """
from graceful_asgi._diagnostics import watchdog as module
module.FINAL_REPORT_PERIOD = module.FAULTHANDLER_DELAY = 10.0
"""
"""For tests of the last words: on a busy machine they may take longer than the process has."""
LONG = 1000.0
"""Seconds that no process under test may live: far above what `run_python` waits."""


def run(source: str) -> subprocess.CompletedProcess[str]:
    return run_python(PRELUDE + source)


def test_the_process_ends_at_the_deadline_with_1_and_says_its_last_words() -> None:
    ended = run(
        f"""
{PATIENT}
print(time.monotonic(), flush=True)
watchdog.arm(0.3)
print(watchdog.armed, flush=True)
time.sleep({LONG})
"""
    )
    seconds = time.monotonic()
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == ["last words"]
    began, armed = ended.stdout.splitlines()
    assert armed == "True"
    assert seconds - float(began) >= 0.3, "not before its time"


def test_a_process_that_is_disarmed_lives() -> None:
    ended = run(
        """
watchdog.arm(1.5)
watchdog.disarm()
watchdog.disarm()
print(watchdog.armed)
time.sleep(2.5)  # past the deadline, and past the backstop behind it
print("alive")
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "False\nalive\n", "")


def test_a_process_that_ends_by_itself_is_not_kept_and_keeps_its_exit_code() -> None:
    began = time.monotonic()
    ended = run(f"watchdog.arm({LONG})\nsys.exit(7)\n")
    assert (ended.returncode, ended.stderr) == (7, "")
    assert time.monotonic() - began < LONG / 10


@pytest.mark.parametrize("first", [LONG, 1])
def test_the_last_deadline_stands(first: float) -> None:
    """The time that is left can become more (another server), and less (Ctrl+C)."""
    ended = run(
        f"{PATIENT}\nwatchdog.arm({first})\nwatchdog.arm(4)\n"
        f"time.sleep(1.5)\nprint('still there')\ntime.sleep({LONG})\n"
    )
    assert ended.stdout == "still there\n"
    assert ended.returncode == 1
    assert "last words" in ended.stderr


def test_a_disarmed_watchdog_can_be_armed_again() -> None:
    ended = run(
        f"{PATIENT}\nwatchdog.arm({LONG})\nwatchdog.disarm()\nwatchdog.arm(0.2)\ntime.sleep({LONG})\n"
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == ["last words"]


@pytest.mark.parametrize("before", ["", f"watchdog.arm({LONG})"])
def test_expire_ends_the_process_at_once(before: str) -> None:
    ended = run(f"{PATIENT}\n{before}\nwatchdog.expire()\ntime.sleep({LONG})\n")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == ["last words"]


def test_a_signal_handler_may_arm_and_expire_it_whoever_holds_a_lock() -> None:
    """`Thread.start` would wait for a lock of the threading module's."""
    ended = run(
        f"""
{PATIENT}
held, handled = threading.Event(), threading.Event()

def hold():
    with threading._active_limbo_lock:
        held.set()
        handled.wait()

def handle(signum, frame):
    watchdog.arm({LONG}) if signum == signal.SIGUSR1 else watchdog.expire()

signal.signal(signal.SIGUSR1, handle)
signal.signal(signal.SIGUSR2, handle)
threading.Thread(target=hold, daemon=True).start()
held.wait()
signal.raise_signal(signal.SIGUSR1)
handled.set()
signal.raise_signal(signal.SIGUSR2)
time.sleep({LONG})
"""
    )
    assert ended.returncode == 1
    assert "last words" in ended.stderr


@pytest.mark.parametrize(
    "blocked",
    [
        pytest.param(f"time.sleep({LONG})", id="a blocked main thread"),
        pytest.param("threading.Lock().acquire() and threading.Event().wait()", id="a lock"),
        pytest.param("while True: pass", id="a busy main thread"),
        pytest.param(
            "t = threading.Thread(target=threading.Event().wait); t.start(); t.join()",
            id="a thread that never ends",
        ),
        pytest.param("os.close(1); os.close(2); threading.Event().wait()", id="no output"),
        pytest.param(
            "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); threading.Event().wait()",
            id="blocked signals",
        ),
    ],
)
def test_nothing_that_a_process_does_keeps_it_alive(blocked: str) -> None:
    ended = run(f"watchdog.arm(0.2)\n{blocked}\n")
    assert ended.returncode == 1


def test_code_that_never_gives_the_gil_back_is_ended_by_the_backstop() -> None:
    ended = run("watchdog.arm(0.2)\nre.match(r'(a+)+$', 'a' * 64 + 'b')\n")
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "re.match" not in ended.stdout


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("threading.Event().wait()", id="block"),
        pytest.param("raise ValueError('broken')", id="raise"),
        pytest.param("logging.getLogger('graceful_asgi').error('words')", id="log"),
        pytest.param("sys.exit(0)", id="exit"),
    ],
)
def test_last_words_that_fail_or_block_stop_nothing(words: str) -> None:
    ended = run(
        f"""
{"" if "wait()" in words else PATIENT}
def broken():
    {words}

watchdog = Watchdog(broken)
watchdog.arm(0.2)
time.sleep({LONG})
"""
    )
    assert ended.returncode == 1
    if "raise" in words:
        assert "the report at the hard deadline failed" in ended.stderr
        assert "ValueError: broken" in ended.stderr
    if "log" in words:
        assert "words" in ended.stderr


def test_what_is_to_be_done_before_the_end_is_done_and_may_fail() -> None:
    ended = run(
        f"""
{PATIENT}
def before_end():
    os.write(1, b"before the end")
    raise ValueError("broken")

watchdog = Watchdog(last_words, before_end=before_end)
watchdog.arm(0.2)
time.sleep({LONG})
"""
    )
    assert ended.returncode == 1
    assert ended.stdout == "before the end"
    assert ended.stderr.splitlines() == ["last words"]


def test_a_log_handler_that_blocks_for_ever_does_not_stop_the_exit() -> None:
    ended = run(
        f"""
class Blocking(logging.Handler):
    def emit(self, record):
        threading.Event().wait()

    def flush(self):
        threading.Event().wait()

logging.getLogger("graceful_asgi").addHandler(Blocking())
watchdog = Watchdog(lambda: logging.getLogger("graceful_asgi").error("words"))
watchdog.arm(0.2)
time.sleep({LONG})
"""
    )
    assert ended.returncode == 1


def test_last_words_that_block_stop_nothing_where_there_is_no_backstop() -> None:
    ended = run(
        f"""
sys.stderr = sys.__stderr__ = None
watchdog = Watchdog(threading.Event().wait)
watchdog.arm(0.2)
time.sleep({LONG})
"""
    )
    assert ended.returncode == 1


def test_a_log_that_is_written_late_is_flushed() -> None:
    """`os._exit` flushes nothing, and a report in a buffer is none."""
    ended = run(
        f"""
{PATIENT}
import logging.handlers
target = logging.StreamHandler()
logger = logging.getLogger("graceful_asgi")
logger.addHandler(logging.handlers.MemoryHandler(1000, logging.CRITICAL, target))
watchdog = Watchdog(lambda: logger.error("words"))
watchdog.arm(0.2)
time.sleep({LONG})
"""
    )
    assert ended.returncode == 1
    assert "words" in ended.stderr


@pytest.mark.parametrize("stderr", ["None", "open(os.devnull, 'w')", "sys.stdin"])
def test_a_process_without_a_usable_stderr_ends_all_the_same(stderr: str) -> None:
    ended = run(f"sys.stderr = sys.__stderr__ = {stderr}\nwatchdog.arm(0.2)\ntime.sleep({LONG})\n")
    assert ended.returncode == 1


def test_it_ends_while_the_interpreter_waits_for_threads_at_its_exit() -> None:
    ended = run(
        "watchdog.arm(0.3)\nthreading.Thread(target=threading.Event().wait).start()\nsys.exit(0)\n"
    )
    assert ended.returncode == 1


def test_two_watchdogs_do_not_disarm_each_other() -> None:
    """Two servers in one process: the one that lives on must not save the one that hangs."""
    ended = run(
        f"""
other = Watchdog(last_words)
watchdog.arm(0.4)
other.arm({LONG})
other.disarm()
re.match(r'(a+)+$', 'a' * 64 + 'b')  # only the backstop can end this
"""
    )
    assert ended.returncode == 1


NO_THREADS = """
import resource
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (4 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""


RUNNING = """
def running():
    names = [frame.f_code.co_name for frame in sys._current_frames().values()]
    return names.count("_do_jobs")
while running() < 2:
    time.sleep(0.01)
"""
"""A thread takes memory at its first steps, too."""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_threads_that_were_started_in_time_need_none_at_the_deadline() -> None:
    ended = run(
        f"{PATIENT}\nprint(watchdog.start())\n{RUNNING}\n{NO_THREADS}\n"
        f"watchdog.arm(0.3)\ntime.sleep({LONG})\n"
    )
    assert ended.stdout == "True\n"
    assert ended.returncode == 1, ended
    assert "last words" in ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_where_there_is_no_thread_at_all_nothing_raises_and_the_process_lives() -> None:
    ended = run(
        NO_THREADS
        + """
print(watchdog.start())
watchdog.arm(0.2)
print(watchdog.armed, watchdog.unguarded)
time.sleep(1)
watchdog.disarm()
print(watchdog.unguarded)
watchdog.close()
"""
    )
    assert ended.stdout == "False\nTrue True\nFalse\n"
    assert ended.returncode == 0
    assert ended.stderr == ""


def test_a_closed_watchdog_ends_its_threads_and_can_be_started_again() -> None:
    ended = run(
        """
import glob
def threads():
    return len(glob.glob("/proc/self/task/*"))
def settle(count):
    until = time.monotonic() + 5
    while threads() != count and time.monotonic() < until:
        time.sleep(0.01)
    return threads()
before = threads()
watchdog.start()
watchdog.start()
print(settle(before + 2) - before)
watchdog.arm(1000)
watchdog.close()
watchdog.close()
print(settle(before + 0) - before)
watchdog.arm(0.2)
time.sleep(100)
"""
    )
    assert ended.stdout.split() == ["2", "0"]
    assert ended.returncode == 1


def test_the_hard_deadline_leaves_room_for_a_lame_duck_that_is_not_quiet_after_all() -> None:
    """It is armed as the stop comes, when nobody knows how long requests will go on arriving."""
    ended = run_python(
        """
        import asyncio, logging, signal, socket, sys
        import uvicorn
        from graceful_asgi import DrainPolicy, GracefulMiddleware

        logging.basicConfig(level=logging.INFO, stream=sys.stdout)
        logging.root.handlers[0].setFormatter(
            logging.Formatter("%(graceful.event)s %(graceful.phase)s", validate=False)
        )
        logging.root.handlers[0].addFilter(lambda record: hasattr(record, "graceful.phase"))
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                clients = asyncio.ensure_future(be_the_clients())
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            if scope["path"] == "/stuck":
                await asyncio.Event().wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        async def request(path):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(f"GET {path} HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n".encode())
            await reader.read()
            writer.close()

        async def be_the_clients():
            stuck = asyncio.ensure_future(request("/stuck"))
            while not app.drainer.statistics().in_flight:
                await asyncio.sleep(0.01)
            signal.raise_signal(signal.SIGTERM)
            while True:
                await asyncio.sleep(0.05)
                await request("/")

        app = GracefulMiddleware(
            app,
            policy=DrainPolicy(
                lame_duck_period=3,
                quiet_period=0.3,
                grace_period=0.3,
                cancel_period=0.3,
                cleanup_period=1.5,
            ),
        )
        config = uvicorn.Config(app, log_config=None)
        uvicorn.Server(config).run(sockets=[listener])
        """
    )
    assert "drain.phase cancelling" in ended.stdout, (ended.stdout, ended.stderr)
