"""The start of a server: options that are not allowed fail it, and nothing of ours ever does."""

from __future__ import annotations

import contextlib
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from support.client import Client, get
from support.need import need
from support.polling import wait_until
from support.ports import free_port
from support.server import Server, uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

MAIN = """\
    import asyncio
    import contextlib
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from graceful_asgi import Drainer, DrainPolicy, GracefulMiddleware

    async def index(request):
        if seconds := request.query_params.get("s"):
            print("slow began", flush=True)
            await asyncio.sleep(float(seconds))
        return PlainTextResponse("here")

    @contextlib.asynccontextmanager
    async def lifespan(app):
        print("the app has started", flush=True)
        yield
        print("the app has ended", flush=True)

    app = Starlette(routes=[Route("/", index)], lifespan=lifespan)
    """
ADDED = "app.add_middleware(GracefulMiddleware{})"
WRAPPED = "app = GracefulMiddleware(app{})"


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return get(port, "/").status == 200
    return False


def program(directory: Path, *lines: str) -> str:
    """Write a program that has the middleware, and return what a server calls its app."""
    code = "\n".join([textwrap.dedent(MAIN), *lines])
    (directory / "main.py").write_text(code, encoding="utf-8")
    return "main:app"


def uvicorn_command(directory: Path, app: str, *more: str) -> Server:
    return uvicorn(directory, *more, app=app, ready=None)


def gunicorn_command(directory: Path, app: str, *more: str) -> Server:
    need("gunicorn", "uvicorn_worker")
    port = free_port()
    where = ["-b", f"127.0.0.1:{port}", "-k", "uvicorn_worker.UvicornWorker", *more]
    return Server([sys.executable, "-m", "gunicorn", *where, app], directory, port=port)


def hypercorn_command(directory: Path, app: str, *more: str) -> Server:
    need("hypercorn")
    port = free_port()
    command = [sys.executable, "-m", "hypercorn", "-b", f"127.0.0.1:{port}", *more, app]
    return Server(command, directory, port=port)


def run_command(directory: Path, app: str, *more: str) -> Server:
    return uvicorn(directory, *more, app=app, ready=None, program=("graceful_asgi", "run"))


# One of each kind: tests/asgi/test_precedence.py has what is said of every option.
FAULTS = [
    (ADDED.format(", grace_periood=20"), {}, "has no option 'grace_periood' (given: 20)"),
    (ADDED.format(', readiness_path="readyz"'), {}, "readiness_path='readyz' is not allowed"),
    (ADDED.format(", policy=DrainPolicy(), grace_period=1"), {}, "policy= and grace_period="),
    (ADDED.format(""), {"GRACEFUL_GRACE_PERIOD": "20s"}, "GRACEFUL_GRACE_PERIOD='20s' is not "),
    (ADDED.format(""), {"GRACEFUL_CONTROL_DIR": "/no/such"}, "GRACEFUL_CONTROL_DIR='/no/such'"),
    # Twice in one app: the inner one is not asked how to drain, and is looked at all the same.
    (
        f"{ADDED.format(', grace_periood=20')}\n{ADDED.format('')}",
        {},
        "has no option 'grace_periood'",
    ),
]


@pytest.mark.parametrize(("line", "environment", "said"), FAULTS)
def test_an_option_that_is_not_allowed_fails_the_start(
    tmp_path: Path, line: str, environment: dict[str, str], said: str
) -> None:
    """uvicorn takes an error for an app that has no lifespan, and would serve 500s."""
    server = uvicorn_command(tmp_path, program(tmp_path, line))
    server.env.update(environment)
    with server:
        assert server.wait(20) == 3
        assert said in server.log
        assert "Application startup failed. Exiting." in server.log
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("command", "more", "code"),
    [
        (uvicorn_command, ("--loop", "uvloop", "--lifespan", "on"), 3),
        (uvicorn_command, ("--reload",), None),
        (gunicorn_command, (), 3),
        (hypercorn_command, (), 0),  # as for any lifespan that fails
        (run_command, (), 3),
    ],
)
def test_it_does_so_whichever_way_the_server_is_started(
    tmp_path: Path, command: Any, more: tuple[str, ...], code: int | None
) -> None:
    line = ADDED.format(", grace_periood=20")
    with command(tmp_path, program(tmp_path, line), *more) as server:
        if code is None:  # the reloader waits for the file to be mended
            server.wait_for("Application startup failed")
            server.signal(signal.SIGINT)
        assert server.wait(20) == (0 if code is None else code)
        assert "has no option 'grace_periood' (given: 20)" in server.log
        assert "Application startup complete" not in server.log


@pytest.mark.parametrize(("command", "code"), [(uvicorn_command, 1), (gunicorn_command, 3)])
def test_in_code_that_runs_before_the_server_it_is_an_error_of_that_code(
    tmp_path: Path, command: Any, code: int
) -> None:
    """uvicorn and gunicorn import the app first, and end as for any error there."""
    with command(tmp_path, program(tmp_path, WRAPPED.format(", grace_periood=20"))) as server:
        assert server.wait(20) == code
        assert "has no option 'grace_periood' (given: 20)" in server.log
        assert "Application startup complete" not in server.log


def test_where_no_lifespan_can_fail_the_first_request_says_so_and_the_rest_counts(
    tmp_path: Path,
) -> None:
    line = ADDED.format(", lame_duck_period=0.2, grace_periood=20")
    server = uvicorn(
        tmp_path, "--lifespan", "off", app=program(tmp_path, line), lame_duck=0.3, grace=5
    )
    server.env["GRACEFUL_CANCEL_PERIOD"] = "x"
    with server:
        for _ in range(3):
            assert get(server.port, "/").status == 200
        with Client(server.port) as slow:
            slow.request("/?s=1")
            server.terminate()
            assert slow.response().status == 200
        assert server.wait(20) == 0
        assert server.count("ERROR") == 2
        assert "has no option 'grace_periood' (given: 20)" in server.log
        assert "GRACEFUL_CANCEL_PERIOD='x' is not allowed" in server.log
        assert "lame duck 0.3 s, grace 5 s, cancel 2 s, cleanup 1.5 s" in server.log


# Who wins


@pytest.mark.parametrize("command", [uvicorn_command, gunicorn_command, run_command])
def test_the_environment_wins_over_code_everywhere_and_the_log_says_who_gave_what(
    tmp_path: Path, command: Any
) -> None:
    """A field in code must not switch off what the operator says of the others."""
    line = ADDED.format(', policy=DrainPolicy(websockets="finish", grace_period=1)')
    server = command(tmp_path, program(tmp_path, line))
    server.env.update({"GRACEFUL_GRACE_PERIOD": "90", "GRACEFUL_TERMINATION_GRACE_PERIOD": "30"})
    server.env["GRACEFUL_READINESS_PATH"] = "/readyz"
    with server:
        server.wait_for("the app has started")
        server.wait_for("hooked")
        server.signal(signal.SIGINT)
        assert server.wait(20) == 0
        (hooked,) = [row for row in server.log.splitlines() if "hooked" in row]
        assert "lame duck 0.5 s, grace 90 s" in hooked
        for origin in (
            "grace_period=90.0 (GRACEFUL_GRACE_PERIOD)",
            "websockets='finish' (code)",
            "termination_grace_period=30.0 (GRACEFUL_TERMINATION_GRACE_PERIOD)",
            "readiness_path='/readyz' (GRACEFUL_READINESS_PATH)",
        ):
            assert origin in hooked
        assert "termination_grace_period is 30 s" in server.log


@pytest.mark.parametrize("more", [(), ("--workers", "2"), ("--lifespan", "off")])
def test_the_command_line_wins_over_the_environment(tmp_path: Path, more: Any) -> None:
    line = ADDED.format(", cancel_period=0.1, grace_period=1")
    given = ("--grace-period", "7", "--liveness-path", "/livez", *more)
    server = run_command(tmp_path, program(tmp_path, line), *given)
    server.env.update({"GRACEFUL_GRACE_PERIOD": "90", "GRACEFUL_LIVENESS_PATH": "/alive"})
    with server:
        server.wait_for("hooked")
        wait_until(lambda: answers(server.port), "an answer")
        assert get(server.port, "/livez").body == b"alive"
        server.signal(signal.SIGINT)
        assert server.wait(20) == 0
        assert "grace 7 s" in server.log
        assert "grace_period=7.0 (--grace-period)" in server.log
        assert "liveness_path='/livez' (--liveness-path)" in server.log


# Nothing of ours costs the app its start


NOT_TO_BE_FOUND = """
class Hostile:
    @property
    def __class__(self):
        raise LookupError("an error of theirs")

    async def wait(self):
        await asyncio.sleep(3600)

tasks = []

class Odd(uvicorn.Server):
    async def serve(self, sockets=None):
        tasks.append(asyncio.ensure_future(Hostile().wait()))
        await asyncio.sleep(0)
        await super().serve(sockets)
"""
NOT_TO_BE_HOOKED = """
class Odd(uvicorn.Server):
    def __setattr__(self, name, value):
        if name == "_captured_signals" and name in vars(self):
            raise LookupError("an error of theirs")
        super().__setattr__(name, value)
"""
SERVES = """
import uvicorn
{}
{}

if __name__ == "__main__":
    port, lifespan = sys.argv[1:]
    Odd(uvicorn.Config(app, port=int(port), lifespan=lifespan)).run()
"""


@pytest.mark.parametrize("odd", [NOT_TO_BE_FOUND, NOT_TO_BE_HOOKED])
@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_an_error_in_finding_or_hooking_leaves_the_app_and_its_server_as_they_are(
    tmp_path: Path, odd: str, lifespan: str, beside: ThreadPoolExecutor
) -> None:
    """Also a server that is hooked by half: it would stop by something that does not work."""
    program(tmp_path, "import sys", SERVES.format(odd, ADDED.format("")))
    port = free_port()
    command = [sys.executable, "main.py", str(port), lifespan]
    with Server(command, tmp_path, port=port, ready="Uvicorn running on") as server:
        assert get(server.port, "/").status == 200
        slow = beside.submit(get, server.port, "/?s=1")
        server.wait_for("slow began")
        server.signal(signal.SIGTERM)
        assert slow.result().status == 200
        assert server.wait(20) == -signal.SIGTERM, "as on plain uvicorn"
        assert server.count("LookupError: an error of theirs") == 1
        assert server.count("the server cannot be hooked") == 1
        assert "(should_exit)" not in server.log, "its own shutdown() is not ours"
        assert server.count("the app has started") == (lifespan == "on")
        assert server.count("the app has ended") == (lifespan == "on")


# The event loop is never blocked


BLOCKBUSTER = """
from blockbuster import BlockBuster
BlockBuster().activate()
"""


@pytest.mark.parametrize(
    ("command", "more", "environment"),
    [
        (uvicorn_command, (), {}),
        (uvicorn_command, ("--loop", "uvloop", "--lifespan", "off"), {}),
        (
            uvicorn_command,
            (),
            {
                "GRACEFUL_CONTROL_DIR": "control",
                "NOTIFY_SOCKET": "/no/such/socket",
                "GRACEFUL_DRAIN_ON_UNHANDLED_EXCEPTION": "1",
            },
        ),
        (run_command, ("--workers", "2"), {"GRACEFUL_CONTROL_DIR": "control"}),
        (run_command, (), {"GRACEFUL_CONTROL_DIR": "control"}),
        (hypercorn_command, (), {"GRACEFUL_CONTROL_DIR": "control"}),
    ],
)
def test_nothing_blocks_the_event_loop_from_the_start_to_the_end(
    tmp_path: Path,
    command: Any,
    more: tuple[str, ...],
    environment: dict[str, str],
    beside: ThreadPoolExecutor,
) -> None:
    """BlockBuster, which LangGraph's server has on, raises where something does."""
    need("blockbuster")
    paths = ', readiness_path="/readyz", drain_path="/drain", drain_token="0123456789abcdef"'
    app = program(tmp_path, BLOCKBUSTER, ADDED.format(paths))
    server = command(tmp_path, app, *more)
    server.env.update(environment)
    with server:
        server.wait_for("the app has started|Uvicorn running on")
        wait_until(lambda: answers(server.port), "an answer")
        assert get(server.port, "/readyz").status == 200
        slow = beside.submit(get, server.port, "/?s=0.5")
        server.wait_for("slow began")
        server.signal(signal.SIGTERM)
        assert slow.result().status == 200
        assert server.wait(20) == 0
        assert "Blocking" not in server.log
        assert "Traceback" not in server.log
    assert not list(tmp_path.glob("control/*"))
