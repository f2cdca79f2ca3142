"""The scenarios: each a module with its own few lines of verdict; and which run together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import repeated
from .download import Download
from .event_stream import GetEventStream
from .fresh import Fresh
from .half_head import HalfHead
from .http2 import Http2
from .hung import Hung
from .idle import Idle
from .keep_alive import KeepAlive
from .pipelining import Pipelining
from .post_stream import PostEventStream
from .posts import Posts
from .slow import Slow
from .storm import Storm
from .upload import Upload
from .websocket import WebSocket, WebSocketPush, WebSocketReplies

__all__ = ["LEFT_OUT", "NAMES", "Hung", "background", "together"]

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..client.plan import LoadPlan
    from .base import Scenario


_TOGETHER: Final[tuple[type[Scenario], ...]] = (
    *(KeepAlive, Fresh, Storm, Posts, Http2, Slow, Download, Upload),
    *(GetEventStream, PostEventStream, WebSocket, WebSocketReplies, WebSocketPush),
    *(Idle, HalfHead, Pipelining),
)
LEFT_OUT: Final = "left out (--skip)"
NAMES: Final = (*(scenario.name for scenario in _TOGETHER), Hung.name, repeated.NAME)


def background(plan: LoadPlan) -> list[Scenario]:
    """Return the load, and one slow request and one download in it."""
    return [KeepAlive(plan), Fresh(plan), Slow(plan), Download(plan)]


def together(plan: LoadPlan, *, skip: Collection[str] = ()) -> list[Scenario]:
    """Return all that can be seen in one run of the server: the load is the others' background.

    Not the hung handler, which keeps the server from ending, and not the repeated signal.
    """
    scenarios = [scenario(plan) for scenario in _TOGETHER]
    for scenario in scenarios:
        if scenario.name in skip:
            scenario.leave_out(LEFT_OUT)
    return scenarios
