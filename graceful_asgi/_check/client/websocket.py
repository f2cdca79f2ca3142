"""One WebSocket on a connection: its frames, and how it ended. No counting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import State
from websockets.uri import parse_uri

if TYPE_CHECKING:
    from .http1 import HttpConnection, Request
    from .run import Run

CUT: Final = 1006
"""The code that a client gives a connection which ended without a close frame."""


class WebSocketSession:
    """A WebSocket that one task drives; every wait of it ends when the connection gives up."""

    def __init__(self, run: Run, connection: HttpConnection, path: str) -> None:
        self.connection: Final = connection
        self._protocol = ClientProtocol(parse_uri(f"ws://{run.authority}{path}"))
        opening = self._protocol.connect()
        self._protocol.send_request(opening)
        self._protocol.data_to_send()  # ours is written instead, with the headers of the plan
        self.handshake: Final[Request] = run.plain_request(
            "GET", path, *opening.headers.raw_items()
        )
        self.messages = 0
        """Whole messages that have come."""
        self.in_message = False
        """A message has begun that is not whole yet."""
        self.is_over = False
        """The connection has ended."""

    @property
    def is_open(self) -> bool:
        """Return True from the handshake to the first close frame."""
        return self._protocol.state is State.OPEN

    @property
    def refused_with(self) -> int | None:
        """Return the status of an answer that was no handshake."""
        refusal = self._protocol.handshake_exc
        if isinstance(refusal, InvalidStatus):
            return int(refusal.response.status_code)
        return None

    @property
    def code(self) -> int:
        """Return the code that the server closed with, once it is over."""
        received = self._protocol.close_rcvd
        return CUT if received is None else int(received.code)

    async def open(self, *, within: float) -> bool:
        """Send the handshake and wait for its answer. Return True if the session is open."""
        try:
            with self.connection.give_up_after(within):
                if self.connection.send(self.handshake) is None:
                    await self.answered()
        except TimeoutError:
            return False
        return self.is_open

    async def answered(self) -> None:
        """Read until the handshake is answered, or the session is over."""
        while not (self.is_open or self.is_over):
            await self.read()

    async def read(self) -> None:
        """Wait for the next bytes, and answer pings and the close frame.

        Raises `TimeoutError` when the connection gives up.
        """
        try:
            data = await self.connection.read()
            self._protocol.receive_data(data) if data else self._protocol.receive_eof()
            self.is_over = not data
            await self._flush()
        except TimeoutError:
            raise
        except OSError:
            self._protocol.receive_eof()
            self.is_over = True
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
                self.in_message = not event.fin
                self.messages += event.fin
        if self._protocol.handshake_exc is not None or self._protocol.close_expected():
            self.is_over = True

    async def send(self, text: str) -> None:
        """Send a message."""
        self._protocol.send_text(text.encode())
        try:
            await self._flush()
        except OSError:
            self.is_over = True

    async def close(self, *, within: float) -> None:
        """Close it with 1000, and wait for the server to do the same."""
        if self.is_open:
            self._protocol.send_close(1000)
            try:
                with self.connection.give_up_after(within):
                    await self._flush()
                    while not self.is_over:
                        await self.read()
            except OSError:
                self.is_over = True

    async def _flush(self) -> None:
        for piece in self._protocol.data_to_send():
            if piece:
                await self.connection.write(piece)
