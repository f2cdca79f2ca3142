"""Django without channels: async and sync views, a sync middleware, a session, a database."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from graceful_asgi import GracefulMiddleware

from . import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def sync_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Return a middleware of the old kind: each async view is called from a thread."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return get_response(request)

    return middleware


settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": "rows.sqlite3",
            # A second transaction waits for the first, and does not fail at once.
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
        }
    },
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        f"{__name__}.sync_middleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of the tests, of no use elsewhere",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)


async def root(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


async def slow(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(float(request.GET.get("s", "1")))
    return HttpResponse("slow")


def sync_slow(request: HttpRequest) -> HttpResponse:
    """Write a row in a transaction that lasts, in a thread."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("create table if not exists visits (at real)")
        cursor.execute("insert into visits values (%s)", [time.time()])
        time.sleep(float(request.GET.get("s", "1")))
    return HttpResponse("slow")


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        with ledger.entry("stream"):
            for number in range(10):
                await asyncio.sleep(0.1)
                yield f"{number}\n"

    return StreamingHttpResponse(parts())


urlpatterns = [
    path("", root),
    path("slow", slow),
    path("sync", sync_slow),
    path("stream", stream),
]
django = get_asgi_application()
app = GracefulMiddleware(django)
