"""Resolves each option: the command line wins over the environment, code and the default.

`resolve` does that once for each server that starts, however it was started. Pure. The options
themselves are fields of `DrainPolicy` (`policy.py`) and `Endpoints` (`_asgi/endpoints.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core.drainer import Drainer
from ..errors import GracefulError, MisuseError, PolicyError, not_allowed
from ..option import PREFIX
from ..policy import POLICY_OPTIONS, DrainPolicy
from .endpoints import ENDPOINT_OPTIONS, Endpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..option import Option

OPTIONS: Final[Mapping[str, Option]] = {**POLICY_OPTIONS, **ENDPOINT_OPTIONS}
"""Every option that has a keyword, a variable and a flag, by name."""

ALIKE: Final = 0.9
"""The similarity (`difflib`) from which on a name counts as misspelt: a letter or two differ."""

COMMAND_LINE_KEY: Final = "graceful_asgi.command_line"
"""The key in the lifespan's `scope["state"]` that holds the `CommandLine` until the app started."""


class CommandLine:
    """The options given to `graceful-asgi run`, for the middleware that the app may have."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        """The values of options, each of them checked."""
        self.is_taken = False
        """True if the app has a middleware, which drains the server."""


class ServerSettings(NamedTuple):
    """The settings of one server: how it drains, and which paths are answered. Immutable."""

    policy: DrainPolicy
    endpoints: Endpoints
    origins: Sequence[str]
    """Each value that is not the default, and where it came from."""
    faults: Sequence[GracefulError]
    """One error for each value that is not allowed. Such a value was left out."""

    @property
    def fault(self) -> GracefulError | None:
        """All faults as one error to raise; None where there are none."""
        if len(self.faults) < 2:
            return self.faults[0] if self.faults else None
        return PolicyError("; ".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class CodeOptions:
    """The options that an app's code gives, each of them checked. Immutable."""

    names: Sequence[str] = ()
    """The keywords that were given."""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)  # one is a secret
    ready: Any = None
    faults: Sequence[GracefulError] = ()
    """One error for each keyword that is not allowed. It is not among the values."""

    @classmethod
    def read(
        cls, given: Mapping[str, Any], *, policy: object, drainer: object, ready: Any
    ) -> CodeOptions:
        """Check the keywords of `GracefulMiddleware`, and return their values. Raises nothing.

        *given* has those that are options.
        """
        faults: list[GracefulError] = []
        whole: DrainPolicy | None = None
        for name, value, kind in (("policy", policy, DrainPolicy), ("drainer", drainer, Drainer)):
            if value is not None and not isinstance(value, kind):
                faults.append(not_allowed(name, value, f"a {kind.__name__}, or None"))
        if policy is not None and drainer is not None:
            faults.append(
                MisuseError(
                    "GracefulMiddleware got policy= and drainer=; the drainer has a policy of its "
                    "own: give Drainer(policy) that policy, or leave out drainer="
                )
            )
        if isinstance(policy, DrainPolicy):
            whole = policy
        elif isinstance(drainer, Drainer):
            whole = drainer.policy
        if ready is not None and not callable(ready):
            faults.append(not_allowed("ready", ready, "a callable, or None"))
        values = {} if whole is None else {name: getattr(whole, name) for name in POLICY_OPTIONS}
        for name, value in given.items():
            if name not in OPTIONS:
                faults.append(_unknown(name, value))
            elif name in POLICY_OPTIONS and (policy is not None or drainer is not None):
                other = "policy=" if policy is not None else "drainer="
                faults.append(
                    MisuseError(
                        f"GracefulMiddleware got {other} and {name}=; both say how to drain: give "
                        f"DrainPolicy(...) all the fields, or leave out {other}"
                    )
                )
            else:
                try:
                    values[name] = OPTIONS[name].check(value)
                except PolicyError as error:
                    faults.append(error)
        keywords = {"policy": policy, "drainer": drainer, "ready": ready, **given}
        names = [f"{name}=" for name, value in keywords.items() if value is not None]
        return cls(names, values, ready if callable(ready) else None, faults)


def _unknown(name: str, value: object) -> GracefulError:
    keywords = ["policy", "drainer", "ready", *ENDPOINT_OPTIONS, *POLICY_OPTIONS]
    close = _alike(name, keywords, cutoff=0.6)
    meant = f"did you mean {close[0]!r}? " if close else ""
    shown = "..." if close and close[0] in OPTIONS and OPTIONS[close[0]].is_secret else repr(value)
    return PolicyError(
        f"GracefulMiddleware has no option {name!r} (given: {shown}); {meant}its options are: "
        f"{', '.join(keywords)}"
    )


def _alike(name: str, known: Iterable[str], *, cutoff: float) -> Sequence[str]:
    """Return the name in *known* that *name* may be a misspelling of, if there is one."""
    import difflib  # not at the top: only for a program that has misspelt a name

    return difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)


def misspelt(environ: Mapping[str, str]) -> Sequence[str]:
    """Return the variables that look like misspelt options, each with the option it resembles."""
    known = {each.variable for each in OPTIONS.values()}
    others = [name for name in environ if name.startswith(PREFIX) and name not in known]
    found = []
    for name in sorted(others):
        if close := _alike(name, known, cutoff=ALIKE):
            found.append(f"{name} (did you mean {close[0]}?)")
    return found


def resolve(
    code: CodeOptions,
    environ: Mapping[str, str],
    command_line: Mapping[str, Any] | None = None,
    *,
    before_code: bool = False,
) -> ServerSettings:
    """Return the settings of a server. Raises nothing: a value that is not allowed is left out, and
    is in `faults`.

    Args:
        code: the options from the app's code.
        environ: the environment of the process.
        command_line: values that `graceful-asgi run` was given, each of them checked.
        before_code: True if the app's code is not known yet. It may give the token that a path
            needs, so a missing token is no fault.
    """
    faults = list(code.faults)
    from_environment: dict[str, Any] = {}
    for name, each in OPTIONS.items():
        if each.variable in environ:
            try:
                text = environ[each.variable]
                from_environment[name] = each.parse(text, called=each.variable)
            except PolicyError as error:
                faults.append(error)
    command_line = command_line or {}
    values = {**code.values, **from_environment, **command_line}

    def origin(each: Option) -> str | None:
        if each.name in command_line:
            return each.flag
        if each.name in from_environment:
            return each.variable
        return "code" if values.get(each.name, each.default) != each.default else None

    of_endpoints = _among(ENDPOINT_OPTIONS, values)
    if before_code and of_endpoints.get("drain_token") is None:
        of_endpoints.pop("drain_path", None)
    try:
        endpoints = Endpoints(ready=code.ready, **of_endpoints)
    except PolicyError as error:  # each value is allowed, but not both together
        faults.append(error)
        endpoints = Endpoints()
    return ServerSettings(
        policy=DrainPolicy(**_among(POLICY_OPTIONS, values)),
        endpoints=endpoints,
        origins=[
            f"{each.show(values[each.name])} ({whose})"
            for each in OPTIONS.values()
            if (whose := origin(each)) is not None
        ],
        faults=faults,
    )


def _among(options: Mapping[str, Option], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in options}
