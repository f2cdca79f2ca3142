"""The servers of the comparison, how each is run, and why some cannot take part."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PEERS = Path(__file__).parent / "peers"
NODE_PACKAGES = ("fastify", "http-terminator")
APP = "tests.bench.peers.app"
BUILD_PERIOD = 300


@dataclass(frozen=True, slots=True)
class Entrant:
    """One line of the table."""

    name: str
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    version: str = ""
    reason: str = ""
    """The reason not to run it; empty if it runs."""


def python_entrants() -> list[Entrant]:
    """All that are written in Python: nothing has to be built for one of them."""
    return [*_uvicorn(), *_python_servers()]


def entrants(directory: Path) -> list[Entrant]:
    """All of them; what has to be built for one is built in `directory`."""
    return [*python_entrants(), *_node(directory), *_go(directory)]


def _uvicorn() -> Iterator[Entrant]:
    quiet = ("--log-level", "warning")
    uvicorn = (sys.executable, "-m", "uvicorn", *quiet, "--port", "{port}")
    gunicorn = (sys.executable, "-m", "gunicorn", *quiet, "-b", "127.0.0.1:{port}")
    worker = ("-k", "uvicorn_worker.UvicornWorker")
    for app, ours in (("plain", ""), ("graceful", ", with graceful_asgi")):
        target = f"{APP}:{app}"
        yield _python(f"uvicorn{ours}", "uvicorn", (*uvicorn, target))
        yield _python(f"uvicorn --workers 2{ours}", "uvicorn", (*uvicorn, "--workers", "2", target))
        yield _python(
            f"gunicorn, uvicorn-worker{ours}",
            "gunicorn uvicorn_worker",
            (*gunicorn, *worker, target),
        )
    run = (sys.executable, "-m", "graceful_asgi", "run", *quiet, "--port", "{port}")
    policy = (("GRACEFUL_LAME_DUCK_PERIOD", "2"),)  # as the app with the middleware has it
    yield _python(
        "graceful-asgi run --workers 2",
        "uvicorn",
        (*run, "--workers", "2", f"{APP}:plain"),
        policy,
    )


def _python_servers() -> Iterator[Entrant]:
    module, place = (sys.executable, "-m"), "127.0.0.1:{port}"
    target = f"{APP}:plain"
    yield _python(
        "gunicorn -k asgi", "gunicorn", (*module, "gunicorn", "-k", "asgi", "-b", place, target)
    )
    yield _python("hypercorn", "hypercorn", (*module, "hypercorn", "-b", place, target))
    granian = ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}")
    yield _python("granian", "granian", (*module, *granian, "--no-log", target))
    yield _python("aiohttp", "aiohttp", (*module, "tests.bench.peers.aiohttp_server", "{port}"))


def _python(
    name: str, modules: str, command: tuple[str, ...], env: tuple[tuple[str, str], ...] = ()
) -> Entrant:
    missing = [each for each in modules.split() if importlib.util.find_spec(each) is None]
    if missing:
        return Entrant(name, reason=f"{', '.join(missing)} is not installed")
    version = ", ".join(f"{each} {importlib.metadata.version(each)}" for each in modules.split())
    return Entrant(name, command, env, version)


def _node(directory: Path) -> Iterator[Entrant]:
    names = {"node": "core", "http-terminator": "http-terminator", "fastify": "fastify"}
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing = "node" if node is None else "npm"
        yield from (Entrant(name, reason=f"{missing} is not installed") for name in names)
        return
    install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(directory)]
    failure = _failure([*install, *NODE_PACKAGES])
    modules = directory / "node_modules"
    runtime = f"node {_output([node, '--version'])}"
    for name, how in names.items():
        version = runtime
        if how != "core":
            if failure:
                yield Entrant(name, reason=f"npm could not install it: {failure}")
                continue
            package = json.loads((modules / how / "package.json").read_text(encoding="utf-8"))
            version = f"{how} {package['version']}, {runtime}"
        command = (node, str(PEERS / "node.js"), how)
        yield Entrant(name, command, (("NODE_PATH", str(modules)),), version)


def _go(directory: Path) -> Iterator[Entrant]:
    name = "Go net/http"
    go = shutil.which("go")
    if go is None:
        yield Entrant(name, reason="go is not installed")
        return
    server = directory / "go-server"
    failure = _failure([go, "build", "-o", str(server), str(PEERS / "go" / "main.go")])
    if failure:
        yield Entrant(name, reason=f"go could not build it: {failure}")
        return
    yield Entrant(name, (str(server),), version=_output([go, "version"]).split()[2])


def _failure(command: list[str]) -> str:
    """Run it; the last line of what it says when it fails, else nothing."""
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    ended = run(command, capture_output=True, text=True, timeout=BUILD_PERIOD, check=False)
    if ended.returncode == 0:
        return ""
    return (ended.stderr.strip() or ended.stdout.strip() or "it said nothing").splitlines()[-1]


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
