"""Finds out what the sibling workers do with shared listening sockets. Linux only.

A worker of `uvicorn --workers` or of gunicorn does not know whether it alone has to stop, or all
workers. If a sibling goes on serving, it accepts what waits in the accept queue. If none does, the
last worker that accepts must lose nothing. There are two sources:

* A stopping worker binds an abstract UNIX socket as a marker, and a second one when it accepts no
  more. The kernel shows which process has bound a marker, and for which user.
* For a worker without markers, /proc shows whether it has the sockets, and whether it waits for
  connections: then one of them is registered in an epoll (proc_pid_fdinfo(5)).

If that cannot be found out, the sibling counts as serving: then this worker stops as it would on
plain uvicorn. If it is not decided yet (a sibling is just starting, or stops as well but still
accepts), no connection is lost: this worker goes on accepting until it is decided.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ..event_loop import monotonic
from .gunicorn import shares_sockets_with_siblings_only, took_over_sockets, worker_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from .listener import Others
    from .touchpoints import Server

MOST_SIBLINGS: Final = 128
"""The siblings that can read a marker: each leaves one connection in the marker's queue."""

START_PERIOD: Final = 60.0
"""Seconds from its start in which a child that does not accept may still be a starting worker.
Later it counts as some other child of the parent, which has only inherited the sockets."""

LOOK_PERIOD: Final = 0.05
"""Seconds between two looks at the siblings."""

TURN: Final = 0.005
"""Seconds that one call may look. A sibling with thousands of descriptors takes longer, as does a
parent with hundreds of other children. The next call goes on; the event loop runs in between."""

Marker = Literal["stopping", "closed"]
MARKERS: Final[tuple[Marker, ...]] = ("stopping", "closed")


def may_have_siblings(server: Server) -> bool:
    """Return True if *server* is a worker of a parent which made the sockets itself.

    Only then can every process that has the sockets be found.
    """
    if sys.platform != "linux":
        return False
    if (worker := worker_of(server)) is not None:
        return shares_sockets_with_siblings_only(worker)
    config = server.config
    parent = multiprocessing.parent_process()
    return parent is not None and config.fd is None and config.workers > 1 and not config.reload


class Markers:
    """The markers of this process. Its descriptors are opened here, before a stop needs them."""

    def __init__(self) -> None:
        self._unbound: dict[Marker, socket.socket] = {}
        self._bound: list[socket.socket] = []
        with contextlib.suppress(OSError):  # without markers the siblings read /proc
            for marker in MARKERS:
                self._unbound[marker] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._process = Process(os.getpid())

    def set(self, marker: Marker) -> None:
        """Show the siblings *marker* until this process ends. Idempotent, signal-safe."""
        unbound = self._unbound.pop(marker, None)  # one step: a signal handler may come in between
        if unbound is None:
            return
        try:
            unbound.bind(self._process.name_of(marker))
            unbound.listen(MOST_SIBLINGS)
        except OSError:  # another process has that name: the siblings read /proc
            unbound.close()
        else:
            self._bound.append(unbound)

    def give_back(self) -> None:
        """Close the descriptors of the markers that were not set. Idempotent."""
        while self._unbound:
            self._unbound.popitem()[1].close()

    def close(self) -> None:
        """Remove the markers, in a process that goes on."""
        self.give_back()
        while self._bound:
            self._bound.pop().close()


class SharedSockets:
    """The listening sockets that a closing worker shares with its siblings.

    Args:
        sockets: the listening sockets.
        parent: the pid of the siblings' parent, by default that of this process's parent.
        turn: how many seconds one call of `others` may take.
    """

    def __init__(
        self, sockets: Iterable[socket.socket], *, parent: int | None = None, turn: float = TURN
    ) -> None:
        self._parent = os.getppid() if parent is None else parent
        self._inodes = frozenset(os.fstat(each.fileno()).st_ino for each in sockets)
        self._known: dict[int, Process] = {}
        self._turn = turn
        self._look_at = -1.0
        self._looking: Look | None = None
        """A look that is under way: it is too long for one turn."""
        self._others: Others = "undecided"

    def others(self) -> Others:
        """Return what the siblings do with the sockets now."""
        now = monotonic()
        if self._others == "undecided" and now >= self._look_at:
            if self._looking is None:
                self._looking = self._look()
            try:
                next(self._looking)
                while monotonic() < now + self._turn:
                    next(self._looking)
            except StopIteration as end:
                self._others, self._looking = end.value, None
                self._look_at = now + LOOK_PERIOD
            except OSError:  # /proc does not show the siblings
                self._others, self._looking = "serve", None
        return self._others

    def _look(self) -> Look:
        siblings = self._siblings()
        decided = True
        for pid in siblings:
            answer = yield from self._known.setdefault(pid, Process(pid)).use_of(self._inodes)
            if answer == "serve":
                return answer
            decided = decided and answer == "none"
        # A worker that has started since then is looked at the next time.
        return "none" if decided and self._siblings() <= siblings else "undecided"

    def _siblings(self) -> set[int]:
        return set(_children(self._parent)) - {os.getpid()}


Look: TypeAlias = "Generator[None, None, Others]"
"""A look in small steps, which returns what was found."""


class Process:
    """One worker, seen from another."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: set[Marker] = set()
        self._started = _start_time(pid)

    def name_of(self, marker: Marker) -> bytes:
        """Return the abstract name of *marker*. A later process of the same pid has another."""
        return b"\0graceful_asgi.%s.%d.%d" % (marker.encode(), self._pid, self._started)

    def use_of(self, inodes: frozenset[int]) -> Look:
        """Find out what the process does with the sockets that have these inodes."""
        yield
        if self._has_set("closed"):
            return "none"
        stops = self._has_set("stopping")
        try:
            holds, waits = yield from self._look_at_descriptors(inodes, look_for_epoll=not stops)
            if holds and not (stops or waits) and (yield from self._is_parent(inodes)):
                return "serve"
        except PermissionError:  # it has changed its user, as gunicorn's workers may
            return "undecided" if stops else "serve"
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            return "none"
        if stops:
            return "undecided" if holds else "none"
        if holds and waits:  # both: an epoll keeps the registration of a closed descriptor
            return "serve"
        return "undecided" if holds and self._age() < START_PERIOD else "none"

    def _is_parent(self, inodes: frozenset[int]) -> Generator[None, None, bool]:
        """Find out whether the process is the next gunicorn, which has workers of its own.

        Its workers know nothing of this one, and would never lift the limits of a listener.
        """
        if "gunicorn.arbiter" not in sys.modules:  # a worker of uvicorn's has no such sibling
            return False
        if took_over_sockets(self._pid):
            return True
        # setproctitle writes over the environment of a process.
        for pid in _children(self._pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                holds, _ = yield from Process(pid)._look_at_descriptors(
                    inodes, look_for_epoll=False
                )
                if holds:
                    return True
        return False

    def _has_set(self, marker: Marker) -> bool:
        # Each look leaves a connection in the marker's queue, so a marker that was seen is not
        # looked at again. A marker that is set stays until its process ends.
        if marker not in self._seen and self._is_bound(marker):
            self._seen.add(marker)
        return marker in self._seen

    def _is_bound(self, marker: Marker) -> bool:
        """Return True if the kernel has *marker*, bound by this very process and this user."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)
            try:
                asking.connect(self.name_of(marker))
            except OSError:
                return False
            # `struct ucred` of unix(7): the pid, the user and the group of the process that has
            # called `listen`. Any process may bind such a name.
            size = struct.calcsize("3i")
            pid, uid, _ = struct.unpack(
                "3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            )
            return bool(pid == self._pid and uid == os.geteuid())

    def _look_at_descriptors(
        self, inodes: frozenset[int], *, look_for_epoll: bool
    ) -> Generator[None, None, tuple[bool, bool]]:
        """Find out whether the process has one of the sockets, and whether it accepts."""
        holds, waits = False, not look_for_epoll
        links = {f"socket:[{inode}]" for inode in inodes}
        # In the order of their numbers (fs/proc/fd.c, `proc_readfd_common`). A server has its
        # listener and its epoll before its connections, so they are found soon.
        with os.scandir(f"/proc/{self._pid}/fd") as descriptors:
            for descriptor in descriptors:
                with contextlib.suppress(FileNotFoundError):
                    link = os.readlink(descriptor.path)
                    holds = holds or link in links
                    if link == "anon_inode:[eventpoll]":
                        waits = waits or not inodes.isdisjoint(self._registered(descriptor.name))
                if holds and waits:
                    break
                yield
        return holds, waits

    def _registered(self, epoll: str) -> Iterator[int]:
        """Yield the inodes of what is registered in one of its epolls."""
        with open(f"/proc/{self._pid}/fdinfo/{epoll}", "rb") as file:
            for line in file:
                _, found, inode = line.partition(b" ino:")
                if found:
                    yield int(inode.split()[0], 16)

    def _age(self) -> float:
        ticks = os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._started / ticks


def _children(pid: int) -> Iterator[int]:
    with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
        yield from map(int, file.read().split())


def _start_time(pid: int) -> int:
    """Return when a process started, in ticks since the boot; 0 if that cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The process's name comes second, in parentheses, and may have spaces and parentheses
            # in it. `starttime` is field 22 (proc_pid_stat(5)), so the 20th after the name.
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return 0
