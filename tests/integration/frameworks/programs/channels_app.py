"""Django with channels: HTTP as before, WebSockets in a consumer, around both the middleware."""

from __future__ import annotations

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from graceful_asgi import GracefulMiddleware

from .django_app import django


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


app = GracefulMiddleware(
    ProtocolTypeRouter(
        {"http": django, "websocket": URLRouter([path("ws", Echo.as_asgi())])},
    )
)
