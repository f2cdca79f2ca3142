"""`graceful-asgi run`: a uvicorn server, or its workers, that drain."""
