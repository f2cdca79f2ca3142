"""How long and how: `DrainPolicy`. Every default lives here; nothing here waits or acts."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from .errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NewRequests = Literal["serve", "reject"]
WebSockets = Literal["close", "finish"]
EventStreams = Literal["finish", "end"]

ENV_PREFIX: Final = "GRACEFUL_"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPolicy:
    """How a server drains. Periods are seconds. Immutable, so safe to share between threads.

    The defaults add up to 27 s: Kubernetes kills a pod 30 s after SIGTERM, and the report has
    to be out before that.

    Raises:
        PolicyError: (a `ValueError`) a field is unknown or its value is not allowed.
    """

    lame_duck_period: float = 5.0
    """How long to go on accepting after SIGTERM, while every response says `Connection: close`
    and readiness says 503. Routers take 1 to 5 s to notice (kubernetes#106476)."""

    quiet_period: float | None = None
    """End the lame duck early once no new request has come for this long. None: never."""

    grace_period: float = 15.0
    """How long work in flight may go on after the listener is closed."""

    cancel_period: float = 2.0
    """How long cancelled work may take to unwind."""

    cleanup_period: float = 5.0
    """How long the app's `lifespan.shutdown` may take."""

    new_requests: NewRequests = "serve"
    """What a request gets that arrives while draining: an answer, or 503 with `Retry-After`."""

    websockets: WebSockets = "close"
    """`close`: each is closed with 1012 at a message boundary, spread over the lame duck.
    `finish`: they go on until they end, or get their 1012 as the grace period ends."""

    event_streams: EventStreams = "finish"
    """`end`: `text/event-stream` responses are completed between two events, spread over the lame
    duck. `finish`: they go on until they end, or are completed just before the grace period
    ends."""

    drain_on_unhandled_exception: bool = False
    """Whether an exception that nobody handled, in a thread, a task or a callback of the loop,
    stops the server: it drains, and the process exits with 1. Those of requests are handled."""

    termination_grace_period: float | None = None
    """What the platform gives between SIGTERM and SIGKILL. A policy that does not fit into it is
    reported at startup."""

    def __new__(cls, **given: object) -> DrainPolicy:
        """Refuse a misspelt field with the error every other bad value gets."""
        for name, value in given.items():
            if name not in _RULES:
                raise PolicyError(
                    f"DrainPolicy has no field {name!r} (given: {value!r}); "
                    f"its fields are: {', '.join(_RULES)}"
                )
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for name, rule in _RULES.items():
            object.__setattr__(self, name, rule.check(name, getattr(self, name)))

    @property
    def total_period(self) -> float:
        """Seconds from SIGTERM to the end of the last phase, if each takes all it may."""
        return self.lame_duck_period + self.grace_period + self.cancel_period + self.cleanup_period

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> DrainPolicy:
        """Return the defaults, overlaid with `GRACEFUL_<FIELD>` from the environment.

        `GRACEFUL_LAME_DUCK_PERIOD=10` sets `lame_duck_period`. An empty value or `none` means
        None where the field allows it. Other variables with this prefix are left to their
        owners. This is what `policy=None` means everywhere in this package.

        Raises:
            PolicyError: (a `ValueError`) naming the variable, its value and what is allowed.
        """
        return cls(**fields_from_env(os.environ if environ is None else environ))


def fields_from_env(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields that `GRACEFUL_<FIELD>` gives, and no others. Raises `PolicyError`."""
    variables = {name: ENV_PREFIX + name.upper() for name in _RULES}
    return {
        name: parse_field(name, environ[variable], called=variable)
        for name, variable in variables.items()
        if variable in environ
    }


def parse_field(name: str, text: str, *, called: str) -> Any:
    """Return the value of field *name* that *text* stands for.

    Raises:
        PolicyError: (a `ValueError`) it stands for none that is allowed; the field is *called* so.
    """
    rule = _RULES[name]
    return rule.check(called, rule.parse(text.strip()))


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one field allows: `check` validates a value, `parse` reads one from text."""

    allowed: str
    accepts: Callable[[object], bool]
    parse: Callable[[str], object]
    convert: Callable[[Any], object] = lambda value: value

    def check(self, name: str, value: object) -> object:
        if not self.accepts(value):
            raise PolicyError(f"{name}={value!r} is not allowed; allowed: {self.allowed}")
        return self.convert(value)


def _is_period(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value) and value >= 0
    except OverflowError:  # an integer that no float can hold
        return False


def _is_period_or_none(value: object) -> bool:
    return value is None or _is_period(value)


def _parse_number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _parse_number_or_none(text: str) -> object:
    return None if text.lower() in ("", "none") else _parse_number(text)


def _parse_bool(text: str) -> object:
    return {"1": True, "true": True, "yes": True, "on": True}.get(
        text.lower(), False if text.lower() in ("0", "false", "no", "off") else text
    )


def _choice(literal: object) -> _Rule:
    choices = get_args(literal)
    return _Rule(
        allowed=" or ".join(repr(choice) for choice in choices),
        accepts=lambda value: isinstance(value, str) and value in choices,
        parse=str,
    )


def _as_seconds(value: Any) -> object:
    return None if value is None else float(value)


_SECONDS: Final = "a finite number of seconds, 0 or more"
_PERIOD: Final = _Rule(_SECONDS, _is_period, _parse_number, _as_seconds)
_PERIOD_OR_NONE: Final = _Rule(
    f"{_SECONDS}, or None", _is_period_or_none, _parse_number_or_none, _as_seconds
)
_FLAG: Final = _Rule("True or False", lambda value: isinstance(value, bool), _parse_bool)

_KINDS: Final[Mapping[str, _Rule]] = {
    "float": _PERIOD,
    "float | None": _PERIOD_OR_NONE,
    "bool": _FLAG,
    "NewRequests": _choice(NewRequests),
    "WebSockets": _choice(WebSockets),
    "EventStreams": _choice(EventStreams),
}
_RULES: Final[Mapping[str, _Rule]] = {
    field.name: _KINDS[str(field.type)] for field in fields(DrainPolicy)
}
