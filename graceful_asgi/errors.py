"""The errors this package raises; a missed deadline is not one of them (see `DrainReport`).

GracefulError
 +-- PolicyError    a value that is not allowed            (also a ValueError)
 +-- MisuseError    a call that makes no sense as it stands (also a RuntimeError)
 +-- ControlError   a control socket that cannot be had    (also an OSError)
 +-- ClosedError     a send to a client that has been sent away (also an OSError)
"""

from __future__ import annotations

from typing import Final

from .report import printable

_DISCONNECTS: Final = ("ClientDisconnect", "WebSocketDisconnect")
"""What Starlette raises in the place of an `OSError` from `send`. Named, and not imported."""


class GracefulError(Exception):
    """The root of every error this package raises."""


class PolicyError(GracefulError, ValueError):
    """A field has a value that is not allowed; the message names field, value and what is."""


class MisuseError(GracefulError, RuntimeError):
    """The call cannot work where it was made; the message says what to do instead."""


class ControlError(GracefulError, OSError):
    """A directory, or a socket in it, is not what it has to be; the message says what is."""


class ClosedError(GracefulError, OSError):
    """The drain has ended this event stream or WebSocket, and the app went on sending.

    An `OSError`, as ASGI has it for a send after the disconnect: frameworks take it for one. Its
    text names a path, which a client chose: everything that a terminal would act on is escaped.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))

    @classmethod
    def is_behind(cls, error: BaseException | None) -> bool:
        """Say whether *error* is one of these, or what a framework makes of one for its app.

        A failure of the app's own while it handles one is neither.
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
