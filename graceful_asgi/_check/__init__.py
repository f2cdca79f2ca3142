"""The load check: drive a real server, tell it to stop, count what its clients lost.

Nothing here is imported by the middleware; it needs the extra ``graceful-asgi[check]``.
"""
