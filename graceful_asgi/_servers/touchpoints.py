"""Lists all names of uvicorn that this package touches. Nothing here acts.

Each name has a test that fails when an installed uvicorn has moved it (`tests/servers`). A server
that lacks one of the methods is left alone: passive mode, never a crash. The names are the same
from uvicorn 0.22 to 0.54; `_captured_signals` exists since 0.29.
"""

from __future__ import annotations

import inspect
import socket
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Awaitable, Callable
    from types import FrameType


class Transport(Protocol):
    """The transport of a protocol object: asyncio's or uvloop's."""

    def is_closing(self) -> bool: ...
    def abort(self) -> None: ...
    def get_extra_info(self, name: str) -> Any: ...
    def get_write_buffer_size(self) -> int: ...


class Cycle(Protocol):
    """A request and its response, as uvicorn's HTTP protocols keep it."""

    response_started: bool
    response_complete: bool
    more_body: bool


class Connection(Protocol):
    """A protocol object in `server_state.connections`. HTTP/1 has `cycle`, HTTP/2 `cycles`.

    `connection_lost` is wrapped on the instance."""

    transport: Transport

    def shutdown(self) -> None: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...


class Http2Codec(Protocol):
    """zttp's `H2Connection`: frames in and out."""

    def has_pending_send(self) -> bool:
        """Return True while an answer waits for its client to read more."""

    def close(self, error_code: int, last_stream_id: int, /) -> None:
        """Queue a GOAWAY. Streams that are open, and new ones, work on."""


class Http2Connection(Connection, Protocol):
    """A `Connection` of HTTP/2. `on_stream_closed` is wrapped on the instance."""

    conn: Http2Codec
    cycles: dict[int, Cycle]
    timeout_keep_alive_task: asyncio.TimerHandle | None
    on_stream_closed: Callable[[], None]

    def flush(self) -> None:
        """Write out what `conn` has queued."""


class ServerState(Protocol):
    """The state that a server shares with its connections. This package never changes the sets:
    uvicorn removes what it added. For uvicorn's last step, empty sets replace them."""

    connections: set[Connection]
    tasks: set[asyncio.Task[None]]


class Lifespan(Protocol):
    """`config.lifespan_class`: on or off."""

    state: dict[str, Any]
    logger: logging.Logger
    """Only where the lifespan is on."""
    shutdown: Callable[[], Awaitable[None]]


class Config(Protocol):
    """The configuration of a server. Only `uds` is written, at the end of `uvicorn.run()`."""

    http_protocol_class: Callable[..., asyncio.Protocol]
    ws_protocol_class: type | None
    ssl: Any
    reload: bool
    lifespan: str
    workers: int
    fd: int | None
    uds: str | None
    limit_max_requests: int | None
    timeout_graceful_shutdown: float | None
    callback_notify: Callable[..., Awaitable[None]] | None


class Server(Protocol):
    """`uvicorn.Server`. Wrapped on the instance: `shutdown`, `main_loop`, `on_tick`,
    `_captured_signals`."""

    config: Config
    server_state: ServerState
    lifespan: Lifespan
    servers: list[asyncio.base_events.Server]
    started: bool
    should_exit: bool
    force_exit: bool
    shutdown: Callable[..., Awaitable[None]]
    main_loop: Callable[[], Awaitable[None]]
    on_tick: Callable[[int], Awaitable[bool]]
    _captured_signals: list[int]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None: ...


Sockets = list[socket.socket]

_COROUTINES: Final = ("shutdown", "main_loop", "on_tick")
_ATTRIBUTES: Final = ("config", "server_state", "lifespan", "should_exit", "force_exit")


def missing(server: Server) -> list[str]:
    """Return the names that a drain needs and *server* lacks."""
    return [
        name for name in _COROUTINES if not inspect.iscoroutinefunction(getattr(server, name, None))
    ] + [name for name in _ATTRIBUTES if not hasattr(server, name)]
