"""What of a policy cannot hold where the server runs, said at startup. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import journal

if TYPE_CHECKING:
    from .policy import DrainPolicy


def check(policy: DrainPolicy, margin: float) -> None:
    """Say at startup what of the policy cannot hold."""
    given, needed = policy.termination_grace_period, policy.total_period + margin
    if given is not None and needed > given:
        journal.caution(
            "the policy's periods and %g s margin add up to %g s, but termination_grace_period is "
            "%g s: raise that to %g, or lower grace_period to %g",
            margin,
            needed,
            given,
            needed,
            max(0.0, policy.grace_period - (needed - given)),
        )
