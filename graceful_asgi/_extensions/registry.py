"""Starts the extensions of a server: everything that lives as long as it, beside its drain.

An extension is made by a line in `_MAKERS`. Most are made only where the environment asks for them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .. import log
from .._control.extension import open_control_socket, wants_control_socket
from ..errors import GracefulError
from ..event_loop import run_blocking
from ..phase import Phase
from .systemd import announce_server
from .unhandled_exceptions import stop_on_unhandled_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._core.extension import Extension
    from .._core.runner import DrainRunner
    from ..phase import PhaseChange


_MAKERS: Final[Sequence[Callable[[DrainRunner], Extension | None]]] = (
    stop_on_unhandled_exception,
    announce_server,
)
"""Each is called once per server, when the server is found. None: not wanted here."""

_FAILED: Final = "%r failed; the drain goes on"


async def start_extensions(drainer: DrainRunner) -> None:
    """Start what the environment and the policy ask for. On the server's event loop.

    Raises:
        GracefulError: an extension was asked for with a value that it cannot work with. Any other
            error is logged: the server goes on without that extension.
    """
    drainer.now()  # the clock is that of the running loop: a thread would find another
    extensions: list[Extension] = []
    with _starting("opening the control socket"):
        if wants_control_socket(drainer):
            opened = await run_blocking(open_control_socket, drainer)
            extensions += [] if opened is None else [opened]
    for make in (*_MAKERS, *drainer.makers):
        with _starting(make):
            extensions += [] if (made := make(drainer)) is None else [made]
    if not extensions:
        return

    def pass_on(change: PhaseChange) -> None:
        for extension in extensions:
            with log.caught(_FAILED, extension):
                extension.phase_changed(change)
        if change.phase is Phase.STOPPED:
            close()

    def close() -> None:
        drainer.notifier.hooks.remove(pass_on)
        for extension in extensions:
            with log.caught(_FAILED, extension):
                extension.close()

    drainer.notifier.hooks.append(pass_on)
    drainer.on_failure.append(close)


@contextmanager
def _starting(what: object) -> Iterator[None]:
    try:
        yield
    except GracefulError:
        raise
    except Exception:
        log.failed("%r failed; the server goes on without it", what)
