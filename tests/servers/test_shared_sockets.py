"""Who else serves from a listening socket: never mistaken for nobody."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.polling import PATIENCE

from graceful_asgi._servers.shared_sockets import SharedSockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")

WORKER = """
import os, socket, sys
from graceful_asgi._servers import shared_sockets
fd, pid = map(int, sys.argv[1:])
held = [] if fd < 0 else [socket.socket(fileno=os.dup(fd))]
print("there", flush=True)
for order in sys.stdin:
    if held:
        kept = shared_sockets.SharedSockets(held)
        kept.leave_word()
    else:  # lies: in the name of another process
        word = socket.socket(socket.AF_UNIX)
        word.bind(shared_sockets._name(int(order), pid))
        word.listen()
    print("left word", flush=True)
"""


class Worker:
    """A process that has the listening socket, or has not, and leaves word when it is told to."""

    def __init__(self, listener: socket.socket | None, *, as_pid: int = 0) -> None:
        fds = () if listener is None else (listener.fileno(),)
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(fds[0] if fds else -1), str(as_pid)],
            pass_fds=fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
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

    def leave_word(self, inode: int = 0) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{inode}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "left word\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def seen(listener: socket.socket) -> SharedSockets:
    return SharedSockets([listener], parent=os.getpid())


def test_all_leave_once_each_that_has_the_socket_has_left_word(listener: socket.socket) -> None:
    with Worker(listener) as one, Worker(listener) as other:
        assert not seen(listener).all_leave()
        one.leave_word()
        assert not seen(listener).all_leave()
        other.leave_word()
        assert seen(listener).all_leave()


def test_one_that_has_gone_or_never_had_the_socket_does_not_count(listener: socket.socket) -> None:
    with Worker(listener) as one, Worker(None):
        with Worker(listener):
            one.leave_word()
            assert not seen(listener).all_leave()
        assert seen(listener).all_leave()


def test_a_word_that_another_process_has_left_does_not_count(listener: socket.socket) -> None:
    inode = os.fstat(listener.fileno()).st_ino
    with Worker(listener) as serving, Worker(None, as_pid=serving.pid) as liar:
        liar.leave_word(inode)
        assert not seen(listener).all_leave()


def test_a_parent_that_is_not_to_be_seen_means_that_somebody_serves(
    listener: socket.socket,
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait(PATIENCE)
    assert not SharedSockets([listener], parent=gone.pid).all_leave()
