"""Load whose clients can be sent elsewhere while the server lives, as endpoints of a service do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from graceful_asgi._check.load import Load
from graceful_asgi._check.scenarios.clients import Clients
from graceful_asgi._check.scenarios.download import Download
from graceful_asgi._check.scenarios.fresh import Fresh
from graceful_asgi._check.scenarios.keep_alive import KeepAlive
from graceful_asgi._check.scenarios.slow import Slow
from support.polling import eventually

if TYPE_CHECKING:
    from graceful_asgi._check.client.plan import LoadPlan


class Endpoint:
    """The place of a server in a service: clients use the server only while it has one."""

    def __init__(self) -> None:
        self._listed = asyncio.Event()
        self._listed.set()
        self.elsewhere = 0
        """The clients that have come between two requests since it was removed."""

    def remove(self) -> None:
        self._listed.clear()

    def add(self) -> None:
        self._listed.set()

    async def wait(self) -> None:
        self.elsewhere += 1
        try:
            await self._listed.wait()
        finally:
            self.elsewhere -= 1


class AtEndpoint(Clients):
    """Clients that look at an endpoint after each request."""

    def __init__(self, plan: LoadPlan, endpoint: Endpoint) -> None:
        super().__init__(plan)
        self._endpoint = endpoint

    async def think(self) -> None:
        await super().think()
        await self._endpoint.wait()


class KeepAliveAtEndpoint(AtEndpoint, KeepAlive):
    """Clients that keep their connection."""


class FreshAtEndpoint(AtEndpoint, Fresh):
    """Clients that open a connection for each request."""


class EndpointLoad(Load):
    """A load on a server that lives on: every request that it makes gets the time for its answer.

    The slow request and the download of *plan* are sent until the signal finds one in flight, and
    no more of them after it.
    """

    def __init__(self, plan: LoadPlan, *, port: int) -> None:
        self.endpoint = Endpoint()
        self._clients = plan.keep_alive_clients + plan.fresh_clients
        once = replace(plan, fresh_clients=0)
        super().__init__(
            plan,
            port=port,
            scenarios=[
                KeepAliveAtEndpoint(plan, self.endpoint),
                FreshAtEndpoint(plan, self.endpoint),
                Slow(once),
                Download(once),
            ],
        )

    async def leave(self) -> None:
        """Remove the endpoint, and wait until nobody is connecting or waits for an answer.

        At the end of a run what is still in flight is lost, by the rules of a server that has gone.
        """
        self.endpoint.remove()
        await eventually(
            lambda: (
                self.statistics().in_flight == 0
                and self.endpoint.elsewhere + self.statistics().refused >= self._clients
            ),
            "all clients are elsewhere",
        )
