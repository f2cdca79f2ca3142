"""The errors this package raises; a missed deadline is not one of them (see `DrainReport`).

GracefulError
 +-- PolicyError    a value that is not allowed            (also a ValueError)
 +-- MisuseError    a call that cannot work where it is    (also a RuntimeError)
 +-- ControlError   a control socket that cannot be used   (also an OSError)
 +-- ClosedError    a send after the drain's close         (also an OSError)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_DISCONNECTS: Final = ("ClientDisconnect", "WebSocketDisconnect")
"""The error that Starlette raises in place of an `OSError` from `send`. Compared by name, so that
Starlette is not imported."""


@contextmanager
def naming_extra(extra: str, who: str) -> Iterator[None]:
    """Import in a block what *extra* installs.

    Raises:
        ModuleNotFoundError: (an `ImportError`) a module is missing; the message says that *who*
            needs it, and how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "graceful_asgi"):
            raise
        raise ModuleNotFoundError(
            f"{who} needs {missing}, which is not installed: pip install 'graceful-asgi[{extra}]'",
            name=error.name,
        ) from error


class GracefulError(Exception):
    """The root of every error this package raises."""


class PolicyError(GracefulError, ValueError):
    """A field has a value that is not allowed; the message names the field and what is allowed."""


def not_allowed(name: str, value: object, allowed: str) -> PolicyError:
    """Return the error for a value that is not allowed, which names all three."""
    return PolicyError(f"{name}={value!r} is not allowed; allowed: {allowed}")


class MisuseError(GracefulError, RuntimeError):
    """The call cannot work where it was made; the message says what to do instead."""


class ControlError(GracefulError, OSError):
    """A directory, or a socket in it, is not what it has to be; the message says what is wrong."""


class ClosedError(GracefulError, OSError):
    """The drain has ended this event stream or WebSocket, and the app went on sending.

    An `OSError`, as ASGI has it for a send after the disconnect: frameworks take it for one. Its
    text names a path, which a client chose: everything that a terminal would act on is escaped.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))

    @classmethod
    def is_behind(cls, error: BaseException | None) -> bool:
        """Return True if *error* is a `ClosedError`, or an error that a framework made of one.

        False for another error of the app that was raised while it handled a `ClosedError`.
        """
        seen: list[BaseException] = []
        while error is not None and error not in seen:
            group: tuple[BaseException, ...] = getattr(error, "exceptions", ())
            if group or isinstance(error, cls):
                return all(map(cls.is_behind, group))
            if not isinstance(error, OSError) and type(error).__name__ not in _DISCONNECTS:
                return False
            seen.append(error)
            error = error.__cause__ or error.__context__
        return False
