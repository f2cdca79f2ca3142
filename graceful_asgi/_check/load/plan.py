"""Who sends what, how often, and how patiently. Plain data; no behaviour."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """Who sends what. All periods in seconds; a path that is None is a scenario not run."""

    keep_alive_clients: int = 100
    """Clients that keep their connection for as long as the server lets them."""
    fresh_clients: int = 50
    """Clients that open a connection for each request and close it after the answer."""
    think_period: float = 0.02
    """A client pauses between requests for a time drawn evenly from 0 to this."""
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every request."""
    slow_path: str | None = None
    """A GET that takes longer than from `single_after` to the signal."""
    stream_path: str | None = None
    """A GET whose body takes as long."""
    upload_path: str | None = None
    """A POST that reads its body."""
    event_stream_path: str | None = None
    websocket_path: str | None = None
    hang_path: str | None = None
    """A GET that is never answered."""
    single_after: float = 2.0
    """When the requests that are to be in flight at the signal are sent, from the load's start."""
    answer_period: float = 15.0
    """How long a client of the load waits for a whole answer before it counts as lost.

    The single requests are waited for until the server has gone.
    """
    connect_period: float = 3.0
    connect_retries: int = 4
    """After the signal only; before it, the first connect that fails ends the load."""
    connect_retry_interval: float = 0.05
    deliberate_statuses: frozenset[int] = frozenset()
    """5xx statuses that the server answers on purpose."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a count or period that is negative or not finite."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name}={value!r}: must be zero or more, and finite")
