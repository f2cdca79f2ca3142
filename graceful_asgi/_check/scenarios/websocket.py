"""WebSocket: a session that is open when the signal comes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.protocol import State
from websockets.uri import parse_uri

from ..load.client import authority
from ..load.scenario import Scenario, since_signal
from ..result.counts import Answered, Lost, Unsent
from ..result.finding import Exit, Finding, Result

if TYPE_CHECKING:
    from ..load.client import Connection
    from ..load.request import Request
    from ..load.run import Run

_RIGHT: Final = frozenset({1000, 1001, 1012, 1013})
"""Normal; going away; service restart; try again later (RFC 6455, 7.4; IANA's registry)."""
_CUT: Final = 1006
"""What a client makes of a connection that ended without a close frame."""


class WebSocket(Scenario):
    """Right: a close frame whose code says that the session was ended on purpose.

    A session that is cut is one request lost: its opening handshake was its only one.
    """

    name = "WebSocket"
    _code = 0
    _seconds = 0.0

    async def carry_out(self, run: Run) -> None:
        if self.plan.websocket_path is None:
            return self.not_run("needs --ws-path")
        connection = await self.connect_in_time(run)
        if connection is None:
            return
        uri = f"ws://{authority(run.host, run.port)}{self.plan.websocket_path}"
        protocol = ClientProtocol(parse_uri(uri))
        with closing(connection):
            written = run.send(self.counter, connection, self._handshake(run, protocol))
            if isinstance(written, Unsent):
                return self.not_run(f"no handshake: {written.reason}")
            with run.waiting(connection):
                await self._converse(connection, protocol)
            self._seconds = since_signal(run)
            run.record(self.counter, self._conclude(run, protocol), written)

    def _handshake(self, run: Run, protocol: ClientProtocol) -> Request:
        opening = protocol.connect()
        protocol.send_request(opening)
        protocol.data_to_send()  # ours is written instead, with the headers of the plan
        path = self.plan.websocket_path or "/"
        return run.request("GET", path, *opening.headers.raw_items())

    async def _converse(self, connection: Connection, protocol: ClientProtocol) -> None:
        """Answer pings and the close frame, until the connection ends."""
        try:
            while protocol.handshake_exc is None and not protocol.close_expected():
                data = await connection.read()
                protocol.receive_data(data) if data else protocol.receive_eof()
                if protocol.state is State.OPEN:
                    self.in_position.set()
                for piece in protocol.data_to_send():
                    if piece:
                        await connection.write(piece)
                if not data:
                    return
        except OSError:
            protocol.receive_eof()

    def _conclude(self, run: Run, protocol: ClientProtocol) -> Answered | Lost:
        refusal = protocol.handshake_exc
        if isinstance(refusal, InvalidStatus):
            status = refusal.response.status_code
            self.not_run(f"the handshake was answered {status}")
            return Answered(status, reusable=False)
        received = protocol.close_rcvd
        self._code = _CUT if received is None else received.code
        if self._code == _CUT:
            return Lost("cut body", reused=False)
        if not run.signalled.is_set():
            self.not_run(f"closed with {self._code} before the signal")
        return Answered(101, reusable=False)

    def judge(self, end: Exit) -> Finding:
        load = self.counter.result()
        if self._code == _CUT:
            return Finding(self.name, "failed", "cut without a close frame (1006)", load)
        result: Result = "passed" if self._code in _RIGHT else "failed"
        return Finding(self.name, result, f"closed with {self._code}", load, self._seconds)
