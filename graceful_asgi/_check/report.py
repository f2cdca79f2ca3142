"""A check as JSON's own types. The schema is documented, and its number changes when it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .summary import signal_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rounds import Contestant, Settings

SCHEMA: Final = 1
"""Fields may be added under one number; it goes up when one is renamed, removed or means else."""


def report(contestants: Sequence[Contestant], settings: Settings) -> dict[str, Any]:
    """The whole check: how it was done, and the verdict on each server."""
    plan = settings.plan
    return {
        "schema": SCHEMA,
        "passed": contestants[0].verdict.clean,
        "settings": {
            "rounds": settings.rounds,
            "signal": signal_name(settings.signal),
            "signal_after": settings.signal_after,
            "deadline": settings.deadline,
            "keep_alive": plan.keep_alive_clients,
            "fresh": plan.fresh_clients,
            "think": plan.think_period * 1000,
            "path": plan.path,
        },
        "servers": [
            {
                "name": contestant.command.name,
                "command": list(contestant.command.arguments),
                **contestant.verdict.as_dict(),
            }
            for contestant in contestants
        ],
    }
