"""What stands beside a drain for as long as its server runs: told of each phase, closed at the end.

An attendant is made by a line in `_MAKERS`; most are made only where the environment asks for them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .. import log
from .._control.extension import open_control_socket, wants_control_socket
from ..errors import GracefulError
from ..event_loop import run_blocking
from ..phase import Phase
from .systemd import announce
from .unhandled_exceptions import stop_on_unhandled_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._core.extension import Extension
    from .._core.runner import DrainRunner
    from ..phase import PhaseChange


_MAKERS: Final[Sequence[Callable[[DrainRunner], Extension | None]]] = (
    stop_on_unhandled_exception,
    announce,
)
"""Each is asked once per server, as it is found; None: nothing to attend to."""


async def attend(drainer: DrainRunner) -> None:
    """Start what the environment and the policy ask for. On the server's event loop.

    Raises:
        GracefulError: an extension was asked for with what it cannot work with. Any other error is
            logged: the server goes on without that extension.
    """
    drainer.now()  # the clock is that of the running loop: a thread would find another
    extensions: list[Extension] = []
    with _going_on("opening the control socket"):
        if wants_control_socket(drainer):
            opened = await run_blocking(open_control_socket, drainer)
            extensions += [] if opened is None else [opened]
    for make in (*_MAKERS, *drainer.makers):
        with _going_on(make):
            extensions += [] if (made := make(drainer)) is None else [made]
    if not extensions:
        return

    def tell(change: PhaseChange) -> None:
        for attendant in extensions:
            with _going_on(attendant):
                attendant.phase_changed(change)
        if change.phase is Phase.STOPPED:
            close()

    def close() -> None:
        drainer.notifier.hooks.remove(tell)
        for attendant in extensions:
            with _going_on(attendant):
                attendant.close()

    drainer.notifier.hooks.append(tell)
    drainer.on_failure.append(close)


@contextmanager
def _going_on(what: object) -> Iterator[None]:
    try:
        yield
    except GracefulError:
        raise
    except Exception:
        log.failed("%r failed; the drain goes on", what)
