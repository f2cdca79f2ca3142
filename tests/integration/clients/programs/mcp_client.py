"""MCP's official client: calls a tool, calls it again on command, and prints what it got as JSON.

Arguments: the address, the kind of client, the number of sessions, the seconds of a call, and the
seconds after which one counts as a call that never ends. The kinds are `1` (SDK 1.x), `2` (SDK 2.x,
the newest protocol), `2-legacy` (SDK 2.x, the protocol with sessions and a listening GET) and
`fastmcp`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Sessions:
    """The sessions of one client, and how their calls ended."""

    def __init__(self, url: str, kind: str, count: int, seconds: float, patience: float) -> None:
        self._url, self._kind = url, kind
        self._seconds, self._patience = seconds, patience
        self._names = [f"{number}" for number in range(count)]
        self._go = asyncio.Event()
        self.ends: Counter[str] = Counter()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        waiting = loop.run_in_executor(None, sys.stdin.readline)
        sessions = [asyncio.create_task(self._session(name)) for name in self._names]
        await waiting
        self._go.set()
        late = asyncio.create_task(self._late_session())
        await asyncio.wait([*sessions, late])

    async def _session(self, name: str) -> None:
        # A session's own end is a request as well, and may come after the server's.
        with contextlib.suppress(Exception):
            async with self._open() as session:
                await session.list_tools()
                early = asyncio.create_task(self._call(session, "in flight", name))
                await self._go.wait()
                await self._call(session, "in the lame duck", f"{name}b")
                await early

    async def _late_session(self) -> None:
        """A client that comes in the lame duck."""
        with contextlib.suppress(Exception):
            async with self._open() as session:
                await session.list_tools()
                await self._call(session, "of a new session", "new")

    async def _call(self, session: Any, when: str, name: str) -> None:
        arguments = {"name": name, "seconds": self._seconds}
        try:
            answer = await asyncio.wait_for(session.call_tool("work", arguments), self._patience)
        except asyncio.TimeoutError:
            self.ends[f"{when}: never"] += 1
        except Exception:
            self.ends[f"{when}: raised"] += 1
        else:
            failed = getattr(answer, "isError", None) or getattr(answer, "is_error", False)
            whole = not failed and answer.content[0].text == f"done {name}"
            self.ends[f"{when}: {'whole' if whole else 'failed'}"] += 1

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[Any]:
        if self._kind == "1":
            async with _sdk_1(self._url) as session:
                yield session
        elif self._kind == "fastmcp":
            async with importlib.import_module("fastmcp").Client(self._url) as session:
                yield session
        elif self._kind == "2-legacy":
            client = importlib.import_module("mcp").Client
            async with client(self._url, mode="legacy") as session:
                yield session
        else:
            client = importlib.import_module("mcp").Client
            async with client(self._url) as session, self._listening(session):
                yield session

    @contextlib.asynccontextmanager
    async def _listening(self, session: Any) -> AsyncIterator[None]:
        """Listen for changes, as the newest protocol does, and count how that ends."""
        lost = importlib.import_module("mcp.client.subscriptions").SubscriptionLost

        async def listen() -> None:
            try:
                async for _ in subscription:
                    pass
            except lost:
                self.ends["listening: lost"] += 1
            else:
                self.ends["listening: ended"] += 1

        async with session.listen(tools_list_changed=True) as subscription:
            task = asyncio.create_task(listen())
            try:
                yield
            finally:
                await asyncio.wait([task], timeout=self._patience)


@contextlib.asynccontextmanager
async def _sdk_1(url: str) -> AsyncIterator[Any]:
    connect = importlib.import_module("mcp.client.streamable_http").streamablehttp_client
    session_class = importlib.import_module("mcp").ClientSession
    async with connect(url) as (read, write, _), session_class(read, write) as session:
        await session.initialize()
        yield session


async def main() -> None:
    url, kind, count, seconds, patience = sys.argv[1:]
    sessions = Sessions(url, kind, int(count), float(seconds), float(patience))
    await sessions.run()
    sys.stdout.write(json.dumps(sessions.ends) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
