"""Text that comes from outside, made safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return *text* with every character escaped that a terminal would take for a command.

    A client chooses the path of its request, and may hide a forged line in it.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
