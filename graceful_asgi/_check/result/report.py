"""A check as JSON's own types. The schema is documented, and its number changes when it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .target import Target

SCHEMA: Final = 2
"""Fields may be added under one number; it goes up when one is renamed, removed or means else."""


def report(targets: Sequence[Target], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole check: how it was done, and the verdict on each server."""
    return {
        "schema": SCHEMA,
        "passed": targets[0].verdict.clean,
        "settings": dict(settings),
        "servers": [
            {
                "name": target.command.name,
                "command": list(target.command.arguments),
                **target.verdict.as_dict(),
            }
            for target in targets
        ],
    }
