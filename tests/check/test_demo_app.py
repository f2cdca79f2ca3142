"""The demo's app does what the demo says it does."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette

from graceful_asgi._check import demo_app

pytestmark = pytest.mark.anyio


async def get(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=demo_app.make_app(graceful=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:
        return await client.get(path)


async def test_it_answers_at_once_slowly_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_app, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(demo_app, "STREAM_INTERVAL", 0.0)
    assert (await get("/")).text == "hello\n"
    assert (await get("/slow")).text == "slow, but complete\n"
    assert len((await get("/stream")).text.splitlines()) == demo_app.STREAM_CHUNKS


def test_both_apps_are_made_when_asked_for_by_name() -> None:
    plain, graceful = (getattr(demo_app, name) for name in ("plain", "graceful"))
    assert isinstance(plain, Starlette)
    assert plain.user_middleware == []
    assert len(graceful.user_middleware) == 1


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = demo_app.nonsense
