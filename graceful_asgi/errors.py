"""The errors this package raises; a missed deadline is not one of them (see `DrainReport`).

GracefulError
 +-- PolicyError    a value that is not allowed            (also a ValueError)
 +-- MisuseError    a call that makes no sense as it stands (also a RuntimeError)
 +-- EndedError     a send to a client that has been sent away (also an OSError)
"""

from __future__ import annotations


class GracefulError(Exception):
    """The root of every error this package raises."""


class PolicyError(GracefulError, ValueError):
    """A field has a value that is not allowed; the message names field, value and what is."""


class MisuseError(GracefulError, RuntimeError):
    """The call cannot work where it was made; the message says what to do instead."""


class EndedError(GracefulError, OSError):
    """The drain has ended this event stream or WebSocket, and the app went on sending.

    An `OSError`, as ASGI has it for a send after the disconnect: frameworks take it for one.
    """

    @classmethod
    def is_behind(cls, error: BaseException | None) -> bool:
        """Say whether *error* comes from one of these, by whichever way frameworks wrap it."""
        if error is None or isinstance(error, cls):
            return error is not None
        group: tuple[BaseException, ...] = getattr(error, "exceptions", ())
        return any(map(cls.is_behind, (error.__cause__ or error.__context__, *group)))
