"""The other processes of this process's server, reached through their control sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ControlError
from .client import Answer, ask
from .protocol import MAX_PERIOD, ControlRequest

if TYPE_CHECKING:
    from .directory import ControlDirectory, SocketName


class ControlPeers:
    """The peers of the process that has the socket *own*. Never processes of another server."""

    def __init__(self, directory: ControlDirectory, own: SocketName) -> None:
        self._directory = directory
        self._own = own

    async def drain(self, reason: str, *, resume_after: float | None) -> list[str]:
        """Begin a drain in each, wait for all; return a text for each that was not clean."""
        try:
            there = self._directory.names()
        except ControlError as error:
            return await UnreachablePeers(str(error)).drain(reason, resume_after=resume_after)
        names = [name for name in there if name.server == self._own.server and name != self._own]
        if resume_after is not None:
            resume_after = min(resume_after, MAX_PERIOD)
        request = ControlRequest(
            command="drain", reason=reason, wait=True, resume_after=resume_after
        )
        return [
            fault for each in await ask(self._directory, names, request) if (fault := _fault(each))
        ]


class UnreachablePeers:
    """The peers of a process that cannot reach them."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def drain(self, reason: str, *, resume_after: float | None) -> list[str]:
        """Return that none was reached."""
        return [f"the other processes cannot be reached: {self._why}"]


def _fault(answer: Answer) -> str:
    if answer.was_gone:
        return ""  # it was gone before it was asked
    if answer.state != "answered":
        return f"process {answer.name.pid}: {answer.error}"
    return "" if answer.outcome == "clean" else f"process {answer.name.pid}: {answer.outcome}"
