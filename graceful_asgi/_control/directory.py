"""The directory of control sockets: who may use it, what is in it, how one is added or selected.

A socket is bound under a temporary name, which no list of sockets contains, and renamed once it
listens. A name is never used again. So a socket that refuses a connection belongs to a process that
is gone: everybody may remove it, and cannot remove another one by mistake.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import stat
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .._core.server_context import ServerId
from ..errors import ControlError
from . import CONTROL_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self


BACKLOG: Final = 64

MAX_ADDRESS: Final = 100
"""Bytes: `sun_path` has 108 on Linux, 104 elsewhere, a zero included."""

_NAME: Final = re.compile(r"(\d+)-(\d+)-([0-9a-z]+)-([0-9a-f]{8})\.sock")
_UNFINISHED: Final = ".new-"
_UNFINISHED_PERIOD: Final = 60.0
"""Seconds after which a socket that was not renamed counts as left behind."""


@dataclass(frozen=True, slots=True, order=True)
class SocketName:
    """The name of a socket: the server and the process that it belongs to."""

    server: ServerId
    pid: int
    nonce: str = field(default_factory=lambda: secrets.token_hex(4))

    def __str__(self) -> str:
        return f"{self.server.pid}-{self.pid}-{self.server.token}-{self.nonce}.sock"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the name that *text* is; None for another file."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        server, pid, token, nonce = found.groups()
        return cls(ServerId(int(server), token), int(pid), nonce)


class ControlDirectory:
    """An open directory of control sockets. Close it, or use it as a context manager.

    Args:
        path: where it is.
        source: the variable or the option that gives the path, for errors.
        create: make it where it is missing, and keep it from being cleaned away. For servers, which
            need a directory of their own user. Without it root may look into that of another user.
        follow: True if it may be a symbolic link.

    Raises:
        ControlError: it is not there, not a directory, another user's, or open to others.
    """

    def __init__(
        self, path: str, *, source: str = CONTROL_DIR, create: bool = False, follow: bool = True
    ) -> None:
        self.path = os.path.abspath(path)
        self._source = source
        try:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.path, 0o700)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._fd = os.open(self.path, flags if follow else flags | os.O_NOFOLLOW)
        except OSError as error:
            raise self._error(error.strerror or str(error)) from error
        try:
            self._check(os.fstat(self._fd), foreign=not create and os.geteuid() == 0)
            if create:
                self._keep()
        except BaseException:
            self.close()
            raise

    def _check(self, status: os.stat_result, *, foreign: bool) -> None:
        if status.st_uid != os.geteuid() and not foreign:
            raise self._error(f"it belongs to user {status.st_uid}")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise self._error(f"its mode is {mode:04o}")

    def _keep(self) -> None:
        """Keep systemd-tmpfiles from removing sockets: it respects locks (tmpfiles.d(5)).

        It asks the kernel for sockets in use by the name that they were bound under.
        """
        import fcntl  # not everywhere where this package can be imported

        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _error(self, why: str) -> ControlError:
        return ControlError(
            f"{self._source}={self.path!r} is not allowed: {why}; allowed: a directory of user "
            f"{os.geteuid()} that is closed to group and others (mode 0700)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def names(self) -> list[SocketName]:
        """Return the names of the sockets in it, sorted: by server, then by process.

        Raises:
            ControlError: it cannot be read.
        """
        if self._fd < 0:  # which would list the working directory
            raise self._error("it has been closed")
        try:
            found = map(SocketName.parse, os.listdir(self._fd))
        except OSError as error:
            raise self._error(str(error)) from error
        return sorted(name for name in found if name is not None)

    def address(self, name: object) -> str:
        """Return the address to bind or connect to. A path that is too long goes by the descriptor.

        Raises:
            ControlError: it is too long, and there is no `/proc`.
        """
        path = os.path.join(self.path, str(name))
        if len(os.fsencode(path)) <= MAX_ADDRESS:
            return path
        if not os.path.isdir(f"/proc/self/fd/{self._fd}"):
            raise self._error(f"{path} is longer than the {MAX_ADDRESS} bytes of an address")
        return f"/proc/self/fd/{self._fd}/{name}"

    def listen(self, name: SocketName) -> socket.socket:
        """Return a socket that listens under *name*.

        Raises:
            ControlError: the directory takes none.
        """
        unfinished = f"{_UNFINISHED}{name.nonce}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self.address(unfinished))
            os.chmod(unfinished, 0o600, dir_fd=self._fd)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            os.rename(unfinished, str(name), src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as error:
            listener.close()
            self._unlink(unfinished)
            if isinstance(error, ControlError):
                raise
            raise self._error(f"no socket can be made there ({error})") from error
        return listener

    def remove(self, name: SocketName) -> None:
        """Remove a socket, if it is still there. Does nothing in a directory that is closed."""
        if self._fd >= 0:
            self._unlink(str(name))

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def clean_up(self) -> None:
        """Remove the sockets of processes that are gone and have not removed them."""
        for name in self.names():
            if self._is_stale(str(name)):
                self.remove(name)
        for text in os.listdir(self._fd):
            if text.startswith(_UNFINISHED) and self._is_old(text) and self._is_stale(text):
                self._unlink(text)

    def _is_stale(self, name: str) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # EAGAIN: its queue is full, so its process is alive
            try:
                probe.connect(self.address(name))
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
        return False

    def _is_old(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            return time.time() - status.st_mtime > _UNFINISHED_PERIOD
        return False


def open_private() -> ControlDirectory:
    """Open the user's own runtime directory for control sockets; make it where it is missing.

    It is `$XDG_RUNTIME_DIR/graceful-asgi`, else `graceful-asgi-<uid>` in the directory for
    temporary files. Everybody may write to the latter: a directory that another user has made there
    is refused.

    Raises:
        ControlError: neither can be used.
    """
    faults = []
    for path in _candidates():
        try:
            return ControlDirectory(path, source="runtime directory", create=True, follow=False)
        except ControlError as error:
            faults.append(str(error))
    raise ControlError("; ".join(faults))


def _candidates() -> Iterator[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime):
        yield os.path.join(runtime, "graceful-asgi")
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:  # there is none that can be written to
        return
    yield os.path.join(temporary, f"graceful-asgi-{os.geteuid()}")


def label(server: ServerId, among: Sequence[ServerId]) -> str:
    """Return the name of *server* for a user: its pid, unless another server has the same."""
    same = [other for other in among if other.pid == server.pid]
    return str(server.pid) if len(same) < 2 else str(server)


def servers_of(names: Sequence[SocketName]) -> list[ServerId]:
    """Return the servers that *names* belong to, each once, sorted."""
    return sorted({name.server for name in names})


def select(names: Sequence[SocketName], server: str | None, *, one: bool) -> list[SocketName]:
    """Return those of *names* that belong to *server* (its pid or label); with None all.

    Raises:
        ControlError: there is no process, or there is more than one server and it has to be *one*.
    """
    servers = servers_of(names)
    if not servers:
        raise ControlError("no server has a control socket there")
    labels = ", ".join(label(each, servers) for each in servers)
    if server is not None:
        servers = [each for each in servers if server in (str(each.pid), str(each))]
        if not servers:
            raise ControlError(f"no server {server} has a control socket there; there: {labels}")
    if one and len(servers) > 1:
        which = ", ".join(label(each, servers) for each in servers)
        raise ControlError(f"more than one server is there, say which by --server: {which}")
    return [name for name in names if name.server in servers]
