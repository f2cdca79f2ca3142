"""uvicorn without its ticks, for a count of what requests cost, on a processor that is slowed down.

python -m tests.bench.tickless --port 8000
"""

from __future__ import annotations

import argparse
import asyncio

import uvicorn


class TicklessServer(uvicorn.Server):
    """A server that looks at no clock and at no flag. It serves until it is killed."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await asyncio.Event().wait()


def main() -> None:
    """Serve `tests.bench.wrapped:make` as the other benches do."""
    parser = argparse.ArgumentParser(description="uvicorn without its ticks.")
    parser.add_argument("--port", type=int, required=True)
    config = uvicorn.Config(
        "tests.bench.wrapped:make",
        factory=True,
        port=parser.parse_args().port,
        access_log=False,
        log_level="warning",
    )
    TicklessServer(config).run()  # on uvloop, where it is installed


if __name__ == "__main__":
    main()
