"""Selects the processes of a directory that a command is for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.server_context import ServerId
    from .directory import SocketName


def label(server: ServerId, among: Sequence[ServerId]) -> str:
    """Return the name of *server* for a user: its pid, unless another server has the same."""
    same = [other for other in among if other.pid == server.pid]
    return str(server.pid) if len(same) < 2 else str(server)


def servers_of(names: Sequence[SocketName]) -> list[ServerId]:
    """Return the servers that *names* belong to, each once, sorted."""
    return sorted({name.server for name in names})


def select(names: Sequence[SocketName], server: str | None, *, one: bool) -> list[SocketName]:
    """Return those of *names* that belong to *server*, by pid or label; with None all.

    Args:
        names: the names in the directory.
        server: the pid or the label that the user gave.
        one: True if more than one server is an error.

    Raises:
        ControlError: there is no process, or there is more than one server and it has to be *one*.
    """
    servers = servers_of(names)
    if not servers:
        raise ControlError("no server has a control socket there")
    labels = ", ".join(label(each, servers) for each in servers)
    if server is not None:
        servers = [each for each in servers if server in (str(each.pid), str(each))]
        if not servers:
            raise ControlError(f"no server {server} has a control socket there; there: {labels}")
    if one and len(servers) > 1:
        which = ", ".join(label(each, servers) for each in servers)
        raise ControlError(f"more than one server is there, say which by --server: {which}")
    return [name for name in names if name.server in servers]
