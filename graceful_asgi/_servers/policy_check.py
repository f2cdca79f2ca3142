"""What of a policy cannot hold where the server runs, said at startup. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..policy import DrainPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Who gives less than the policy needs, and what would fit."""

    margin: float
    needed: float
    """Seconds that the policy's periods and the margin add up to."""
    given: Mapping[str, float]
    """Seconds that each of them gives, who kills after that."""
    grace_period: float
    """What `grace_period` would have to be lowered to; below 0 that alone cannot be enough."""

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
    """Return what does not fit, or None. Pure.

    Args:
        policy: the periods, and what the platform gives (`termination_grace_period`).
        margin: seconds from the end of the last period until the process is gone.
        graceful_timeout: what gunicorn gives its worker.
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
    """Say that uvicorn's own limit is not kept any more, where the policy's differs; else "".

    It would bound the wait for work in flight, and so does `grace_period`. Pure.
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
    """Say at startup what of the policy cannot hold, or has no effect: in one warning."""
    findings = [
        str(shortfall(policy, margin, graceful_timeout=graceful_timeout) or ""),
        without_effect(policy, timeout_graceful_shutdown),
    ]
    if found := "; ".join(filter(None, findings)):
        log.caution("%s", found)
