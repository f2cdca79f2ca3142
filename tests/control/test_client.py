"""Asking many processes at once: none holds up the others, and what has gone is taken away."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from support.polling import PATIENCE, eventually

from graceful_asgi import Phase
from graceful_asgi._control import client
from graceful_asgi._control.client import Answer, ask, connected
from graceful_asgi._control.directory import ControlDirectory, SocketName
from graceful_asgi._control.peers import ControlPeers, UnreachablePeers
from graceful_asgi._control.protocol import MAX_REPLY, ControlRequest, build_reply, parse_reply
from graceful_asgi._core.server_context import ServerId

from .sockets import QUICK, control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

SERVER = ServerId(7, "x")
OTHER = ServerId(8, "x")
STATUS = ControlRequest(command="status")
DRAIN = ControlRequest(command="drain", wait=True)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each process all the time that a busy machine may need."""
    monkeypatch.setattr(client, "ANSWER_PERIOD", PATIENCE)
    monkeypatch.setattr(client, "WAIT_MARGIN", PATIENCE)


@pytest.fixture
def _less_patience(_patience: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a silent process up soon, and leave the others time to answer."""
    monkeypatch.setattr(client, "ANSWER_PERIOD", 2.0)
    monkeypatch.setattr(client, "WAIT_MARGIN", 0.3)


@contextmanager
def impostor(directory: ControlDirectory, pid: int, says: bytes | None) -> Iterator[SocketName]:
    """A socket that says *says* to whoever connects and closes; None: it never accepts."""
    name = SocketName(SERVER, pid)
    with directory.listen(name) as listener:
        listener.settimeout(PATIENCE)

        def serve() -> None:
            assert says is not None
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(says)

        thread = threading.Thread(target=serve, daemon=True)
        if says is not None:
            thread.start()
        yield name
        if says is not None:
            thread.join(PATIENCE)
    directory.remove(name)


async def accept(listener: socket.socket) -> socket.socket:
    """Return the next connection to a listener that does not block."""
    found: list[socket.socket] = []

    def has_come() -> bool:
        with contextlib.suppress(BlockingIOError):
            found.append(listener.accept()[0])
        return bool(found)

    await eventually(has_come)
    return found[0]


async def test_processes_answer_in_the_order_they_were_asked(tmp_path: Path) -> None:
    with control(tmp_path, server=SERVER) as one, control(tmp_path, server=OTHER) as two:
        answers = await ask(one.directory, [two.name, one.name], STATUS)
    assert [answer.process["server"] for answer in answers] == [8, 7]
    assert {answer.process["pid"] for answer in answers} == {os.getpid()}


@pytest.mark.usefixtures("_less_patience")
async def test_one_that_does_not_answer_holds_up_no_other(tmp_path: Path) -> None:
    answers_seen: list[Answer] = []
    with (
        control(tmp_path, QUICK, server=SERVER) as one,
        impostor(one.directory, 99, None) as silent,
    ):
        answers = await ask(one.directory, [silent, one.name], DRAIN, answers_seen.append)
    assert [answer.state for answer in answers] == ["silent", "answered"]
    assert answers[0].error == "does not answer"
    order = [(answer.name.pid, answer.state, answer.outcome) for answer in answers_seen]
    assert order.index((os.getpid(), "answered", "clean")) < order.index((99, "silent", ""))


async def test_a_drain_begins_everywhere_before_it_is_over_anywhere(tmp_path: Path) -> None:
    outcomes: list[str] = []
    with control(tmp_path, QUICK, server=SERVER) as one, control(tmp_path, server=SERVER) as two:

        def note(answer: Answer) -> None:
            if answer.outcome:
                outcomes.append(answer.outcome)

        def has_begun() -> bool:
            return all(each.drainer.phase is Phase.LAME_DUCK for each in (one, two))

        async with anyio.create_task_group() as tasks:
            with one.drainer.track("export"):
                tasks.start_soon(ask, one.directory, [two.name, one.name], DRAIN, note)
                await eventually(has_begun)
                assert outcomes == []
            await eventually(lambda: outcomes)
            tasks.cancel_scope.cancel()
    assert outcomes == ["clean"]


async def test_the_socket_of_a_process_that_has_gone_is_taken_away(tmp_path: Path) -> None:
    with ControlDirectory(str(tmp_path / "c"), create=True) as directory:
        stale, missing = SocketName(SERVER, 1), SocketName(SERVER, 2)
        directory.listen(stale).close()
        answers = await ask(directory, [stale, missing], STATUS)
        assert [answer.state for answer in answers] == ["gone", "gone"]
        assert directory.names() == []


@pytest.mark.parametrize(
    ("says", "state", "error"),
    [
        (b"", "gone", "has ended without an answer"),
        (b'{"v":1', "gone", "has ended without an answer"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "silent",
            "sends an answer that is not understood: not a JSON",
        ),
        (b'{"v":2,"reply":"status"}\n', "silent", "sends an answer that is not understood: v=2"),
        (b"x" * (MAX_REPLY + 10), "silent", "sends an answer that is not understood: more than"),
        (build_reply("error", error="no"), "refused", "no"),
        (build_reply("status", process=[]), "answered", ""),
    ],
)
async def test_whatever_a_process_says_is_an_answer(
    tmp_path: Path, says: bytes, state: str, error: str
) -> None:
    with (
        ControlDirectory(str(tmp_path / "c"), create=True) as directory,
        impostor(directory, 99, says) as name,
    ):
        [answer] = await ask(directory, [name], STATUS)
    assert answer.state == state
    assert answer.error.startswith(error)
    assert answer.process == {}


@pytest.mark.usefixtures("_less_patience")
async def test_a_process_that_stops_talking_is_given_up_when_it_would_have(tmp_path: Path) -> None:
    line = build_reply("drain", began=True, process={"gives_up_in": 0.1})
    with ControlDirectory(str(tmp_path / "c"), create=True) as directory:
        name = SocketName(SERVER, 99)
        with directory.listen(name) as listener, anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                answers: list[Answer] = []
                tasks.start_soon(ask, directory, [name], DRAIN, answers.append)
                peer = await accept(listener)
                peer.sendall(line)
            peer.close()
    assert [(answer.state, answer.error) for answer in answers] == [
        ("answered", ""),
        ("silent", "does not answer"),
    ]


async def test_a_refusal_is_heard_though_it_came_before_the_question(tmp_path: Path) -> None:
    with ControlDirectory(str(tmp_path / "c"), create=True) as directory:
        name = SocketName(SERVER, 99)
        with directory.listen(name) as listener:
            async with connected(directory.address(name)) as line:
                with await accept(listener) as peer:
                    peer.sendall(build_reply("error", error="not you"))
                await line.send(b"{}\n")
                assert parse_reply(await line.receive()).fields == {"error": "not you"}


async def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """The kernel says "try again", and does not say when."""
    with ControlDirectory(str(tmp_path / "c"), create=True) as directory:
        name = SocketName(SERVER, 99)
        with directory.listen(name) as listener, socket.socket(socket.AF_UNIX) as first:
            listener.listen(0)
            first.connect(directory.address(name))
            async with anyio.create_task_group() as tasks:
                answers: list[Answer] = []
                tasks.start_soon(ask, directory, [name], STATUS, answers.append)
                await anyio.wait_all_tasks_blocked()
                for says in (b"", build_reply("status", process={"pid": 3})):
                    with await accept(listener) as peer:
                        peer.sendall(says)
    assert [answer.process for answer in answers] == [{"pid": 3}]


async def test_siblings_are_those_of_the_same_server_and_not_oneself(tmp_path: Path) -> None:
    with (
        control(tmp_path, QUICK, server=SERVER) as own,
        control(tmp_path, QUICK, server=SERVER) as sibling,
        control(tmp_path, QUICK, server=OTHER) as stranger,
    ):
        faults = await ControlPeers(own.directory, own.name).drain("test", resume_after=60)
        assert faults == []
        assert sibling.drainer.phase is Phase.LAME_DUCK
        assert 50 < (sibling.drainer.undo_in() or 0) <= 60
        assert own.drainer.phase is stranger.drainer.phase is Phase.SERVING


@pytest.mark.usefixtures("_less_patience")
async def test_siblings_that_were_not_clean_are_named(tmp_path: Path) -> None:
    error = build_reply("error", error="refused: not you")
    begun = build_reply("drain", began=True, process={"pid": 96})  # and then it is killed
    with (
        control(tmp_path, QUICK, server=SERVER) as own,
        impostor(own.directory, 96, begun),
        impostor(own.directory, 98, None),
        impostor(own.directory, 99, error),
    ):
        own.directory.listen(SocketName(SERVER, 97)).close()  # is gone, and has nothing left
        peers = ControlPeers(own.directory, own.name)
        faults = await peers.drain("test", resume_after=None)
    assert faults == [
        "process 96: has ended without an answer",
        "process 98: does not answer",
        "process 99: refused: not you",
    ]
    peers._directory.close()
    [fault] = await peers.drain("test", resume_after=None)
    assert fault.startswith("the other processes cannot be reached: ")
    assert await UnreachablePeers("no room").drain("test", resume_after=None) == [
        "the other processes cannot be reached: no room"
    ]
