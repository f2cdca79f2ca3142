"""The directory of control sockets: whose it is, what is in it, and how a socket comes and goes.

A socket is bound under a name that nobody looks at, and gets its own once it listens. That name is
never used again. So a socket that refuses a connection is one whose process has gone: whoever sees
that may remove it, and takes nobody else's away.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .._core.server_context import ServerId
from ..errors import ControlError

if TYPE_CHECKING:
    from typing_extensions import Self

VARIABLE: Final = "GRACEFUL_CONTROL_DIR"

BACKLOG: Final = 64

MAX_ADDRESS: Final = 100
"""Bytes: `sun_path` has 108 on Linux, 104 elsewhere, a zero included."""

_NAME: Final = re.compile(r"(\d+)-(\d+)-([0-9a-z]+)-([0-9a-f]{8})\.sock")
_UNFINISHED: Final = ".new-"
_UNFINISHED_PERIOD: Final = 60.0
"""Seconds after which a socket that has not got its name belongs to nobody any more."""


@dataclass(frozen=True, slots=True, order=True)
class SocketName:
    """The name of a socket: which server's, which process's."""

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
        source: what to call it in an error: the variable or option that says so.
        create: make it where it is missing, and keep it from being cleaned away. For servers: it
            has to be their own. Without it root may look into the one of another user.
        follow: whether it may be a symbolic link.

    Raises:
        ControlError: it is not there, not a directory, another user's, or open to others.
    """

    def __init__(
        self, path: str, *, source: str = VARIABLE, create: bool = False, follow: bool = True
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
        """Have systemd-tmpfiles pass it by (tmpfiles.d(5)): it knows no socket that was renamed."""
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
        """Return what to bind or connect to. A path may be longer than an address: then by the fd.

        Raises:
            ControlError: it is longer, and there is no `/proc`.
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
        """Remove the sockets of processes that have gone without."""
        for name in self.names():
            if self._is_stale(str(name)):
                self.remove(name)
        for text in os.listdir(self._fd):
            if text.startswith(_UNFINISHED) and self._is_old(text) and self._is_stale(text):
                self._unlink(text)

    def _is_stale(self, name: str) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a socket whose queue is full is one that lives
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
