"""The scenarios: each a module with its own few lines of verdict; and which run together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import repeated
from .download import Download
from .event_stream import EventStream
from .fresh import Fresh
from .half_head import HalfHead
from .hung import Hung
from .idle import Idle
from .keep_alive import KeepAlive
from .pipelining import Pipelining
from .slow import Slow
from .upload import Upload
from .websocket import WebSocket

__all__ = ["NAMES", "Hung", "background", "together"]

if TYPE_CHECKING:
    from ..load.plan import LoadPlan
    from ..load.scenario import Scenario


_TOGETHER: Final[tuple[type[Scenario], ...]] = (
    *(KeepAlive, Fresh, Slow, Download, Upload),
    *(EventStream, WebSocket, Idle, HalfHead, Pipelining),
)
NAMES: Final = (*(scenario.name for scenario in _TOGETHER), Hung.name, repeated.NAME)


def background(plan: LoadPlan) -> list[Scenario]:
    """The load, and one slow request and one download in it."""
    return [KeepAlive(plan), Fresh(plan), Slow(plan), Download(plan)]


def together(plan: LoadPlan) -> list[Scenario]:
    """Everything that can be seen in one run of the server: the load is the others' background.

    Not the hung handler, which keeps the server from ending, and not the repeated signal.
    """
    return [scenario(plan) for scenario in _TOGETHER]
