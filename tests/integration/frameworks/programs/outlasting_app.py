"""Endpoints in threads, which nobody can cancel: behind a Starlette middleware, and in Django.

`fastapi_app` and `django_app` answer `/report?s=...` after so many seconds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from e2e.app import say
from fastapi import FastAPI

from graceful_asgi import GracefulMiddleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response


fastapi_app = FastAPI()


@fastapi_app.get("/report")
def report(s: float) -> str:
    say("report began")
    time.sleep(s)
    return "done"


@fastapi_app.middleware("http")
async def timing(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


fastapi_app.add_middleware(GracefulMiddleware)


def make_django_app() -> Any:
    """Return a Django project of one module, with the middleware around it."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def view(request: HttpRequest) -> HttpResponse:
        say("report began")
        time.sleep(float(request.GET["s"]))
        return HttpResponse("done")

    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF=(path("report", view),), SECRET_KEY="x" * 50
    )
    return GracefulMiddleware(get_asgi_application())
