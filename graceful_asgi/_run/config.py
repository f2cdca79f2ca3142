"""`DrainedConfig`: uvicorn's options, with the drain put around the app that they name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from .._asgi.outer_middleware import OuterMiddleware, without_lifespan
from .._asgi.precedence import CodeOptions, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..policy import DrainPolicy

STARTUP_FAILURE: Final = 3
"""uvicorn's exit code for an app that does not start. Its parents take it for final."""


class DrainedConfig(uvicorn.Config):
    """uvicorn's configuration, whose app drains. It travels to workers as uvicorn's does.

    Args:
        app: the app's import string.
        command_line: the drain's options that were given for this server, each of them checked.
        options: what `uvicorn.Config` takes.

    Raises:
        PolicyError: (a `ValueError`) the environment gives what is not allowed, or the paths do
            not go together.
    """

    def __init__(self, app: str, *, command_line: Mapping[str, Any], **options: Any) -> None:
        super().__init__(app, **options)
        self.command_line = command_line
        # Not before: `env_file` is in the environment only now.
        settings = resolve(CodeOptions(), os.environ, command_line, before_code=True)
        if settings.fault is not None:
            raise settings.fault
        self.policy: DrainPolicy = settings.policy
        """The policy of the server, if the app gives no other."""

    def load(self) -> None:
        """Load the app as uvicorn does, and put the drain around it."""
        has_lifespan = self.lifespan != "off"
        self.lifespan = self.lifespan if has_lifespan else "on"  # for the drain, not for the app
        try:
            super().load()
        except SystemExit as failure:  # older releases of uvicorn say 1
            raise SystemExit(STARTUP_FAILURE) from failure
        app = self.loaded_app if has_lifespan else without_lifespan(self.loaded_app)
        self.loaded_app = OuterMiddleware(app, self.command_line)
