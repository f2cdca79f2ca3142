"""A server of chat completions, as OpenAI's API has them: whole, or as an event stream.

An answer has as many tokens as the request allows, one every 50 ms. The model `sse-starlette` is
streamed with that package, the others with Starlette. Below `/fastapi` FastAPI streams all of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse as FastAPIEventSourceResponse
from fastapi.sse import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.responses import Response  # noqa: TC002  # FastAPI reads the annotation

from graceful_asgi import GracefulMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOKEN_PERIOD = 0.05

app = FastAPI()
app.add_middleware(GracefulMiddleware)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def chunk(model: str, text: str | None) -> str:
    """Return the data of an event; without a text, of the last one."""
    return json.dumps(
        {
            "id": "chat",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "delta": {} if text is None else {"content": text},
                    "finish_reason": "stop" if text is None else None,
                }
            ],
        }
    )


async def chunks(model: str, count: int) -> AsyncIterator[str]:
    for number in range(count):
        await asyncio.sleep(TOKEN_PERIOD)
        yield chunk(model, f"{number} ")
        if number == 2:
            say("answer began")
    yield chunk(model, None)
    yield "[DONE]"


@app.post("/v1/chat/completions")
async def complete(request: Request) -> Response:
    asked: dict[str, Any] = await request.json()
    model, count = str(asked["model"]), int(asked["max_tokens"])
    if not asked.get("stream"):
        say("answer began")
        await asyncio.sleep(count * TOKEN_PERIOD)
        text = "".join(f"{number} " for number in range(count))
        return JSONResponse(
            {
                "id": "chat",
                "object": "chat.completion",
                "created": 0,
                "model": model,
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": "stop",
                    }
                ],
            }
        )
    if model == "sse-starlette":
        return EventSourceResponse(chunks(model, count))
    return StreamingResponse(
        (f"data: {data}\n\n" async for data in chunks(model, count)),
        media_type="text/event-stream",
    )


@app.post("/fastapi/v1/chat/completions", response_class=FastAPIEventSourceResponse)
async def stream(asked: dict[str, Any]) -> AsyncIterator[ServerSentEvent]:
    async for data in chunks(str(asked["model"]), int(asked["max_tokens"])):
        yield ServerSentEvent(raw_data=data)
