"""Asking the processes behind control sockets: all at once, so that none holds up the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio

from .line_stream import connected
from .protocol import ProtocolError, Request, build_request, parse_reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .directory import ControlDirectory, SocketName
    from .protocol import Reply

ANSWER_PERIOD: Final = 2.0
"""Seconds for a process to answer. One whose threads cannot run (the GIL is held) does not."""
WAIT_MARGIN: Final = 2.0
"""Seconds past the time at which a process would give up, until it is given up on."""
STOP_PERIOD: Final = 3600.0
"""Seconds for a drain with a stop behind it. The process itself sees to it that it is less."""

State = Literal["answered", "refused", "silent", "gone"]
"""`refused`: it will not do it, or not for this user. `silent`: it lives, and says nothing.
`gone`: it has ended, before or meanwhile."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking one process."""

    name: SocketName
    state: State
    reply: Reply | None = None
    """The last line it has said."""
    error: str = ""

    @property
    def process(self) -> dict[str, Any]:
        """What the process says of itself; empty where it says nothing."""
        process = None if self.reply is None else self.reply.fields.get("process")
        return process if isinstance(process, dict) else {}

    @property
    def outcome(self) -> str:
        """How its drain has come out; empty while that is open."""
        return "" if self.reply is None else str(self.reply.fields.get("outcome", ""))


Heard = Callable[[Answer], None]


async def ask(
    directory: ControlDirectory,
    names: Sequence[SocketName],
    request: Request,
    heard: Heard = lambda answer: None,
) -> list[Answer]:
    """Ask all of them at once; return their last words, in the order of *names*.

    Returns when each has answered, or has had its time; with `request.wait`, when each drain has
    come out. Never raises for what a process does. A socket whose process has gone is removed.

    Args:
        directory: where the sockets are.
        names: which of them to ask.
        request: what for.
        heard: told of each line, as it comes.
    """
    answers = [Answer(name, "silent") for name in names]

    async def one(place: int) -> None:
        def note(answer: Answer) -> None:
            answers[place] = answer
            heard(answer)

        await _ask(directory, names[place], request, note)

    async with anyio.create_task_group() as tasks:
        for place in range(len(names)):
            tasks.start_soon(one, place)
    return answers


async def _ask(
    directory: ControlDirectory, name: SocketName, request: Request, heard: Heard
) -> None:
    last: Reply | None = None
    try:
        with anyio.fail_after(ANSWER_PERIOD) as patience:
            async with connected(directory.address(name)) as line:
                await line.send(build_request(request))
                while last is None or _goes_on(last, request):
                    last = parse_reply(await line.receive())
                    state: State = "refused" if last.kind == "error" else "answered"
                    heard(Answer(name, state, last, str(last.fields.get("error", ""))))
                    patience.deadline = anyio.current_time() + _patience_with(last)
    except TimeoutError:
        heard(Answer(name, "silent", last, "it does not answer"))
    except (FileNotFoundError, ConnectionRefusedError):
        directory.remove(name)
        heard(Answer(name, "gone", last, "it has gone"))
    except PermissionError as error:
        heard(Answer(name, "refused", last, str(error)))
    except ConnectionError:
        heard(Answer(name, "gone", last, "it has gone without an answer"))
    except ProtocolError as error:
        heard(Answer(name, "silent", last, f"its answer makes no sense: {error}"))
    except OSError as error:
        heard(Answer(name, "silent", last, f"it cannot be asked: {error}"))


def _goes_on(reply: Reply, request: Request) -> bool:
    return request.wait and reply.kind in ("drain", "progress")


def _patience_with(reply: Reply) -> float:
    """Return how long the outcome may take, by what the process says itself."""
    process = reply.fields.get("process")
    left = process.get("gives_up_in") if isinstance(process, dict) else None
    return WAIT_MARGIN + (left if isinstance(left, (int, float)) else STOP_PERIOD)
