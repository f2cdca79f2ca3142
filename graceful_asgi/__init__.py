"""Zero-loss graceful shutdown for ASGI apps on uvicorn: drains, and is gone by its deadline."""

from __future__ import annotations

from ._asgi.middleware import GracefulMiddleware
from ._asgi.notice import DrainNotice, drain_notice
from ._core.drainer import Drainer
from .errors import ClosedError, ControlError, GracefulError, MisuseError, PolicyError
from .phase import Phase, PhaseChange
from .policy import DrainPolicy
from .report import DrainReport, DrainStatistics, StuckWork

__version__ = "0.1.0"

__all__ = [
    "ClosedError",
    "ControlError",
    "DrainNotice",
    "DrainPolicy",
    "DrainReport",
    "DrainStatistics",
    "Drainer",
    "GracefulError",
    "GracefulMiddleware",
    "MisuseError",
    "Phase",
    "PhaseChange",
    "PolicyError",
    "StuckWork",
    "__version__",
    "drain_notice",
]
