"""The other processes of one's own server, by way of their control sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ControlError
from .client import Answer, ask
from .protocol import MAX_PERIOD, Request

if TYPE_CHECKING:
    from .directory import ControlDirectory, SocketName


class ControlSiblings:
    """The `Siblings` of the process that has the socket *own*. Never another server's processes."""

    def __init__(self, directory: ControlDirectory, own: SocketName) -> None:
        self._directory = directory
        self._own = own

    async def drain(self, reason: str, *, resume_after: float | None) -> list[str]:
        """Begin the drain in all that are there now, wait for each, say what was not clean."""
        try:
            there = self._directory.names()
        except ControlError as error:
            return await NoSiblings(str(error)).drain(reason, resume_after=resume_after)
        names = [name for name in there if name.server == self._own.server and name != self._own]
        if resume_after is not None:
            resume_after = min(resume_after, MAX_PERIOD)
        request = Request(command="drain", reason=reason, wait=True, resume_after=resume_after)
        return [
            fault for each in await ask(self._directory, names, request) if (fault := _fault(each))
        ]


class NoSiblings:
    """The siblings of a process that cannot reach them, and says so."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def drain(self, reason: str, *, resume_after: float | None) -> list[str]:
        """Say that none was reached."""
        return [f"the other processes cannot be reached: {self._why}"]


def _fault(answer: Answer) -> str:
    if answer.state == "gone" and answer.reply is None:
        return ""  # it had gone before it was asked
    if answer.state != "answered":
        return f"process {answer.name.pid}: {answer.error}"
    return "" if answer.outcome == "clean" else f"process {answer.name.pid}: {answer.outcome}"
