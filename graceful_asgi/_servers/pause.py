"""`end_pause`: makes uvicorn look at its flags now, not at its next tick.

uvicorn waits for everything by looking every 0.1 s (`Server.main_loop`), and its `shutdown` sleeps
for 0.1 s before it looks for the first time. A drain ends by events, and has closed everything by
then: these 0.2 s would be most of the time that an idle server takes to stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._diagnostics.await_chain import await_chain

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

_UVICORN: Final = "uvicorn.server"


def end_pause(task: asyncio.Task[Any] | None) -> None:
    """End the `asyncio.sleep` that *task* is in, if uvicorn's server has called it. On its loop.

    Each of them stands before a look at flags, which another look harms not. Does nothing for a
    task that waits for anything else: the app's code, or that of a subclass of `Server`.
    """
    if task is None or task.done():
        return
    frames, future = await_chain(task.get_coro())
    if future is None or future.done() or len(frames) < 2:
        return
    caller, sleep = frames[-2:]
    if _name(sleep) == ("asyncio.tasks", "sleep") and _name(caller)[0] == _UVICORN:
        # `asyncio.sleep` has `h = loop.call_later(delay, futures._set_result_unless_cancelled,
        # future, result)`, then `return await future`.
        timer: asyncio.TimerHandle | None = sleep.f_locals.get("h")
        if timer is None:
            return
        # `sleep` cancels its timer when it goes on. After a long turn that is too late: the loop
        # has the timer's callback in hand, which would set the result a second time, and raise.
        timer.cancel()
        future.set_result(None)


def _name(frame: FrameType) -> tuple[object, str]:
    return frame.f_globals.get("__name__"), frame.f_code.co_name
