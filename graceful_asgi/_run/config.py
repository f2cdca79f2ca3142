"""`DrainedConfig`: uvicorn's options, with the drain put around the app that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import uvicorn

from .._asgi.options import Overrides
from .._asgi.outer_middleware import OuterMiddleware, without_lifespan
from ..policy import DrainPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

STARTUP_FAILURE: Final = 3
"""uvicorn's exit code for an app that does not start. Its parents take it for final."""


class DrainedConfig(uvicorn.Config):
    """uvicorn's configuration, whose app drains. It travels to workers as uvicorn's does.

    Args:
        app: the app's import string.
        policy: fields of the policy that were given for this server.
        probes: fields of the probes, likewise.
        options: what `uvicorn.Config` takes.

    Raises:
        PolicyError: (a `ValueError`) the environment gives what is not allowed, or the probes do
            not go together.
    """

    def __init__(
        self, app: str, *, policy: Mapping[str, Any], probes: Mapping[str, str], **options: Any
    ) -> None:
        super().__init__(app, **options)
        # Not before: `env_file` is in the environment only now.
        self.overrides = Overrides.from_env().updated(policy=policy, probes=probes)
        self.overrides.probes_over(None)

    @property
    def policy(self) -> DrainPolicy:
        """How it drains, if the app says nothing else."""
        return self.overrides.policy_over(DrainPolicy())

    def load(self) -> None:
        """Load the app as uvicorn does, and put the drain around it."""
        has_lifespan = self.lifespan != "off"
        self.lifespan = self.lifespan if has_lifespan else "on"  # for the drain, not for the app
        try:
            super().load()
        except SystemExit as failure:  # older releases of uvicorn say 1
            raise SystemExit(STARTUP_FAILURE) from failure
        app = self.loaded_app if has_lifespan else without_lifespan(self.loaded_app)
        self.loaded_app = OuterMiddleware(app, self.overrides)
