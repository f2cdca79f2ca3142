"""An HTTP/1 client on a raw socket: tests see what arrives byte by byte, cuts included."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.polling import PATIENCE

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self


class CutError(Exception):
    """An answer began, or was awaited, and did not reach its end."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class Client:
    """One blocking connection, opened at once. Use as a context manager."""

    def __init__(
        self,
        address: int | str,
        *,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.connect(address if isinstance(address, str) else ("127.0.0.1", address))
            self.socket = (
                sock if tls is None else tls.wrap_socket(sock, server_hostname="localhost")
            )
        except BaseException:
            sock.close()
            raise
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(
        self, path: str, *, method: str = "GET", version: str = "1.1", body: bytes | None = None
    ) -> None:
        """Write a request; its body too, if it has one."""
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        head = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n{length}\r\n"
        self.send(head.encode() + (body or b""))

    def response(self) -> Response:
        """Read a whole answer.

        Raises:
            CutError: it did not come to its end; also a reset of a body without a length.
        """
        try:
            return self._response()
        except ConnectionError as error:
            raise CutError(repr(error)) from error

    def get(self, path: str, *, version: str = "1.1") -> Response:
        self.request(path, version=version)
        return self.response()

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the status line and the headers."""
        status = self._line()
        headers = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(status.split()[1]), headers

    def _response(self) -> Response:
        status, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while chunk := self.chunk():
                body += chunk
        elif "content-length" in headers:
            body = self.read(int(headers["content-length"]))
        else:
            body = self._file.read()
        return Response(status, headers, body)

    def chunk(self) -> bytes:
        """Read the next chunk of a body; return nothing for the last one."""
        data = self.read(int(self._line(), 16))
        self.read(2)
        return data

    def _line(self) -> str:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise CutError(f"end of stream after {line!r}")
        return line.strip().decode()

    def read(self, size: int) -> bytes:
        """Read so many bytes."""
        data = self._file.read(size)
        if len(data) < size:
            raise CutError(f"{len(data)} of {size} bytes")
        return data

    def ends(self) -> bool:
        """Wait for the peer's end: True for an orderly one, False for a reset."""
        try:
            rest = self._file.read()
        except ConnectionError:
            return False
        if rest:
            raise AssertionError(f"not the end: {rest[:200]!r}")
        return True

    def is_open(self) -> bool:
        """Return whether the peer has neither closed nor sent anything."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        finally:
            self.socket.settimeout(PATIENCE)
        return False

    def reset(self) -> None:
        """Close with a reset in place of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def get(address: int | str, path: str, *, version: str = "1.1") -> Response:
    """Get *path* on a connection of its own."""
    with Client(address) as client:
        return client.get(path, version=version)


def is_refused(port: int) -> bool:
    """Return whether a connect is refused now."""
    try:
        Client(port).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # not yet, but at this very instant
    return False


# Beside a server that runs in the test's own loop, a client must not block


async def open_request(
    port: int, path: str = "/"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and write a request to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return reader, writer


async def get_in_loop(port: int, path: str = "/") -> Response:
    """Get *path* on a connection of its own, from the loop that the server runs in."""
    return await asyncio.to_thread(get, port, path)
