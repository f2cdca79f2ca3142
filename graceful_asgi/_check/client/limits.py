"""The limit of open files: a load needs a descriptor for each connection."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Final

from ..errors import CheckError

if TYPE_CHECKING:
    from .plan import LoadPlan

_OTHERS: Final = 128
"""Descriptors for everything but the load's connections, such as those of other scenarios."""


def allow_connections(plan: LoadPlan) -> None:
    """Raise the soft limit of open files as far as the plan needs it.

    The server that is started later has the old one: it is to run as it does without us.

    Raises `CheckError` when the hard limit is lower than that.
    """
    # A relay has two sockets besides the client's own, for each connection.
    each = 3 if plan.latency else 1
    needed = each * (plan.keep_alive_clients + plan.fresh_clients + _OTHERS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise CheckError(
            f"{plan.keep_alive_clients} + {plan.fresh_clients} clients need {needed} open files, "
            f"and the limit is {hard}: raise it (ulimit -n), or use fewer clients"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
