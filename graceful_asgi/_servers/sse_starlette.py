"""Turns off sse-starlette's own drain, which ends event streams by itself.

From 3.2 on sse-starlette looks every 0.5 s at uvicorn's `Server.should_exit`, and ends all of its
streams once that is true: those in flight, and each that is asked for afterwards. It calls that
success, so a client gets an answer that is empty, or half of one, and complete. Its public switch
is `AppStatus.disable_automatic_graceful_drain()`; the README of sse-starlette names it for apps
that end their streams themselves.
"""

from __future__ import annotations

import sys

from .. import log


def keep_event_streams_open() -> bool:
    """Turn sse-starlette's own drain off, where it is loaded by now.

    Idempotent. Safe from any thread and in a signal handler.

    Returns:
        False where it is too old to have the switch.
    """
    app_status = getattr(sys.modules.get("sse_starlette.sse"), "AppStatus", None)
    if app_status is None:
        return True
    turn_off = getattr(app_status, "disable_automatic_graceful_drain", None)
    if turn_off is None:
        return False
    turn_off()
    return True


def look_at_sse_starlette() -> None:
    """Turn sse-starlette's own drain off as the server starts; log where that cannot be done."""
    if not keep_event_streams_open():
        log.caution(
            "this version of sse-starlette ends all of its streams when the server gets SIGTERM, "
            "complete or not: upgrade it to 3.2 or later, which leaves them to the drain"
        )
