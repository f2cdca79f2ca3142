"""Starts the extensions of a server: everything that lives as long as it, beside its drain.

Each extension has a function here, which returns it, or None if it is not needed. Then it is not
imported either: together the extensions take longer to import than the rest of the core.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .. import log
from .._control import CONTROL_DIR
from ..errors import GracefulError
from ..event_loop import run_blocking
from . import NOTIFY_SOCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._control.extension import ControlSocket
    from .._core.runner import DrainRunner
    from .._core.server_adapter import ServerEvents


def _wants_control_socket(drainer: DrainRunner) -> bool:
    """Return True if the environment or a drain endpoint asks for a control socket."""
    context = drainer.context
    return bool(os.environ.get(CONTROL_DIR)) or (context.has_endpoint and context.is_worker)


def _control_socket(drainer: DrainRunner) -> ControlSocket | None:
    """Open the control socket. In a thread: the import and the socket read files."""
    from .._control.extension import open_control_socket

    return open_control_socket(drainer)


def _systemd(drainer: DrainRunner) -> ServerEvents | None:
    if NOTIFY_SOCKET not in os.environ:
        return None
    from .systemd import announce_server

    return announce_server(drainer)


def _unhandled_exceptions(drainer: DrainRunner) -> ServerEvents | None:
    if not drainer.policy.drain_on_unhandled_exception:
        return None
    from .unhandled_exceptions import UnhandledExceptions

    return UnhandledExceptions(drainer)


async def start_extensions(drainer: DrainRunner) -> None:
    """Start what the environment and the policy ask for. On the server's event loop.

    Raises:
        GracefulError: an extension was asked for with a value that it cannot work with. Any other
            error is logged: the server goes on without that extension.
    """
    drainer.now()  # chooses the clock of the running loop; in a thread it would choose another one
    events = drainer.notifier.server_events
    with _starting("the control socket"):
        if _wants_control_socket(drainer) and (
            control_socket := await run_blocking(_control_socket, drainer)
        ):
            events.append(control_socket)
    makers = {
        "the watch for unhandled exceptions": _unhandled_exceptions,
        "the notification of systemd": _systemd,
    }
    for name, make in makers.items():
        with _starting(name):
            if (extension := make(drainer)) is not None:
                events.append(extension)


@contextmanager
def _starting(name: str) -> Iterator[None]:
    try:
        yield
    except GracefulError:
        raise
    except Exception:
        log.failed("%s failed; the server goes on without it", name)
