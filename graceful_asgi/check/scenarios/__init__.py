"""The scenarios: each a module with its own few lines of verdict; and which run together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from graceful_asgi.check.scenarios import repeated
from graceful_asgi.check.scenarios.download import Download
from graceful_asgi.check.scenarios.event_stream import EventStream
from graceful_asgi.check.scenarios.fresh import Fresh
from graceful_asgi.check.scenarios.half_head import HalfHead
from graceful_asgi.check.scenarios.hung import Hung
from graceful_asgi.check.scenarios.idle import Idle
from graceful_asgi.check.scenarios.keep_alive import KeepAlive
from graceful_asgi.check.scenarios.pipelining import Pipelining
from graceful_asgi.check.scenarios.slow import Slow
from graceful_asgi.check.scenarios.upload import Upload
from graceful_asgi.check.scenarios.websocket import WebSocket

__all__ = ["NAMES", "Hung", "background", "together"]

if TYPE_CHECKING:
    from graceful_asgi.check.plan import LoadPlan
    from graceful_asgi.check.scenarios.scenario import Scenario


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
