"""`DrainPolicy`: the periods and choices of a drain, with their defaults. Nothing here acts."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypedDict

from .errors import PolicyError
from .option import FLAG, PERIOD, Option, choice, option, options_of, or_none

if TYPE_CHECKING:
    from collections.abc import Mapping

NewRequests = Literal["serve", "reject"]
WebSockets = Literal["close", "finish"]
EventStreams = Literal["close", "finish"]


class PolicyFields(TypedDict, total=False):
    """The fields of `DrainPolicy` as keywords, for type checkers."""

    lame_duck_period: float
    quiet_period: float | None
    grace_period: float
    cancel_period: float
    cleanup_period: float
    new_requests: NewRequests
    websockets: WebSockets
    event_streams: EventStreams
    drain_on_unhandled_exception: bool
    termination_grace_period: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPolicy:
    """The options of a drain. Periods are seconds. Immutable, so safe to share between threads.

    The defaults add up to 27 s: Kubernetes kills a pod 30 s after SIGTERM, and the report has
    to be out before that.

    Raises:
        PolicyError: (a `ValueError`) a field is unknown or its value is not allowed.
    """

    __signature__: ClassVar[inspect.Signature]
    lame_duck_period: float = option(
        5.0,
        PERIOD,
        "Seconds to go on accepting after SIGTERM. Every response says `Connection: close`, "
        "and readiness says 503. Routers need 1 to 5 s to notice (kubernetes#106476).",
    )
    quiet_period: float | None = option(
        None,
        or_none(PERIOD),
        "End the lame duck early when no new request has come for so many seconds.",
    )
    grace_period: float = option(
        15.0,
        PERIOD,
        "Seconds that work in flight may go on after the listener is closed. Make it longer "
        "than your longest answer.",
    )
    cancel_period: float = option(
        2.0,
        PERIOD,
        "Seconds that cancelled work may take to unwind.",
    )
    cleanup_period: float = option(
        5.0,
        PERIOD,
        "Seconds that `lifespan.shutdown` and the exit of the process may take, together.",
    )
    new_requests: NewRequests = option(
        "serve",
        choice(NewRequests),
        "What happens to requests that arrive during a drain: `serve` answers them, `reject` "
        "answers 503 with `Retry-After`.",
    )
    websockets: WebSockets = option(
        "close",
        choice(WebSockets),
        "When WebSockets are closed with code 1012: `close`, over the lame duck, when their "
        "handler owes no reply; `finish`, when the grace period ends.",
    )
    event_streams: EventStreams = option(
        "close",
        choice(EventStreams),
        "When event streams that a client reconnects to (a GET for `text/event-stream`, MCP's "
        "listening POST) are closed: `close`, over the lame duck, between two events; "
        "`finish`, just before the grace period ends.",
    )
    drain_on_unhandled_exception: bool = option(
        False,
        FLAG,
        "Stop the server when nobody handles an exception in a thread, a task or a callback of "
        "the loop: it drains, and the process exits with 1. The server handles exceptions in "
        "requests.",
    )
    termination_grace_period: float | None = option(
        None,
        or_none(PERIOD),
        "Seconds that the platform gives between SIGTERM and SIGKILL. The server warns at "
        "startup if the policy needs more.",
    )

    def __new__(cls, **given: object) -> DrainPolicy:
        """Refuse a misspelt field with the error every other bad value gets."""
        for name, value in given.items():
            if name not in POLICY_OPTIONS:
                raise PolicyError(
                    f"DrainPolicy has no field {name!r} (given: {value!r}); "
                    f"its fields are: {', '.join(POLICY_OPTIONS)}"
                )
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for name, each in POLICY_OPTIONS.items():
            object.__setattr__(self, name, each.check(getattr(self, name)))

    @property
    def total_period(self) -> float:
        """Seconds from SIGTERM to the end of the last phase, if each takes all it may."""
        return self.lame_duck_period + self.grace_period + self.cancel_period + self.cleanup_period

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> DrainPolicy:
        """Return the defaults, overlaid with `GRACEFUL_<FIELD>` from the environment.

        `GRACEFUL_LAME_DUCK_PERIOD=10` sets `lame_duck_period`. An empty value or `none` means
        None where the field allows it. Other variables with this prefix are left to their
        owners.

        Raises:
            PolicyError: (a `ValueError`) naming the variable, its value and what is allowed.
        """
        environ = os.environ if environ is None else environ
        return cls(
            **{
                name: each.parse(environ[each.variable], called=each.variable)
                for name, each in POLICY_OPTIONS.items()
                if each.variable in environ
            }
        )


_init = inspect.signature(DrainPolicy.__init__)
# `help` and `inspect.signature` would show the signature of `__new__`, which names no field.
DrainPolicy.__signature__ = _init.replace(
    parameters=[each for each in _init.parameters.values() if each.name != "self"],
    return_annotation=inspect.Signature.empty,
)

POLICY_OPTIONS: Final[Mapping[str, Option]] = options_of(DrainPolicy)
"""The fields of `DrainPolicy`, each of which is an option."""
