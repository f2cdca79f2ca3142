"""`Extension`: what lives beside a drain for as long as its server runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..phase import PhaseChange


class Extension(Protocol):
    """Something that lives as long as a server, beside its drain.

    The methods are called on the event loop and must not wait. At the hard deadline, with the loop
    stuck, the last calls come from another thread.
    """

    def phase_changed(self, change: PhaseChange) -> None:
        """Take note of a phase change. They come in order; the last one leads to STOPPED."""

    def close(self) -> None:
        """Release everything: the server has stopped."""
