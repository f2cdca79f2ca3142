"""OpenAI's own client: an answer is whole, or the client raises. It never ends with a part."""

from __future__ import annotations

import importlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from support.need import need
from support.server import uvicorn

from .drains import begins_to_drain, drains, exit_code, logs

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import TaskGroup
    from support.server import Server

pytestmark = pytest.mark.anyio

SHORT, LONG = 30, 4000
"""Tokens of an answer that takes 1.5 s, and of one that no grace period is long enough for."""
CLIENTS = 8
"""Clients for each kind of answer."""


class Client:
    """OpenAI's client, and what became of its requests."""

    def __init__(self, port: int, framework: str) -> None:
        base = "/fastapi/v1" if framework == "fastapi" else "/v1"
        self._openai: Any = importlib.import_module("openai")
        self._client = self._openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}{base}", api_key="none", max_retries=0
        )
        self._model = framework
        self.ends: Counter[str] = Counter()

    async def stream(self, name: str, count: int) -> None:
        """Read a streamed answer as the client's documentation has it."""
        text, reason = "", None
        try:
            answer = await self._ask(count, stream=True)
            async for chunk in answer:
                text += chunk.choices[0].delta.content or ""
                reason = chunk.choices[0].finish_reason
        except (self._openai.APIError, httpx_errors()) as error:
            status = getattr(error, "status_code", "")  # none, where the answer had begun
            self.ends[f"{name}: {'part, and ' if text else ''}raised {status}".strip()] += 1
            return
        self.ends[f"{name}: {ended(text, reason, count)}"] += 1

    async def whole(self, name: str, count: int) -> None:
        """Read an answer that comes in one piece."""
        try:
            answer = await self._ask(count)
        except self._openai.APIStatusError as error:
            self.ends[f"{name}: {error.status_code}"] += 1
            return
        choice = answer.choices[0]
        self.ends[f"{name}: {ended(choice.message.content, choice.finish_reason, count)}"] += 1

    async def _ask(self, count: int, **more: Any) -> Any:
        question = [{"role": "user", "content": "?"}]
        return await self._client.chat.completions.create(
            model=self._model, messages=question, max_tokens=count, **more
        )

    async def close(self) -> None:
        await self._client.close()


def ask(tasks: TaskGroup, client: Client, framework: str, name: str, count: int) -> int:
    """Ask for `CLIENTS` answers in a stream and as many in one piece; return how many it asks."""
    for _ in range(CLIENTS):
        tasks.start_soon(client.stream, name, count)
        if framework != "fastapi":  # which streams all of them
            tasks.start_soon(client.whole, f"{name}, in one piece", count)
    return CLIENTS if framework == "fastapi" else 2 * CLIENTS


def httpx_errors() -> type[Exception]:
    """Return the error of a body that is cut: the client passes that of its transport on."""
    httpx = importlib.import_module("httpx")
    error: type[Exception] = httpx.TransportError
    return error


def chat(directory: Path, loop: str, *, lame_duck: float, grace: float) -> Server:
    app = "integration.clients.programs.chat_app:app"
    return uvicorn(directory, app=app, loop=loop, lame_duck=lame_duck, grace=grace, cleanup=10)


def ended(text: str, reason: str | None, count: int) -> str:
    """Return how an answer ended for which the client raised nothing."""
    is_whole = text == "".join(f"{number} " for number in range(count)) and reason == "stop"
    return "whole" if is_whole else "PART"


@drains("framework", ["starlette", "sse-starlette", "fastapi"])
async def test_answers_that_fit_into_the_grace_period_are_whole(
    tmp_path: Path, framework: str, loop: str, round_number: int
) -> None:
    """Those in flight at the stop, and those that are asked for in the lame duck."""
    need("openai", "sse_starlette", "fastapi.sse")
    async with chat(tmp_path, loop, lame_duck=5, grace=30) as server:
        client = Client(server.port, framework)
        async with anyio.create_task_group() as tasks:
            in_flight = ask(tasks, client, framework, "early", SHORT)
            await logs(server, "answer began", in_flight)
            await begins_to_drain(server)
            for _ in range(CLIENTS):
                tasks.start_soon(client.stream, "in the lame duck", SHORT)
        await client.close()
        expected = {"early: whole": CLIENTS, "in the lame duck: whole": CLIENTS}
        if framework != "fastapi":
            expected["early, in one piece: whole"] = CLIENTS
        assert client.ends == expected
        assert await exit_code(server) == 0
        assert f"{in_flight + CLIENTS} completed, 0 closed, 0 cancelled, 0 aborted" in server.log
        assert "Traceback" not in server.log


@drains("framework", ["starlette", "sse-starlette", "fastapi"])
async def test_an_answer_that_takes_longer_raises_after_its_part_or_is_a_503(
    tmp_path: Path, framework: str, loop: str, round_number: int
) -> None:
    need("openai", "sse_starlette", "fastapi.sse")
    async with chat(tmp_path, loop, lame_duck=0.5, grace=4) as server:
        client = Client(server.port, framework)
        async with anyio.create_task_group() as tasks:
            in_flight = ask(tasks, client, framework, "long", LONG)
            await logs(server, "answer began", in_flight)
            await begins_to_drain(server)
        await client.close()
        expected = {"long: part, and raised": CLIENTS}
        if framework != "fastapi":
            expected["long, in one piece: 503"] = CLIENTS
        assert client.ends == expected
        assert await exit_code(server) == 1
        cancelled = in_flight - CLIENTS
        assert f"0 completed, 0 closed, {cancelled} cancelled, {CLIENTS} aborted" in server.log
