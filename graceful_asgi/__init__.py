"""Zero-loss graceful shutdown for ASGI apps on uvicorn: drains, and is gone by its deadline."""

from __future__ import annotations

from .drainer import Drainer
from .middleware import GracefulMiddleware
from .notice import DrainNotice, drain_notice
from .phase import Phase
from .policy import DrainPolicy
from .probes import Probes
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
