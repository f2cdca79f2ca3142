"""The errors this package raises; a missed deadline is not one of them (see `DrainReport`).

GracefulError
 +-- PolicyError    a value that is not allowed            (also a ValueError)
 +-- MisuseError    a call that makes no sense as it stands (also a RuntimeError)
"""

from __future__ import annotations


class GracefulError(Exception):
    """The root of every error this package raises."""


class PolicyError(GracefulError, ValueError):
    """A field has a value that is not allowed; the message names field, value and what is."""


class MisuseError(GracefulError, RuntimeError):
    """The call cannot work where it was made; the message says what to do instead."""
