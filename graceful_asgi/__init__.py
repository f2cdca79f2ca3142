"""Zero-loss graceful shutdown for ASGI apps on uvicorn: drains, and is gone by its deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_MODULES = {
    ".errors": ("ClosedError", "ControlError", "GracefulError", "MisuseError", "PolicyError"),
    ".phase": ("Phase", "PhaseChange"),
    ".policy": ("DrainPolicy",),
    ".report": ("DrainReport", "DrainStatistics", "StuckWork"),
    "._asgi.middleware": ("GracefulMiddleware",),
    "._asgi.notice": ("DrainNotice", "drain_notice"),
    "._core.drainer": ("Drainer",),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for (PEP 562).

    pytest imports `graceful_asgi.testing` in every run of every suite of an environment, and that
    imports this package: it should cost such a suite nothing.
    """
    module = next((each for each, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names as well as those that are there already."""
    return sorted({*globals(), *__all__})
