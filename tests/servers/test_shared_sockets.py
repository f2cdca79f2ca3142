"""Sockets that workers share: a worker that serves, or will serve, is never overlooked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.need import need_program
from support.network import WITHOUT_CAPABILITIES
from support.polling import PATIENCE, wait_until

from graceful_asgi._servers import shared_sockets as module
from graceful_asgi._servers.shared_sockets import Markers, Process, SharedSockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")

WORKER = """
import os, select, signal, socket, sys
from graceful_asgi._servers.shared_sockets import Markers, Process
fd = int(sys.argv[1])
held = [] if fd < 0 else [socket.socket(fileno=os.dup(fd))]
if fd >= 0:
    os.close(fd)
markers, epoll = Markers(), select.epoll()
print("there", flush=True)
for order in sys.stdin:
    verb, *arguments = order.split()
    if verb == "accept":
        epoll.register(held[0], select.EPOLLIN)
    elif verb == "close":
        held.pop().close()
    elif verb == "open":
        held += [os.open(os.devnull, os.O_RDONLY) for _ in range(int(arguments[0]))]
    elif verb == "set":
        markers.set(arguments[0])
    elif verb == "forge":
        forged = socket.socket(socket.AF_UNIX)
        forged.bind(Process(int(arguments[1])).name_of(arguments[0]))
        forged.listen()
    elif verb == "fork" and os.fork() == 0:
        os.setpgid(0, 0), sys.stdin.close(), os.close(1)
        signal.pause()
    elif verb == "become":
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
    print("done", flush=True)
"""


class Worker:
    """A process that has the listening socket, or has not, and does what it is told."""

    def __init__(self, listener: socket.socket | None, **env: str) -> None:
        fds = () if listener is None else (listener.fileno(),)
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(fds[0] if fds else -1)],
            pass_fds=fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "there\n"

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)

    def does(self, order: str) -> Self:
        """Send it *order*, and wait until it is carried out."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{order}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        return self


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def seen(listener: socket.socket) -> str:
    return SharedSockets([listener], parent=os.getpid(), turn=60).others()


def test_a_sibling_that_waits_for_connections_serves(listener: socket.socket) -> None:
    with Worker(listener) as one, Worker(listener):
        assert seen(listener) == "undecided", "both have just been started"
        one.does("accept")
        assert seen(listener) == "serve"


def test_one_that_stops_is_waited_for_until_it_accepts_no_more(listener: socket.socket) -> None:
    with Worker(listener) as one:
        one.does("accept").does("set stopping")
        assert seen(listener) == "undecided"
        one.does("set closed")
        assert seen(listener) == "none"


def test_one_that_closes_the_socket_without_a_marker_has_it_no_more(
    listener: socket.socket,
) -> None:
    """Somebody else may have the name of its marker."""
    with Worker(listener) as one, Worker(None) as squatter:
        squatter.does(f"forge closed {one.pid}")
        one.does("accept").does("set closed")
        assert seen(listener) == "serve"
        one.does("close")
        assert seen(listener) == "none"


def test_one_that_has_gone_or_never_had_the_socket_does_not_count(listener: socket.socket) -> None:
    with Worker(None):
        assert seen(listener) == "none"
        with Worker(listener) as gone:
            gone.does("accept")
            assert seen(listener) == "serve"
        assert seen(listener) == "none"


def test_a_child_of_the_parent_that_never_accepts_is_no_worker_that_starts(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Worker(listener):
        monkeypatch.setattr(module, "START_PERIOD", 0.0)
        assert seen(listener) == "none"


@pytest.mark.parametrize("age", [0.0, 60.0])
def test_the_parent_of_the_next_gunicorn_serves_by_its_workers(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    """It accepts nothing itself. Limits that are set on the socket would cut its workers off."""
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", sys)
    monkeypatch.setattr(module, "START_PERIOD", 60.0 - age)
    with Worker(listener, GUNICORN_FD=str(listener.fileno())):
        assert seen(listener) == "serve"


def test_a_parent_whose_environment_is_written_over_is_known_by_its_workers(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_PERIOD", 0.0)
    # Another test of this process may have imported it.
    monkeypatch.delitem(sys.modules, "gunicorn.arbiter", raising=False)
    with Worker(listener) as parent:
        parent.does("fork")
        assert seen(listener) == "none", "a worker of uvicorn's, with a child"
        monkeypatch.setitem(sys.modules, "gunicorn.arbiter", sys)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        (child,) = map(int, children.read_text().split())
        try:
            assert seen(listener) == "serve"
        finally:
            os.kill(child, signal.SIGKILL)


def test_an_answer_is_looked_for_until_it_is_decided(listener: socket.socket) -> None:
    with Worker(listener) as one:
        shared = SharedSockets([listener], parent=os.getpid(), turn=60)
        assert shared.others() == "undecided"
        one.does("accept")
        wait_until(lambda: shared.others() == "serve", "the worker that has started")
        one.does("set closed")
        assert shared.others() == "serve", "who has been told that somebody serves has left"


def calls_until_decided(shared: SharedSockets) -> tuple[int, str]:
    calls = 1
    while (others := shared.others()) == "undecided":
        calls += 1
    return calls, others


def test_a_long_look_goes_on_at_the_next_call(listener: socket.socket) -> None:
    """The event loop must not wait for a sibling with thousands of descriptors."""
    with Worker(None) as child:
        child.does("open 500")
        shared = SharedSockets([listener], parent=os.getpid(), turn=0)
        calls, others = calls_until_decided(shared)
        assert others == "none"
        assert calls > 500, "one call looks at one descriptor"


def test_a_sibling_that_serves_is_found_before_its_connections_are_looked_at(
    listener: socket.socket,
) -> None:
    with Worker(listener) as serving:
        serving.does("accept").does("open 500")
        shared = SharedSockets([listener], parent=os.getpid(), turn=0)
        calls, others = calls_until_decided(shared)
        assert others == "serve"
        assert calls < 100


def test_a_worker_that_starts_during_a_long_look_is_looked_at(listener: socket.socket) -> None:
    """It lifts the limits of a worker that stops. They must not be set after that."""
    with Worker(None) as child:
        child.does("open 500")
        shared = SharedSockets([listener], parent=os.getpid(), turn=0)
        assert shared.others() == "undecided"
        with Worker(listener) as starting:
            starting.does("accept")
            assert calls_until_decided(shared)[1] == "serve"


@pytest.mark.parametrize("marker", ["stopping", "closed"])
def test_a_marker_that_another_process_has_bound_does_not_count(
    listener: socket.socket, marker: str
) -> None:
    with Worker(listener) as serving, Worker(None) as liar:
        liar.does(f"forge {marker} {serving.pid}")
        serving.does("accept")
        assert seen(listener) == "serve"


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")
def test_a_marker_of_another_user_does_not_count(listener: socket.socket) -> None:
    """Not even with the right pid, which the system gives to another process one day."""
    with Worker(listener) as one:
        one.does("accept").does("become").does("set closed")
        assert seen(listener) == "serve"


def test_the_pid_of_a_process_that_has_gone_brings_no_marker_along() -> None:
    now, before = Process(os.getpid()), Process(os.getpid())
    before._started -= 1
    assert now.name_of("closed") != before.name_of("closed")


def test_a_parent_that_is_not_to_be_seen_means_that_somebody_serves(
    listener: socket.socket,
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait(PATIENCE)
    assert SharedSockets([listener], parent=gone.pid).others() == "serve"


SIBLING_OF_ANOTHER_USER = """
import os, socket, subprocess, sys, time
from graceful_asgi._servers.shared_sockets import SharedSockets, Markers
listener = socket.create_server(("127.0.0.1", 0))
orders, answers = os.pipe(), os.pipe()
sibling = os.fork()
os.setgroups([]), os.setgid(65534), os.setuid(65534)  # as gunicorn's workers do
if sibling == 0:
    os.close(orders[1])
    markers = Markers()
    while order := os.read(orders[0], 1):
        markers.set({b"s": "stopping", b"c": "closed"}[order])
        os.write(answers[1], b".")
    os._exit(0)
print(SharedSockets([listener], parent=os.getpid(), turn=60).others())
for order in b"sc":
    os.write(orders[1], bytes([order]))
    os.read(answers[0], 1)
    print(SharedSockets([listener], parent=os.getpid(), turn=60).others())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")
def test_the_markers_are_enough_where_proc_tells_nothing() -> None:
    """The kernel lets nobody look into a process that has changed its user."""
    ran = subprocess.run(
        [sys.executable, "-c", SIBLING_OF_ANOTHER_USER],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert ran.stdout.split() == ["serve", "undecided", "none"]


def test_a_marker_is_set_in_a_signal_handler_and_only_once() -> None:
    markers = Markers()
    signal.signal(signal.SIGUSR1, lambda number, frame: markers.set("stopping"))
    try:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        assert Process(os.getpid())._has_set("stopping")
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        markers.close()
    assert not Process(os.getpid())._has_set("stopping")


def test_no_privilege_is_needed(listener: socket.socket) -> None:
    need_program("setpriv")
    if os.geteuid() != 0:
        pytest.skip("has none to give up")
    program = (
        "import socket, sys; from graceful_asgi._servers.shared_sockets import SharedSockets; "
        "print(SharedSockets([socket.socket(fileno=int(sys.argv[1]))], turn=60).others())"
    )
    with Worker(listener) as one:
        one.does("accept")
        ran = subprocess.run(
            [*WITHOUT_CAPABILITIES, sys.executable, "-c", program, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
    assert ran.stdout == "serve\n"
