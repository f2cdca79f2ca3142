"""An MCP server over streamable HTTP, made with the SDK that APP_SDK names.

`mcp` is the SDK that is installed, `fastmcp` the package of that name. With `.venv/mcp-1` first in
the path, `mcp` is version 1 of the SDK.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from importlib.metadata import version
from typing import Any

from graceful_asgi import GracefulMiddleware


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def work(name: str, seconds: float) -> str:
    """Work for so many seconds."""
    say(f"work began {name}")
    await asyncio.sleep(seconds)
    return f"done {name}"


def make_server() -> Any:
    """Return the server, by the example of the SDK's own documentation."""
    if os.environ["APP_SDK"] == "fastmcp":
        server = importlib.import_module("fastmcp").FastMCP("shop")
    elif version("mcp").startswith("1."):
        server = importlib.import_module("mcp.server.fastmcp").FastMCP("shop")
    else:
        server = importlib.import_module("mcp.server").MCPServer("shop")
    server.tool()(work)
    return server


def make_app() -> Any:
    server = make_server()
    make = getattr(server, "http_app", None) or server.streamable_http_app
    return make()


app = GracefulMiddleware(make_app())
