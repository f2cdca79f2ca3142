"""`Drainer`: the public object that begins, observes and calls off a drain."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Final

from ..errors import MisuseError, not_allowed
from ..option import PERIOD, or_none
from ..policy import DrainPolicy
from .runner import DrainRunner

if TYPE_CHECKING:
    from ..phase import Phase
    from ..report import DrainReport, DrainStatistics
    from .notifier import DrainHook
    from .work import TrackedWork

_RESUME_AFTER: Final = or_none(PERIOD)


class Drainer:
    """Begins, observes and calls off the drain of one server.

    Give it to the middleware (`drainer=`) to use it elsewhere in the app as well.

    `begin`, `resume`, `abort`, `statistics`, `report` and the properties are safe from any thread
    and in a signal handler. `track` may be used in any task and in any thread. `wait_begun` and
    `wait_drained` belong to the event loop of the server.

    Args:
        policy: the periods and choices. None reads them from the environment
            (`DrainPolicy.from_env`).

    Raises:
        PolicyError: (a `ValueError`) *policy* is no `DrainPolicy`, or the environment gives a
            value that is not allowed.
    """

    __slots__ = ("_runner",)

    def __init__(self, policy: DrainPolicy | None = None) -> None:
        if not isinstance(policy, DrainPolicy | None):
            raise not_allowed("policy", policy, "a DrainPolicy, or None")
        self._runner = DrainRunner(policy)

    @property
    def phase(self) -> Phase:
        """The phase that the server is in, from serving to stopped."""
        return self._runner.phase

    @property
    def policy(self) -> DrainPolicy:
        """The policy in force: the app's, overridden by the environment and the command line."""
        return self._runner.policy

    @property
    def drained(self) -> bool:
        """True while a drain is under way and has nothing left to wait for.

        The lame duck has passed, and nothing is in flight.
        """
        return self._runner.drained

    def begin(
        self, reason: str, *, lame_duck: bool = True, resume_after: float | None = None
    ) -> bool:
        """Begin a drain that does not end the process: it waits for a stop, or for `resume`.

        Idempotent: the first caller begins the drain. Later ones join it; the log says so. Safe
        from any thread and in a signal handler.

        Args:
            reason: what the log and the report name as the cause.
            lame_duck: False counts the lame duck as passed.
            resume_after: seconds after which this caller allows the drain to be undone if no stop
                has come. The drain is undone only if all who asked for it allow that, and at the
                latest of their times. None keeps it.

        Returns:
            True if this call began the drain.

        Raises:
            PolicyError: (a `ValueError`) *reason* is no text, or *resume_after* is no number of
                seconds. Nothing has changed then.
        """
        _check_text(reason, called="reason")
        if not _RESUME_AFTER.accepts(resume_after):
            raise not_allowed("resume_after", resume_after, _RESUME_AFTER.allowed)
        return self._runner.begin(reason, lame_duck=lame_duck, resume_after=resume_after)

    def resume(self) -> bool:
        """Call the drain off: the server serves again.

        Safe from any thread and in a signal handler.

        Returns:
            True if the drain was called off. False once a stop has come or the lame duck is over:
            then the drain goes on.
        """
        return self._runner.resume()

    def abort(self) -> bool:
        """Wait no longer: cancel what is in flight.

        Idempotent. Safe from any thread and in a signal handler.

        Returns:
            True if it did; False where no drain is under way, or work is cancelled already.
        """
        return self._runner.abort()

    async def wait_begun(self) -> None:
        """Wait until a drain begins; return at once when one has."""
        await self._runner.wait_begun()

    async def wait_drained(self) -> DrainReport:
        """Wait until the lame duck has passed and nothing is in flight; return the report so far.

        Waits for a drain to begin where none has, and through one that is called off. The caller
        must not be in flight itself, as a request handler is: it would wait for its own end, until
        the grace period is over.
        """
        runner = self._runner
        await runner.notifier.wait_for(
            lambda: runner.drained, lambda: runner.lame_duck_end() - runner.now()
        )
        return runner.report()

    def statistics(self) -> DrainStatistics:
        """Return the state of this moment. Safe from any thread and in a signal handler."""
        return self._runner.statistics()

    def report(self) -> DrainReport:
        """Return the report of the drain up to now; all counts are 0 before the first drain.

        Safe from any thread and in a signal handler.
        """
        return self._runner.report()

    def track(self, name: str) -> TrackedWork:
        """Count the app's own work as in flight: `with drainer.track("nightly export"):`.

        The block counts from its first line to its end, and the log and `statistics().tracked`
        show *name*; several may have the same one. When the grace period ends the surrounding task
        is cancelled (asyncio), or the block (trio). In a plain thread the work counts, but nothing
        can cancel it.

        Raises:
            PolicyError: (a `ValueError`) *name* is no text.
        """
        _check_text(name, called="name")
        return self._runner.track(name)

    def add_hook(self, hook: DrainHook) -> None:
        """Call *hook* with each `PhaseChange` from now on, on the event loop.

        Hooks are called in the order in which they were added; one that was added twice is called
        twice. The drain waits for each call, so a hook must not block.

        Where the loop is stuck, the last calls come from another thread, at the hard deadline.
        Whatever a hook raises is logged, and changes nothing about the drain.

        Raises:
            MisuseError: (a `RuntimeError`) *hook* cannot be called, or is a coroutine function,
                which nobody would await.
        """
        if not callable(hook):
            raise MisuseError(f"{hook!r} cannot be called; a hook is a plain function")
        if any(map(inspect.iscoroutinefunction, (hook, type(hook).__call__))):
            raise MisuseError(f"{hook!r} is a coroutine function; a hook is a plain function")
        self._runner.notifier.hooks.append(hook)


def _check_text(value: object, *, called: str) -> None:
    # Not checked later: the log and the reports join it with other texts, in the middle of a stop.
    if not isinstance(value, str):
        raise not_allowed(called, value, "a text")


def runner_of(drainer: Drainer) -> DrainRunner:
    """Return the runner behind *drainer*. For the rest of this package."""
    return drainer._runner


def as_drainer(runner: DrainRunner) -> Drainer:
    """Return the user's view of *runner*."""
    drainer = object.__new__(Drainer)
    drainer._runner = runner
    return drainer
