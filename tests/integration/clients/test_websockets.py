"""The `websockets` package's own client: closed with 1012, and connected again by itself."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from support.need import need

from .drains import WEBSOCKETS, drains
from .takeover import takeover

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

CLIENTS = 10
SERVICE_RESTART = 1012


class Session:
    """A client that the library connects again after each close."""

    def __init__(self, port: int, path: str, name: str = "") -> None:
        self._client: Any = importlib.import_module("websockets.asyncio.client")
        self._closed: Any = importlib.import_module("websockets.exceptions").ConnectionClosed
        self._url = f"ws://127.0.0.1:{port}{path}"
        self._name = name
        self.asked = self.received = 0
        self.codes: list[int] = []
        self.unanswered: list[str] = []

    async def run(self) -> None:
        async for websocket in self._client.connect(self._url, proxy=None, ping_interval=None):
            question = ""
            try:
                while True:
                    if self._name:
                        self.asked += 1
                        question = f"{self._name}.{self.asked}"
                        await websocket.send(question)
                        assert await websocket.recv() == f"reply to {question}"
                        question = ""
                    else:
                        await websocket.recv()
                    self.received += 1
            except self._closed as closed:
                self.codes.append(1006 if closed.rcvd is None else closed.rcvd.code)
                self.unanswered += [question] if question else []


@drains("ws", WEBSOCKETS)
async def test_each_message_that_a_handler_got_has_its_reply_and_the_client_comes_back(
    tmp_path: Path, ws: str, loop: str, round_number: int
) -> None:
    need("websockets", "wsproto")
    async with takeover(tmp_path, "--ws", ws, loop=loop) as servers:
        sessions = [Session(servers.port, "/ask", f"{number}") for number in range(CLIENTS)]
        assert await servers.survived_by(sessions) == 0
    received = set(re.findall(r"received (\S+)", servers.first.log))
    for session in sessions:
        assert set(session.codes) == {SERVICE_RESTART}
        assert not received.intersection(session.unanswered), "given to the handler, not answered"
    log = servers.first.log
    assert " 0 cancelled, 0 aborted" in log
    assert "Traceback" not in log


@drains("ws", WEBSOCKETS)
async def test_a_session_that_only_pushes_is_closed_and_the_client_comes_back(
    tmp_path: Path, ws: str, loop: str, round_number: int
) -> None:
    need("websockets", "wsproto")
    async with takeover(tmp_path, "--ws", ws, loop=loop) as servers:
        sessions = [Session(servers.port, "/push") for _ in range(CLIENTS)]
        assert await servers.survived_by(sessions) == 0
    assert {code for session in sessions for code in session.codes} == {SERVICE_RESTART}
    assert " 0 cancelled, 0 aborted" in servers.first.log
