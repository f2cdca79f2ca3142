"""Zero-loss graceful shutdown for ASGI apps on uvicorn: drains, and is gone by its deadline."""

from __future__ import annotations

from ._asgi.health import Probes
from ._asgi.middleware import GracefulMiddleware
from ._asgi.notice import DrainNotice, drain_notice
from ._core.drainer import Drainer
from .phase import Phase
from .policy import DrainPolicy
from .report import DrainReport, StuckWork

__all__ = [
    "DrainNotice",
    "DrainPolicy",
    "DrainReport",
    "Drainer",
    "GracefulMiddleware",
    "Phase",
    "Probes",
    "StuckWork",
    "drain_notice",
]
