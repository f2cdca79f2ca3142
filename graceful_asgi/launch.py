"""From uvicorn's options to a running server with the drain put around its app."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.supervisors import ChangeReload

from .overrides import Overrides
from .policy import DrainPolicy
from .stand_in import StandIn, without_lifespan
from .supervisor import Supervisor
from .worker import STARTUP_FAILURE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


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
        self.loaded_app = StandIn(app, self.overrides)


def serve(config: DrainedConfig) -> int:
    """Run the server, or its workers, to the end; return the exit code of the process.

    0 after a clean drain, 1 after a forced one, 3 (uvicorn's) where the app did not start. A server
    without workers that ends by a signal raises `SystemExit` with that code.

    Until the app is loaded the signals are the caller's, who should take them: by default a process
    that is number 1 in its container hears of none, and would serve after it was told to stop.
    """
    with _socket_file_removed(config):
        if config.should_reload:
            server = uvicorn.Server(config)
            ChangeReload(config, target=server.run, sockets=[config.bind_socket()]).run()
            return 0
        if config.workers > 1:
            return Supervisor(config, [config.bind_socket()]).run()
        if hasattr(config, "load_app"):
            config.load_app()  # outside of the event loop, as uvicorn does from 0.47 on
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what uvicorn leaves behind in the end
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # A terminal that is closed says so: uvicorn alone would be gone on the spot.
            signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
        server = uvicorn.Server(config)
        server.run()
        return 0 if server.started else STARTUP_FAILURE


@contextlib.contextmanager
def _socket_file_removed(config: uvicorn.Config) -> Iterator[None]:
    try:
        yield
    finally:
        if config.uds:
            with contextlib.suppress(FileNotFoundError):
                os.remove(config.uds)
