"""The ASGI side: middleware, requests, WebSockets, health paths."""
