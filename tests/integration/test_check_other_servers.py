"""Servers in other languages get true verdicts: what each loses at a stop is known.

Only single requests are sent, so that no verdict hangs on the instant at which a listener closes.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.command import NO_LOAD, PROGRAMS, QUICK, SERVER, run
from support.need import need_program

from graceful_asgi.testing import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Some of these wait a minute for the rest of a head that they have begun to read.
OPTIONS = [*NO_LOAD, *QUICK, "--skip", "half a request head", "--slow-path", "/slow", "--json"]


def loses(lost: int, *options: str, command: list[str], env: dict[str, str] | None = None) -> None:
    """Assert that the slow request, the only one in flight, is lost or is not."""
    ended = run("check", *OPTIONS, *options, "--", *command, env=env)
    assert ended.code == bool(lost), ended.out + ended.err
    assert ended.server["requests"]["during"]["sent"] == 1
    assert ended.server["requests"]["total"]["lost"] == lost
    assert ended.server["requests"]["total"]["wrong"] == 0


@pytest.mark.parametrize(("how", "lost"), [("closes", 0), ("dies", 1)])
def test_node(how: str, lost: int) -> None:
    loses(lost, command=[need_program("node"), str(PROGRAMS / "server.js"), how])


# One test a language: a fixture would compile once for each process of pytest-xdist.


@pytest.mark.timeout(600)  # with an empty cache Go compiles its standard library, too
def test_go(tmp_path: Path) -> None:
    go, path = need_program("go"), tmp_path / "server"
    cache = {"GOCACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    subprocess.run(
        [go, "build", "-o", path, PROGRAMS / "go" / "main.go"],
        check=True,
        timeout=480,
        env={**os.environ, **cache},
    )
    loses(0, command=[str(path), "shuts down"])
    loses(1, command=[str(path), "dies"])


@pytest.mark.timeout(600)
def test_java(tmp_path: Path) -> None:
    """`HttpServer.stop` is what the documentation names; nothing calls it at SIGTERM by itself."""
    java, javac = need_program("java"), need_program("javac")
    subprocess.run([javac, "-d", tmp_path, PROGRAMS / "Server.java"], check=True, timeout=300)
    loses(0, command=[java, "-cp", str(tmp_path), "Server", "stops"])
    loses(1, command=[java, "-cp", str(tmp_path), "Server", "dies"])


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """The port of a server that outlives the proxies in front of it."""
    with ServerProcess([*SERVER, "serves", "{port}"]) as server:
        yield str(server.port)


@pytest.mark.parametrize(("signal", "lost"), [("QUIT", 0), ("TERM", 1)])
def test_nginx(upstream: str, tmp_path: Path, signal: str, lost: int) -> None:
    """Its SIGTERM is a fast shutdown, its SIGQUIT a graceful one."""
    nginx = need_program("nginx")
    config = (PROGRAMS / "nginx.conf").read_text()
    config = config.replace("UPSTREAM", upstream).replace("DIRECTORY", str(tmp_path))
    (tmp_path / "template").write_text(config)
    start = f"sed s/PORT/$PORT/ template > nginx.conf; exec {nginx} -p . -c nginx.conf"
    script = f"cd {shlex.quote(str(tmp_path))}; {start}"
    loses(lost, "--signal", signal, command=["sh", "-c", script])


def test_caddy(upstream: str, tmp_path: Path) -> None:
    command = [need_program("caddy"), "run", "--config", str(PROGRAMS / "Caddyfile")]
    env = {"UPSTREAM": upstream, "HOME": str(tmp_path)}
    loses(0, command=[*command, "--adapter", "caddyfile"], env=env)
