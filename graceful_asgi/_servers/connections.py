"""uvicorn's open connections: which of them may be closed when, and how to cut one.

uvicorn closes whatever looks idle the moment it stops. A connection that has just been opened, or
whose next request is already in the kernel or on its way, looks idle too.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final, Literal

from .. import log
from ..event_loop import LOOKS, in_slices
from .tcp import has_unread_bytes, idle_for, reset_on_close, round_trip_time, silent_for
from .unsent import unsent_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .touchpoints import Connection, Http2Connection, Server

State = Literal["busy", "new", "idle", "uploading", "streams", "closing"]

PATIENCE: Final[dict[State, float]] = {
    # A client that has connected is about to write; half a request head counts as nothing yet.
    "new": 1.0,
    # A client that gets a complete answer without Connection: close may write the next request
    # at once. Its answer says close, and then the client closes, not we.
    "idle": 0.2,
    # A client whose connection is closed during its upload may lose the answer it has been sent.
    "uploading": 1.0,
    # HTTP/2 that is in use: from then on it is closed as soon as it has no open stream.
    "streams": 1.0,
    # A peer that does not answer the close would hold the connection: TLS 30 s, a WebSocket 10 s.
    "closing": 1.0,
}
"""Seconds that a connection is left alone in a state before it is closed (or aborted). Some of its
own round trips are added (`ROUND_TRIPS`)."""

ROUND_TRIPS: Final = 4
"""The round trips that are added. If both segments of a request were dropped, the kernel sends the
second again after two round trips, and the first after four (RFC 8985, tail loss probe)."""

PAUSE: Final = 0.5
"""Seconds from an answer to its client's next request, at the most, if it sends one after another.
Without a lame duck the last answer has not said `Connection: close`: the next may be on its way.
They are counted from the answer, not from its request, which a busy server may answer late."""

CLOSES: Final = 100
"""The connections to look at in one turn of the loop. To close one takes some 0.2 ms, most
of it in the turn after, so a turn takes some 20 ms where all of them are closed."""

SWEEP_COST: Final = 0.00005
"""Seconds between two sweeps for each connection above 500: a look at it takes some 3 us. Ten
thousand are looked at twice a second, and leave the loop to the work in flight."""

LONGEST_GAP: Final = 0.2
"""Seconds between two sweeps that count as patience, at the most. They are 0.1 s apart. If more has
passed, the loop was blocked, or the process or its machine stood still. A request that came in that
time may not be in the kernel yet, and a client on the same machine has stood still as well."""

MEASURED: Final = 1000
"""Connections that are looked at for the longest round trip. Each look is a system call."""

GO_AWAY_PERIOD: Final = 2.0
"""Seconds before the grace period ends at which HTTP/2 clients that always have a stream open are
told to open new ones elsewhere."""

HIGHEST_STREAM: Final = 2**31 - 1
"""The last stream of a GOAWAY that ends none: every open stream is served (RFC 9113, 6.8)."""


class Connections:
    """The open connections of one server, from its listener close on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._since: dict[Connection, tuple[object, float]] = {}
        self._in_use_since: dict[Connection, float] = {}
        """The time of the sweep that first found an HTTP/2 connection."""
        self._told_to_go_away: set[Connection] = set()
        self._aborted: set[Connection] = set()
        self._time = 0.0
        """Seconds that the sweeps have listened for, as `LONGEST_GAP` has it."""
        self._swept_at = 0.0
        self._pause = 0.0

    def __bool__(self) -> bool:
        # asyncio cannot abort a TLS connection that was closed twice (`_socket_of` in `tcp`). It
        # waits for the peer's answer for 30 s.
        return not self._server.server_state.connections <= self._aborted

    def longest_round_trip(self) -> float:
        """Return the longest round trip time of a connection, in seconds; 0 if none is known."""
        some = itertools.islice(self._server.server_state.connections, MEASURED)
        return max((round_trip_time(connection.transport) for connection in some), default=0.0)

    async def sweep(self, time_left: float) -> None:
        """Close what has been idle long enough. Call it every 0.1 s or so.

        Connections that appear late (TLS handshakes, upgrades) are closed here as well.
        *time_left* is the number of seconds until the grace period ends.
        """
        gap = asyncio.get_running_loop().time() - self._swept_at
        if gap < self._pause:
            return
        self._swept_at += gap
        self._time += min(gap, self._pause + LONGEST_GAP)
        now = self._time
        before, self._since = self._since, {}
        connections = tuple(self._server.server_state.connections)
        self._pause = max(0, len(connections) - LOOKS) * SWEEP_COST
        async for connection in in_slices(connections, CLOSES):
            state, mark = self._look(connection)
            if state == "busy":
                continue
            known, since = before.get(connection, (None, now))
            if known is not mark:
                since = now
            self._since[connection] = (mark, since)
            if now - since >= PATIENCE[state]:
                round_trips = ROUND_TRIPS * round_trip_time(connection.transport)
                if now - since >= PATIENCE[state] + round_trips and not (
                    state == "idle" and idle_for(connection.transport) < PAUSE + round_trips
                ):
                    self._close(connection, state)
            if state != "closing" and hasattr(connection, "cycles"):
                self._end_streams(connection, now, time_left)

    def _close(self, connection: Connection, state: State) -> None:
        if state == "closing":
            self._aborted.add(connection)
            connection.transport.abort()
        elif state != "streams" and not has_unread_bytes(connection.transport):
            _shut_down(connection)

    def _look(self, connection: Connection) -> tuple[State, object]:
        """Return the state of *connection*, and what stays the same while it is left alone."""
        transport = connection.transport
        if transport.is_closing():
            # A slow reader has the rest of the grace period to take what is still in the buffer.
            return ("busy" if unsent_bytes(transport) else "closing"), transport
        if self._is_websocket(connection):
            # `CloseSchedule` closes the session. Here only a peer that does not answer is closed. A
            # close behind messages that the peer has not taken yet cannot be answered.
            is_sent = _has_sent_close(connection) and not unsent_bytes(transport)
            return ("closing" if is_sent else "busy"), connection
        if hasattr(connection, "cycles"):
            return _look_at_streams(connection)
        cycle = getattr(connection, "cycle", None)
        if cycle is None:
            return "new", connection
        if not cycle.response_complete:
            return "busy", cycle
        if cycle.more_body:  # answered early; uvicorn gives no sign when the whole body has arrived
            silent = silent_for(transport) >= PATIENCE["uploading"]
            return ("uploading" if silent else "busy"), cycle
        # uvicorn stops the keep-alive timer as bytes come in: a request head is on its way.
        waiting = getattr(connection, "timeout_keep_alive_task", connection) is not None
        return ("idle" if waiting else "new"), cycle

    def _end_streams(self, connection: Any, now: float, time_left: float) -> None:
        """Close an HTTP/2 connection that is in use, or have its client leave it.

        In use is also one that has no stream in the instant of a sweep. If its client pauses for
        some ms after each answer, most sweeps find it so.
        """
        since = self._in_use_since.setdefault(connection, now)
        round_trips = ROUND_TRIPS * round_trip_time(connection.transport)
        if now - since >= PATIENCE["streams"] + round_trips:
            _close_when_idle(connection)
        if time_left <= GO_AWAY_PERIOD and not connection.transport.is_closing():
            self._tell_to_go_away(connection)

    def _tell_to_go_away(self, connection: Any) -> None:
        """Send a GOAWAY that ends no stream: every stream that is open, or on its way, is served.

        It is sent as late as possible. By RFC 9113 a client goes on with its open streams, but
        `h2`, and so httpx, fails them all.
        """
        if connection not in self._told_to_go_away:
            self._told_to_go_away.add(connection)
            connection.conn.close(0, HIGHEST_STREAM)  # NO_ERROR
            connection.flush()

    def cut_answers(self) -> int:
        """Reset each response that is sent in part; return how many were only being flushed."""
        flushing = 0
        for connection in self._answered_in_part():
            cycle = getattr(connection, "cycle", None)
            flushing += cycle is None or cycle.response_complete
            _reset(connection)
        return flushing

    def reset_at_exit(self) -> None:
        """Set each response that is sent in part to be reset when the process ends.

        Safe from any thread: the loop may be blocked.
        """
        for connection in self._answered_in_part():
            reset_on_close(connection.transport)

    def _answered_in_part(self) -> Iterator[Any]:
        answered: dict[object, Any] | None = None
        for connection in tuple(self._server.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if getattr(connection, "pipeline", None):
                # With httptools `cycle` is the last request that waits in the pipeline. To look for
                # the one that is answered at each connection would be quadratic.
                answered = self._answered_cycles() if answered is None else answered
                cycle = answered.get(connection.transport)
            if self._is_answered_in_part(connection, cycle):
                yield connection

    def _is_answered_in_part(self, connection: Any, cycle: Any) -> bool:
        if self._is_websocket(connection):  # an open one is in flight, and gets its 1012
            ends = connection.transport.is_closing() or _has_sent_close(connection)
            return ends and bool(unsent_bytes(connection.transport))
        if hasattr(connection, "cycles"):
            # Each open stream is in flight. Its app is cancelled, and uvicorn resets the stream.
            waits = not _is_idle(connection) or unsent_bytes(connection.transport)
            return not connection.cycles and bool(waits)
        return (
            cycle is not None
            and cycle.response_started
            and bool(not cycle.response_complete or unsent_bytes(connection.transport))
        )

    def _answered_cycles(self) -> dict[object, Any]:
        """Return the HTTP/1 requests that are answered now, by the transports of their clients."""
        cycles = [request_of(task) for task in tuple(self._server.server_state.tasks)]
        return {
            cycle.transport: cycle
            for cycle in cycles
            if not getattr(cycle, "response_complete", True) and hasattr(cycle, "transport")
        }

    def cut(self) -> None:
        """Reset every connection that is left; a WebSocket still gets its 1012."""
        for connection in tuple(self._server.server_state.connections):
            if self._is_websocket(connection):
                if not connection.transport.is_closing():
                    _shut_down(connection)
            elif not _is_flushed(connection):
                _reset(connection)

    def _is_websocket(self, connection: Connection) -> bool:
        websocket_class = self._server.config.ws_protocol_class
        return websocket_class is not None and isinstance(connection, websocket_class)


def _look_at_streams(connection: Any) -> tuple[State, object]:
    """Return the same as `Connections._look`, for HTTP/2."""
    if not _is_idle(connection):
        return "streams", connection
    # uvicorn sets this timer anew whenever the last open stream has ended.
    timer = connection.timeout_keep_alive_task
    return ("new", connection) if timer is None else ("idle", timer)


def _is_idle(connection: Http2Connection) -> bool:
    """Return True if no stream is open, and no answer waits for its client to read it."""
    has_pending_send = getattr(connection.conn, "has_pending_send", None)  # not in every zttp
    return not connection.cycles and not (has_pending_send and has_pending_send())


def _close_when_idle(connection: Any) -> None:
    """Close an HTTP/2 connection in the first instant in which it has no stream. Idempotent.

    A look every 0.1 s may never find that instant. uvicorn's own `shutdown()` would find it, but
    from then on answers each new stream with 503 until it has come. A request that the kernel has
    already counts as a stream: a close would answer it with a reset.
    """
    if "on_stream_closed" not in vars(connection):
        uvicorns = connection.on_stream_closed

        def on_stream_closed() -> None:
            uvicorns()
            _close_if_idle(connection)

        connection.on_stream_closed = on_stream_closed
    _close_if_idle(connection)


def _close_if_idle(connection: Http2Connection) -> None:
    if _is_idle(connection) and not has_unread_bytes(connection.transport):
        _shut_down(connection)


def close_after_answer(receive: object) -> None:
    """Tell uvicorn to close the connection after the answer to what *receive* is about.

    An EventSource connects again at once when its stream has ended. On the same connection it would
    come back to the server that drains. Does nothing for a *receive* that is not uvicorn's own, and
    for HTTP/2, whose connections have other streams. (Starlette puts a `send` of its own between.)
    """
    cycle: Any = getattr(receive, "__self__", None)
    if getattr(cycle, "keep_alive", None) is True:
        cycle.keep_alive = False


def _is_flushed(connection: Connection) -> bool:
    """Return True for a connection that closes by itself and has its whole answer in the kernel.

    A reset would discard that answer, for example the 503 that was just sent in the app's place.
    """
    cycle, transport = getattr(connection, "cycle", None), connection.transport
    is_answered = cycle is not None and cycle.response_complete
    return is_answered and transport.is_closing() and not unsent_bytes(transport)


def _has_sent_close(websocket: Any) -> bool:
    """Return True once a WebSocket's close frame is out. The legacy protocol has a state."""
    state = getattr(websocket, "state", None)
    return bool(getattr(websocket, "close_sent", False)) or getattr(state, "name", "") == "CLOSING"


def _shut_down(connection: Connection) -> None:
    # One connection that cannot close must not stop the others: uvicorn 0.54 raises here for a
    # WebSocket whose peer has sent its close and reads nothing.
    try:
        connection.shutdown()
    except Exception as exc:
        log.caution("closing a connection failed, aborting it: %r", exc)
        connection.transport.abort()


def _reset(connection: Connection) -> None:
    reset_on_close(connection.transport)
    connection.transport.abort()


def request_of(task: asyncio.Task[None]) -> Any:
    """Return the object whose `run_asgi` a task of the server runs, or None."""
    # The coroutine is `RequestResponseCycle.run_asgi`, or that of a WebSocket's protocol. It has no
    # frame once it is done.
    frame = getattr(task.get_coro(), "cr_frame", None)
    return None if frame is None else frame.f_locals.get("self")
