"""Strawberry: a query, and a subscription over a WebSocket that never ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator  # noqa: TC003  # strawberry reads it
from typing import TYPE_CHECKING

import strawberry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from strawberry.asgi import GraphQL

from graceful_asgi import GracefulMiddleware

if TYPE_CHECKING:
    from starlette.requests import Request


@strawberry.type
class Query:
    @strawberry.field
    async def hello(self, seconds: float = 0.0) -> str:
        await asyncio.sleep(seconds)
        return "hello"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self) -> AsyncGenerator[int, None]:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.05)


async def root(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def slow(request: Request) -> PlainTextResponse:
    result = await schema.execute("{ hello(seconds: 1) }")
    return PlainTextResponse(str(result.data))


schema = strawberry.Schema(Query, subscription=Subscription)
graphql: GraphQL[None, None] = GraphQL(schema)
app = Starlette(
    routes=[
        Route("/", root),
        Route("/slow", slow),
        Route("/graphql", graphql),
        WebSocketRoute("/graphql", graphql),
    ]
)
app.add_middleware(GracefulMiddleware)
