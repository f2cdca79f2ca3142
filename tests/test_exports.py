"""The public names of the package, and the effects of importing it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import pkgutil

from support.command import run_python

import graceful_asgi
from graceful_asgi import errors

ERRORS = ["ClosedError", "ControlError", "GracefulError", "MisuseError", "PolicyError"]
PUBLIC = [
    *ERRORS,
    "DrainNotice",
    "DrainPolicy",
    "DrainReport",
    "DrainStatistics",
    "Drainer",
    "GracefulMiddleware",
    "Phase",
    "PhaseChange",
    "StuckWork",
    "__version__",
    "drain_notice",
]


def test_the_public_names_are_these_and_no_others() -> None:
    assert sorted(graceful_asgi.__all__) == sorted(PUBLIC)


def test_every_public_name_exists_and_is_documented() -> None:
    for name in PUBLIC:
        assert getattr(graceful_asgi, name).__doc__, name


def test_every_error_is_exported() -> None:
    """Whoever is handed one can name it."""
    defined = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.GracefulError)
    ]
    assert sorted(defined) == ERRORS


def test_the_version_is_that_of_the_distribution() -> None:
    assert graceful_asgi.__version__ == importlib.metadata.version("graceful-asgi")


def test_every_module_can_be_imported() -> None:
    for module in pkgutil.iter_modules(graceful_asgi.__path__):
        if module.name != "__main__":
            importlib.import_module(f"graceful_asgi.{module.name}")


def test_the_package_says_that_it_is_typed() -> None:
    assert importlib.resources.files(graceful_asgi).joinpath("py.typed").is_file()


def test_importing_the_package_imports_no_server_and_no_other_loop() -> None:
    ended = run_python(
        """
        import sys
        import graceful_asgi
        heavy = {"uvicorn", "uvloop", "trio", "hypercorn", "h11", "rich", "fastapi", "websockets"}
        heavy.add("prometheus_client")
        print(sorted(heavy & set(sys.modules)))
        """
    )
    assert ended.stdout == "[]\n", ended.stderr


def test_the_package_works_where_neither_starlette_nor_trio_is_installed() -> None:
    ended = run_python(
        """
        import asyncio, sys
        for name in ("starlette", "starlette.requests", "trio", "uvicorn"):
            sys.modules[name] = None
        import graceful_asgi

        drainer = graceful_asgi.Drainer(graceful_asgi.DrainPolicy())
        drainer.begin("before the loop")
        drainer.resume()

        async def app(scope, receive, send):
            assert not graceful_asgi.drain_notice(scope).draining
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def send(message):
            print(message["type"])

        scope = {"type": "http", "path": "/", "method": "GET", "headers": []}
        app = graceful_asgi.GracefulMiddleware(app, drainer=drainer)
        asyncio.run(app({**scope, "http_version": "1.1"}, None, send))
        """
    )
    assert ended.stdout == "http.response.start\nhttp.response.body\n", ended.stderr


def test_importing_the_package_starts_nothing() -> None:
    ended = run_python(
        """
        import signal, threading
        before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
        import graceful_asgi
        assert before == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
        print(threading.active_count())
        """
    )
    assert ended.stdout == "1\n", ended.stderr
