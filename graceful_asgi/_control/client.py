"""Asks the processes behind control sockets, all at once: a slow one delays no other.

`anyio.connect_unix` is not used. A `connect` to a UNIX socket whose queue is full fails with EAGAIN
at once; asyncio takes this for a connection in progress, and then for one that is established.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import anyio.lowlevel

from .protocol import MAX_REPLY, ControlRequest, ProtocolError, build_request, parse_reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .directory import ControlDirectory, SocketName
    from .protocol import Fields, Reply

ANSWER_PERIOD: Final = 2.0
"""Seconds for a process to answer. A process whose threads cannot run (the GIL is held) cannot."""
WAIT_MARGIN: Final = 2.0
"""Seconds beyond the time that a process itself has for the outcome."""
STOP_PERIOD: Final = 3600.0
"""Seconds for a drain that a stop ends. The process has a hard deadline of its own."""
FULL_PERIOD: Final = 0.02
"""Seconds until the next try where the queue is full: no event tells when it has room."""

State = Literal["answered", "refused", "silent", "gone"]
"""`refused`: it does not do this, or not for this user. `silent`: it is alive and does not answer.
`gone`: it has ended."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one process, or the reason why there is none."""

    name: SocketName
    state: State
    reply: Reply | None = None
    """The last line that it has sent."""
    error: str = ""

    @property
    def fields(self) -> Fields:
        """The fields of the last line that it has sent; empty where there is none."""
        return {} if self.reply is None else self.reply.fields

    @property
    def process(self) -> dict[str, Any]:
        """The status that it has sent last; empty where there is none."""
        process = self.fields.get("process")
        return process if isinstance(process, dict) else {}

    @property
    def outcome(self) -> str:
        """The outcome of its drain; empty while that is open."""
        return str(self.fields.get("outcome", ""))

    @property
    def was_gone(self) -> bool:
        """True if it has ended, and has sent nothing before."""
        return self.state == "gone" and self.reply is None


OnAnswer = Callable[[Answer], None]


async def ask(
    directory: ControlDirectory,
    names: Sequence[SocketName],
    request: ControlRequest,
    on_answer: OnAnswer = lambda answer: None,
) -> list[Answer]:
    """Send *request* to all of them at once; return the last answer of each, in that order.

    Returns when each has answered, or its time is over; with `request.wait`, when the outcome of
    each drain is known. *on_answer* is called with each line as it comes; it must not raise. Raises
    nothing for what a process does. The socket of a process that is gone is removed.
    """
    answers = {name: Answer(name, "silent") for name in names}

    def note(answer: Answer) -> None:
        answers[answer.name] = answer
        on_answer(answer)

    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(_ask, directory, name, request, note)
    return list(answers.values())


async def _ask(
    directory: ControlDirectory, name: SocketName, request: ControlRequest, on_answer: OnAnswer
) -> None:
    last: Reply | None = None
    try:
        with anyio.fail_after(ANSWER_PERIOD) as timeout:
            async with connected(directory.address(name)) as stream:
                await stream.send(build_request(request))
                while last is None or (request.wait and last.kind in ("drain", "progress")):
                    last = parse_reply(await stream.receive())
                    state: State = "refused" if last.kind == "error" else "answered"
                    answer = Answer(name, state, last, str(last.fields.get("error", "")))
                    on_answer(answer)
                    timeout.deadline = anyio.current_time() + _time_for(answer)
    except TimeoutError:
        on_answer(Answer(name, "silent", last, "does not answer"))
    except (FileNotFoundError, ConnectionRefusedError):
        directory.remove(name)
        on_answer(Answer(name, "gone", last, "is gone"))
    except PermissionError as error:
        on_answer(Answer(name, "refused", last, str(error)))
    except ConnectionError:
        on_answer(Answer(name, "gone", last, "has ended without an answer"))
    except ProtocolError as error:
        on_answer(Answer(name, "silent", last, f"sends an answer that is not understood: {error}"))
    except OSError as error:
        on_answer(Answer(name, "silent", last, f"cannot be asked: {error}"))


def _time_for(answer: Answer) -> float:
    """Return the seconds that the outcome may take, by the status that the process sends."""
    left = answer.process.get("gives_up_in")
    return WAIT_MARGIN + (left if isinstance(left, (int, float)) else STOP_PERIOD)


class LineStream:
    """Sends and receives lines on a connected, non-blocking socket, on any event loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._incoming = bytearray()

    async def send(self, line: bytes) -> None:
        """Send *line*. It is short, and the buffer of the socket is empty. Raises `OSError`."""
        await anyio.lowlevel.checkpoint()
        with contextlib.suppress(BrokenPipeError):  # the peer has closed, perhaps with a reply
            self._socket.send(line)

    async def receive(self) -> bytes:
        """Return the next line.

        Raises:
            ConnectionError: the peer has closed before its end.
            ProtocolError: it is too long.
        """
        while b"\n" not in self._incoming:
            if len(self._incoming) > MAX_REPLY:
                raise ProtocolError(f"more than {MAX_REPLY} bytes in a line")
            await _readable(self._socket)
            data = self._socket.recv(MAX_REPLY)
            if not data:
                raise ConnectionResetError("closed in the middle of a reply")
            self._incoming += data
        line, _, self._incoming = self._incoming.partition(b"\n")
        return bytes(line)


def _readable(sock: socket.socket) -> Any:
    # anyio has it from 4.7 on, and the older name warns since then.
    wait = getattr(anyio, "wait_readable", None) or anyio.wait_socket_readable
    return wait(sock)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[LineStream]:
    """Give a connection to *address* for a block. Raises `OSError` where nothing listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(address)
                break
            except BlockingIOError:
                await anyio.sleep(FULL_PERIOD)
        yield LineStream(sock)
