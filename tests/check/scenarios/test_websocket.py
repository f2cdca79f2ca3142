"""A WebSocket has to end with a close frame: against the server half of the same library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from websockets.frames import Close
from websockets.http11 import Request
from websockets.server import ServerProtocol

from check.client.adversary import status
from check.client.loading import plan
from check.scenarios.staging import Scene, play
from graceful_asgi._check.result.counts import Counts, LoadResult
from graceful_asgi._check.scenarios.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio


def scenario() -> WebSocket:
    headers = (("X-Token", "secret"), ("Host", "example.com"))
    return WebSocket(plan(websocket_path="/ws", headers=headers))


async def accept(scene: Scene) -> ServerProtocol:
    protocol = ServerProtocol()
    protocol.receive_data(await scene.head())
    [request] = protocol.events_received()
    assert isinstance(request, Request)
    assert request.path == "/ws"
    assert request.headers["X-Token"] == "secret"
    assert request.headers["Host"] == "example.com"
    protocol.send_response(protocol.accept(request))
    flush(protocol, scene)
    return protocol


def flush(protocol: ServerProtocol, scene: Scene) -> None:
    for data in protocol.data_to_send():
        if data:
            scene.write(data)


def closing(code: int) -> Callable[[Scene], Awaitable[None]]:
    """A server that closes with `code` after the signal, and waits for the client's answer."""

    async def script(scene: Scene) -> None:
        protocol = await accept(scene)
        await scene.signalled.wait()
        protocol.send_ping(b"still there?")
        protocol.send_close(code)
        flush(protocol, scene)
        while data := await scene.reader.read(4096):
            protocol.receive_data(data)
        assert protocol.close_rcvd == Close(code, "")

    return script


@pytest.mark.parametrize("code", [1000, 1001, 1012, 1013])
async def test_a_close_that_was_meant_is_right(code: int) -> None:
    finding, load = await play(scenario(), closing(code))
    assert finding.result == "passed"
    assert finding.text.startswith(f"closed with {code} after ")
    assert load == LoadResult(during=Counts(served=1))


async def test_a_close_for_an_error_is_wrong_and_not_lost() -> None:
    finding, load = await play(scenario(), closing(1011))
    assert finding.result == "failed"
    assert finding.text.startswith("closed with 1011 after ")
    assert load.during.wrong == {"closed with 1011": 1}


@pytest.mark.parametrize("ending", ["end", "reset"])
async def test_an_end_without_a_close_frame_is_lost(ending: str) -> None:
    async def script(scene: Scene) -> None:
        await accept(scene)
        await scene.signalled.wait()
        scene.end() if ending == "end" else scene.reset()

    finding, load = await play(scenario(), script)
    assert (finding.result, finding.text) == ("failed", "cut without a close frame (1006)")
    assert load.during.lost == {"cut body": 1}


async def test_a_websocket_open_when_the_server_has_gone_is_lost() -> None:
    async def script(scene: Scene) -> None:
        await accept(scene)
        await scene.signalled.wait()
        scene.gone.set()
        await scene.reader.read()

    finding, load = await play(scenario(), script)
    assert finding.result == "failed"
    assert load.during.lost_total == 1


async def test_a_handshake_that_is_refused_shows_nothing() -> None:
    async def script(scene: Scene) -> None:
        await scene.head()
        scene.end(status(403))

    finding, load = await play(scenario(), script)
    assert (finding.result, finding.text) == ("untested", "the handshake was answered 403")
    assert load.total.served == 1


async def test_a_session_that_ends_before_the_signal_shows_nothing() -> None:
    async def script(scene: Scene) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(await scene.head())
        [request] = protocol.events_received()
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        protocol.send_close(1000)
        flush(protocol, scene)
        await scene.reader.read()

    finding, load = await play(scenario(), script, signal=False)
    assert (finding.result, finding.text) == ("untested", "closed with 1000 before the signal")
    assert load.total.lost_total == 0
