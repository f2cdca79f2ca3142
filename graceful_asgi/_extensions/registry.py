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
from .systemd import announce_server
from .unhandled_exceptions import stop_on_unhandled_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._core.runner import DrainRunner
    from .._core.server import ServerEvents
    from ..phase import PhaseChange


_MAKERS: Final[Sequence[Callable[[DrainRunner], ServerEvents | None]]] = (
    stop_on_unhandled_exception,
    announce_server,
)
"""Each is called once per server, when the server is found. None: not wanted here."""


async def start_extensions(drainer: DrainRunner) -> None:
    """Start what the environment and the policy ask for. On the server's event loop.

    Raises:
        GracefulError: an extension was asked for with a value that it cannot work with. Any other
            error is logged: the server goes on without that extension.
    """
    drainer.now()  # the clock is that of the running loop: a thread would find another
    made: list[ServerEvents | None] = []
    with _starting("opening the control socket"):
        if wants_control_socket(drainer):
            made.append(await run_blocking(open_control_socket, drainer))
    for make in _MAKERS:
        with _starting(make):
            made.append(make(drainer))
    if extensions := [extension for extension in made if extension is not None]:
        drainer.server_events.append(Extensions(drainer, extensions))


@contextmanager
def _starting(what: object) -> Iterator[None]:
    try:
        yield
    except GracefulError:
        raise
    except Exception:
        log.failed("%r failed; the server goes on without it", what)


class Extensions:
    """The extensions of one server. They are told together, and forgotten when it is gone."""

    def __init__(self, drainer: DrainRunner, extensions: Sequence[ServerEvents]) -> None:
        self._drainer = drainer
        self._extensions = extensions

    def opened(self) -> None:
        """Tell all of them that the server listens."""
        self._tell_all(lambda extension: extension.opened())

    def phase_changed(self, change: PhaseChange) -> None:
        """Tell all of them of a phase change."""
        self._tell_all(lambda extension: extension.phase_changed(change))

    def closed(self) -> None:
        """Have all of them release what they hold."""
        self._drainer.server_events.remove(self)
        self._tell_all(lambda extension: extension.closed())

    def _tell_all(self, call: Callable[[ServerEvents], object]) -> None:
        for extension in self._extensions:
            with log.caught("%r failed; the drain goes on", extension):
                call(extension)
