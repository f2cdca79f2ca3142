"""Text that comes from outside: made safe to print, or checked before it is sent."""

from __future__ import annotations

from typing import Final

REQUEST_PATH: Final = r"/[\x21-\x7e]*"
"""The pattern of a path that can be written into a request as it is."""
REQUEST_PATH_IN_WORDS: Final = "a path that begins with / and has no blanks (write %20)"


def printable(text: str) -> str:
    """Return *text* with every character escaped that a terminal would take for a command.

    A client chooses the path of its request, and may hide a forged line in it.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
