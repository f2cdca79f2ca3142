"""uvicorn's open connections: which of them may be closed when, and how to cut one.

uvicorn closes whatever looks idle the moment it stops. A connection that has just been opened, or
whose next request is already in the kernel, looks idle too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

from .. import log

if TYPE_CHECKING:
    from .touchpoints import Connection, Server, Transport

State = Literal["busy", "new", "idle", "uploading", "streams", "closing"]

PATIENCE: Final[dict[State, float]] = {
    # A client that has connected is about to write; half a request head counts as nothing yet.
    "new": 1.0,
    # A client that gets a complete answer without Connection: close may write the next request
    # at once. Its answer says close, and then the client closes, not we.
    "idle": 0.2,
    # Closed under its upload, a client may not get to read the answer that it has been sent.
    "uploading": 1.0,
    # HTTP/2: from then on new streams are refused, and the connection closes after the last one.
    "streams": 1.0,
    # A peer that does not answer the close would hold the connection: TLS 30 s, a WebSocket 10 s.
    "closing": 1.0,
}
"""Seconds that a connection is left alone in a state before it is closed (or aborted)."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

_LAST_DATA_RECV: Final = 52
"""The offset of `tcpi_last_data_recv` in Linux' `struct tcp_info` (linux/tcp.h): milliseconds."""


class Connections:
    """The open connections of one server, from its listener close on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._since: dict[Connection, tuple[object, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._server.server_state.connections)

    def sweep(self) -> None:
        """Close what has been idle long enough. Call it every 0.1 s or so.

        Connections that appear late (TLS handshakes, upgrades) are met here as well.
        """
        now = asyncio.get_running_loop().time()
        before, self._since = self._since, {}
        for connection in tuple(self._server.server_state.connections):
            state, mark = self._look(connection)
            if state == "busy":
                continue
            known, since = before.get(connection, (None, now))
            if known is not mark:
                since = now
            self._since[connection] = (mark, since)
            if now - since < PATIENCE[state]:
                continue
            if state == "closing":
                connection.transport.abort()
            elif not _has_unread_bytes(connection.transport):
                _close(connection)

    def _look(self, connection: Connection) -> tuple[State, object]:
        """Return the state of *connection*, and what stays the same while it is left alone."""
        transport = connection.transport
        if transport.is_closing():
            # What is still in the buffer is on its way to a slow reader: the grace period's.
            return ("busy" if transport.get_write_buffer_size() else "closing"), transport
        if self._is_websocket(connection):
            # Its handler is the drain's business, until there is only the peer to wait for.
            return ("closing" if _has_sent_close(connection) else "busy"), connection
        cycles: dict[int, Any] | None = getattr(connection, "cycles", None)
        if cycles is not None:
            return ("streams" if cycles else "idle"), connection
        cycle = getattr(connection, "cycle", None)
        if cycle is None:
            return "new", connection
        if not cycle.response_complete:
            return "busy", cycle
        if cycle.more_body:  # answered early; uvicorn does not say when it has thrown the rest away
            silent = _silent_for(transport) >= PATIENCE["uploading"]
            return ("uploading" if silent else "busy"), cycle
        # uvicorn stops the keep-alive timer as bytes come in: a request head is on its way.
        waiting = getattr(connection, "timeout_keep_alive_task", connection) is not None
        return ("idle" if waiting else "new"), cycle

    def cut_answers(self) -> int:
        """Reset what has a part of its answer out; return how many were only being flushed."""
        flushing = 0
        for connection in tuple(self._server.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is None or not cycle.response_started:
                continue
            elif not cycle.response_complete:
                _reset(connection.transport)
            elif connection.transport.get_write_buffer_size():
                flushing += 1
                _reset(connection.transport)
        return flushing

    def cut(self) -> None:
        """Reset every connection that is left; a WebSocket still gets its 1012."""
        for connection in tuple(self._server.server_state.connections):
            if self._is_websocket(connection):
                _close(connection)
            else:
                _reset(connection.transport)

    def _is_websocket(self, connection: Connection) -> bool:
        websocket_class = self._server.config.ws_protocol_class
        return websocket_class is not None and isinstance(connection, websocket_class)


def _has_sent_close(websocket: Any) -> bool:
    """Say whether a WebSocket's close frame is out. websockets' legacy protocol has a state."""
    state = getattr(websocket, "state", None)
    return bool(getattr(websocket, "close_sent", False)) or getattr(state, "name", "") == "CLOSING"


def _close(connection: Connection) -> None:
    # One connection that cannot close must not stop the others: uvicorn 0.54 raises here for a
    # WebSocket whose peer has sent its close and reads nothing.
    try:
        connection.shutdown()
    except Exception as exc:
        log.caution("closing a connection failed, aborting it: %r", exc)
        connection.transport.abort()


def _reset(transport: Transport) -> None:
    """Abort with a reset: an end of file would make a body without a length look complete."""
    with contextlib.suppress(OSError), _socket_of(transport) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def _has_unread_bytes(transport: Transport) -> bool:
    """Say whether the kernel holds bytes that the loop has not read: the next request."""
    try:
        with _socket_of(transport) as sock:
            return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:  # nothing to read (the socket does not block), or nothing to read from
        return False


def _silent_for(transport: Transport) -> float:
    """Seconds since bytes came in last; infinite where the system does not say."""
    if sys.platform != "linux":
        return math.inf
    try:
        with _socket_of(transport) as sock:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECV + 4)
    except OSError:  # a UNIX socket
        return math.inf
    (milliseconds,) = struct.unpack_from("I", info, _LAST_DATA_RECV)
    return float(milliseconds) / 1000


def _socket_of(transport: Transport) -> socket.socket:
    """Return a duplicate: asyncio and uvloop hand out stand-ins that can do too little."""
    stand_in = transport.get_extra_info("socket")
    return socket.fromfd(stand_in.fileno(), stand_in.family, stand_in.type)
