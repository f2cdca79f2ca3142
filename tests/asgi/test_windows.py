"""Windows: the package can be imported there, and the middleware is passive."""

from __future__ import annotations

import pytest
from support.command import run_python

WINDOWS = """
import asyncio, logging, multiprocessing, os, select, signal, socket, subprocess, sys
import anyio, anyio.to_thread, click, httptools, pytest, uvicorn, uvicorn.supervisors
import uvicorn.protocols.http.httptools_impl, uvicorn.lifespan.on, uvicorn.loops.asyncio

family, pair = socket.AF_UNIX, socket.socketpair
socket.socketpair = lambda: pair(family)  # which asyncio needs, on every platform

def remove(module, *names):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

remove(signal, "SIGQUIT", "SIGHUP", "SIGCHLD", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2")
remove(signal, "SIGKILL", "SIGALRM", "SIGPIPE", "pthread_kill", "pthread_sigmask", "setitimer")
remove(os, "geteuid", "getuid", "fork", "register_at_fork", "killpg", "getpgid", "setsid")
remove(os, "O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW", "pread", "sched_getaffinity")
remove(socket, "AF_UNIX", "SO_REUSEPORT", "TCP_INFO")
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"):
    sys.modules[name] = None
sys.platform = "win32"
"""


@pytest.mark.parametrize(
    "module",
    ["", ".prometheus", ".testing", ".__main__", "._cli.group"],
)
def test_the_package_can_be_imported(module: str) -> None:
    ended = run_python(f"{WINDOWS}\nimport graceful_asgi{module}\nprint('imported')")
    assert ended.stdout == "imported\n", ended.stderr


@pytest.mark.parametrize("command", ["run", "check", "status"])
def test_a_command_says_that_it_is_none_for_windows(command: str) -> None:
    call = f"print(main([{command!r}, 'main:app']))"
    ended = run_python(f"{WINDOWS}\nfrom graceful_asgi.__main__ import main\n{call}")
    assert ended.stdout == "2\n"
    assert ended.stderr == f"Error: `{command}` needs signals that Windows does not have\n"


@pytest.mark.parametrize("control", ["", "/some/directory"])
def test_the_middleware_is_passive_and_the_app_is_served(control: str) -> None:
    ended = run_python(
        f"{WINDOWS}\nos.environ['GRACEFUL_CONTROL_DIR'] = {control!r}\n"
        + """
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
from graceful_asgi import GracefulMiddleware

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        print("the app has ended")
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})

async def main():
    served = GracefulMiddleware(app, readiness_path="/readyz")
    config = uvicorn.Config(served, port=0, log_config=None, http="httptools", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if serving.done():
        await serving
        return
    port = server.servers[0].sockets[0].getsockname()[1]
    for path in ("/", "/readyz"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET %b HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" % path.encode())
        print(path, (await reader.readline()).decode().strip())
        writer.close()
    server.should_exit = True
    await serving

try:
    asyncio.run(main())
except SystemExit as exit:
    print("exit", exit.code)
"""
    )
    if control:  # as on any platform where the directory cannot be used
        assert "no UNIX sockets on this platform" in ended.stdout
        assert "exit 3" in ended.stdout
        return
    assert "Traceback" not in ended.stdout + ended.stderr, ended
    assert ended.stdout.count("passive, Windows is not supported") == 1
    assert "WARNING" not in ended.stdout
    assert "/ HTTP/1.1 200 OK" in ended.stdout
    assert "/readyz HTTP/1.1 200 OK" in ended.stdout
    assert "the app has ended" in ended.stdout
