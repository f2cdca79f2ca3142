"""Warns at startup about a policy that cannot be kept where the server runs. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .. import log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..policy import DrainPolicy


class Shortfall(NamedTuple):
    """The limits that give less time than the policy needs, and the policy that would fit."""

    margin: float
    needed: float
    """Seconds that the policy's periods and the margin add up to."""
    given: Mapping[str, float]
    """Seconds that each limit gives before its owner kills the process, by name."""
    grace_period: float
    """The `grace_period` that would fit; below 0, other periods have to be lowered as well."""

    def __str__(self) -> str:
        givers = " and ".join(f"{name} is {seconds:g} s" for name, seconds in self.given.items())
        they = "that" if len(self.given) == 1 else "both"
        lower = f"lower grace_period to {max(0.0, self.grace_period):g}"
        if self.grace_period < 0:
            lower += f" and the other periods by {-self.grace_period:g} s in all"
        return (
            f"the policy's periods and {self.margin:g} s margin add up to {self.needed:g} s, but "
            f"{givers}: raise {they} to {self.needed:g}, or {lower}"
        )


def shortfall(
    policy: DrainPolicy, margin: float, *, graceful_timeout: float | None = None
) -> Shortfall | None:
    """Return the shortfall of *policy*, or None if it fits. Pure.

    Args:
        policy: the periods, and what the platform gives (`termination_grace_period`).
        margin: seconds from the end of the last period until the process is gone.
        graceful_timeout: seconds that gunicorn gives its worker.
    """
    limits = {
        "termination_grace_period": policy.termination_grace_period,
        "gunicorn's graceful_timeout": graceful_timeout,
    }
    needed = policy.total_period + margin
    given = {name: limit for name, limit in limits.items() if limit is not None and limit < needed}
    if not given:
        return None
    return Shortfall(
        margin=margin,
        needed=needed,
        given=given,
        grace_period=policy.grace_period - (needed - min(given.values())),
    )


def without_effect(policy: DrainPolicy, timeout_graceful_shutdown: float | None) -> str:
    """Return a warning if uvicorn's own limit is set and differs from the policy's; else "".

    `grace_period` bounds the wait for work in flight in its place. Pure.
    """
    if timeout_graceful_shutdown is None or timeout_graceful_shutdown == policy.grace_period:
        return ""
    return (
        f"uvicorn's timeout_graceful_shutdown={timeout_graceful_shutdown:g} has no effect, "
        f"grace_period ({policy.grace_period:g} s) takes its place: leave it out"
    )


def check(
    policy: DrainPolicy,
    margin: float,
    *,
    graceful_timeout: float | None = None,
    timeout_graceful_shutdown: float | None = None,
) -> None:
    """Log one warning at startup if the policy cannot be kept, or an option has no effect."""
    findings = [
        str(shortfall(policy, margin, graceful_timeout=graceful_timeout) or ""),
        without_effect(policy, timeout_graceful_shutdown),
    ]
    if found := "; ".join(filter(None, findings)):
        log.caution("%s", found)
