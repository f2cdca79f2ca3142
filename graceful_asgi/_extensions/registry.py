"""What stands beside a drain for as long as its server runs: told of each phase, closed at the end.

An attendant is made by a line in `_MAKERS`; most are made only where the environment asks for them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .. import log
from .._control.extension import control_socket
from ..phase import Phase
from .systemd import announce
from .unhandled_exceptions import stop_on_unhandled_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._core.extension import Extension
    from .._core.runner import DrainRunner
    from ..phase import PhaseChange


_MAKERS: Final[Sequence[Callable[[DrainRunner], Extension | None]]] = (
    control_socket,
    stop_on_unhandled_exception,
    announce,
)
"""Each is asked once per server, as it is found; None: nothing to attend to."""


def attend(drainer: DrainRunner) -> None:
    """Start what the environment and the policy ask for. On the server's event loop.

    Raises:
        GracefulError: an attendant was asked for with what it cannot work with.
    """
    extensions = [
        made for make in (*_MAKERS, *drainer.makers) if (made := make(drainer)) is not None
    ]
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
def _going_on(attendant: Extension) -> Iterator[None]:
    try:
        yield
    except Exception:
        log.failed("%r failed; the drain goes on", attendant)
