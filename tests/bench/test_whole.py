"""Each bench runs as a whole, in small: options, servers, table and page. No number is judged."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.network import make_network
from support.polling import PATIENCE, wait_until
from support.server import PACKAGE_ROOT, TESTS
from support.traffic import TrafficPlan

from graceful_asgi._check.client.plan import LoadPlan

from . import (
    contestants,
    exits,
    instructions,
    memory,
    network,
    overhead,
    page,
    scale,
    servers,
    throughput,
)
from .served import SERVERS
from .wrapped import MIDDLEWARES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., str]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they read /proc")

OURS = "`GracefulMiddleware`"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the `main` of a bench, with copies of the pages it writes."""
    for module in (page, servers, scale):
        copy = tmp_path / module.PAGE.name
        copy.write_text(module.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
        monkeypatch.setattr(module, "PAGE", copy)

    def main(bench: Any, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [bench.__name__, *arguments])
        bench.main()
        return capsys.readouterr().out

    return main


def part(path: Path, name: str) -> str:
    """Return what stands between the markers *name* of the page."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", path.read_text(), re.S)
    assert found is not None
    return found[1]


def test_exits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "LOOPS", ("asyncio",))
    monkeypatch.setattr(exits, "SERVERS", {name: SERVERS[name] for name in ("uvicorn", OURS)})
    monkeypatch.setattr(exits, "ANSWER", 0.2)
    run(exits, "--rounds", "1")
    written = part(page.PAGE, "exits")
    assert "1 rounds on " in written
    assert re.search(rf"^\| {OURS} \| asyncio \| \d+ ms .* \| 0 \|$", written, re.M)
    assert re.search(r"^\| uvicorn \| asyncio \| \d+ ms .* \| -15 \|$", written, re.M)
    assert re.search(r"^\| uvicorn, by Ctrl\+C \| asyncio \| \d+ ms .* \| 0 \|$", written, re.M)


def test_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "NAMES", (OURS,))
    run(memory, "--clients", "100")
    written = part(page.PAGE, "memory")
    assert "100 clients at once" in written
    for kind in memory.KINDS:
        assert re.search(rf"^\| {kind} \| {OURS} \| [\d,]+ \| -?[\d,.]+ \|$", written, re.M)
    # A request in flight keeps a connection and a task at least.
    (held,) = re.findall(r"a request in flight .*? \| ([\d,]+) \|", written)
    assert 2_000 < int(held.replace(",", "")) < 100_000


def test_throughput(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    monkeypatch.setattr(throughput, "FRAMEWORKS", ("FastAPI",))
    monkeypatch.setattr(throughput, "MIDDLEWARES", {"graceful": MIDDLEWARES["graceful"]})
    monkeypatch.setattr(throughput, "CONNECTIONS", (4,))
    # The other middlewares are installed for `make bench` only.
    monkeypatch.setattr(throughput, "PACKAGES", ("uvicorn", "httptools", "fastapi"))
    monkeypatch.setattr(throughput, "PLOT", tmp_path / "middlewares.svg")
    run(throughput, "--rounds", "1")
    row = r"^\| FastAPI \| .* \| [+-][\d.]+ % \| [+-][\d.]+ us \|$"
    assert re.search(row, part(page.PAGE, "throughput"), re.M)
    assert throughput.PLOT.read_text().startswith("<svg")


def test_instructions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    monkeypatch.setattr(instructions, "FRAMEWORKS", ("Starlette",))
    monkeypatch.setattr(instructions, "VARIANTS", ("plain", "graceful"))
    monkeypatch.setattr(instructions, "WARM_UP", 160)
    monkeypatch.setattr(instructions, "COLLECTIONS", (512, 64))
    run(instructions, "--requests", "160")
    written = part(page.PAGE, "instructions")
    (more,) = re.findall(r"^\| Starlette \| instructions \| .*\(\+([\d.]+) %\) \|$", written, re.M)
    assert 1 < float(more) < 20
    assert re.search(r"^\| Starlette \| garbage collections in 512 requests \| \d", written, re.M)


WITHOUT_NETWORK = """
import sys
from pathlib import Path
from bench import networkless, page
page.PAGE = Path(sys.argv.pop())
networkless.main()
"""


def test_networkless(tmp_path: Path) -> None:
    # In a process of its own: it loads this package three times.
    copy = tmp_path / "cost.md"
    copy.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    path = os.pathsep.join((str(PACKAGE_ROOT), str(TESTS)))
    command = [sys.executable, "-c", WITHOUT_NETWORK, "--blocks", "10", str(copy)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    number = r"[+-]\d+\.\d\d us \([+-].*? to [+-].*?\)"
    row = rf"^\| FastAPI \| \d+\.\d us \| {number} \| {number} \|$"
    assert "10 blocks of 10 requests" in part(copy, "networkless")
    assert re.search(row, part(copy, "networkless"), re.M)


def test_overhead(run: Run) -> None:
    printed = run(overhead, "--blocks", "1", "--rounds", "1")
    assert "WebSocket message and answer" in printed
    assert ("requests/s" if shutil.which("wrk") else "wrk is not installed") in printed


def test_servers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entrants = [each for each in contestants.python_entrants() if each.name.startswith("uvicorn")]
    chosen = [each for each in entrants if "--workers" not in each.name]
    assert len(chosen) == 2
    monkeypatch.setattr(servers, "entrants", lambda directory: chosen)
    monkeypatch.setenv("GRACEFUL_LAME_DUCK_PERIOD", "0.2")
    plan = LoadPlan(keep_alive_clients=4, fresh_clients=2, think_period=0.02)
    settings = replace(servers.SETTINGS, plan=plan, signal_after=0.3)
    monkeypatch.setattr(servers, "SETTINGS", settings)
    monkeypatch.setattr(servers, "CAPACITY", replace(servers.CAPACITY, signal_after=0.3))
    run(servers, "--rounds", "1")
    written = part(servers.PAGE, "servers")
    assert "1 rounds on " in written
    assert re.search(r"^\| uvicorn, with graceful_asgi \| \*\*0\*\* \| 0 of 1 \|", written, re.M)
    assert re.search(r"puts [1-9][\d,]* requests per second", written)


@pytest.fixture
def limits() -> Iterator[None]:
    """Undo what the bench does to its process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        gc.enable()


@pytest.mark.usefixtures("limits")
def test_scale(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "ROWS", {"WebSockets": (10,), scale.BOTH: (20,)})
    monkeypatch.setattr(scale, "LAME_DUCK", 0.3)
    monkeypatch.setattr(scale, "GRACE", 0.3)
    run(scale, "--kinds", *scale.ROWS, "--tally", str(tmp_path / "tally"))
    written = part(scale.PAGE, "scale")
    for kind, (count,) in scale.ROWS.items():
        assert re.search(rf"^\| {kind} \| {count} \| [+-]", written, re.M)
    assert len((tmp_path / "tally").read_text().splitlines()) == 2


# -- a network with a delay

SMALL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run as `command &`
from bench import network
from support.traffic import TrafficPlan
network.DELAYS, network.SERVERS, network.PLAIN = (0.0,), (("run", 2),), (("plain uvicorn", 1),)
network.PLAN = TrafficPlan(keep_alive=10, fresh=30, think=0.1)
raise SystemExit(network.main())
"""


def need_network() -> None:
    with make_network(0.0):
        pass


def test_network(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_network()
    monkeypatch.setattr(network, "DELAYS", (0.0,))
    monkeypatch.setattr(network, "SLOWEST", 0.005)
    monkeypatch.setattr(network, "SERVERS", (("run", 2),))
    monkeypatch.setattr(network, "PLAIN", (("plain uvicorn", 1),))
    monkeypatch.setattr(network, "PLAN", TrafficPlan(keep_alive=10, fresh=30, think=0.1))
    printed = run(network, "--requests", "100", "--tally", str(tmp_path / "tally"))
    assert re.search(r"^run --workers 2: lost 0 of [1-9]\d*$", printed, re.M)
    assert re.search(r"^plain uvicorn --workers 1: lost \d+ of [1-9]\d*$", printed, re.M)
    lines = (tmp_path / "tally.done").read_text().splitlines()
    # On a slow machine one stop may not count enough requests, and its server is stopped again.
    assert len({str(json.loads(line)["job"]) for line in lines}) == 3


def namespaces(pid: int) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if line.startswith(f"drain-{pid}-")]


def servers_in(namespace: str) -> list[int]:
    """Return the process ids of the servers in a namespace."""
    command = ["ip", "netns", "pids", namespace]
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = {int(pid): Path(f"/proc/{pid}/cmdline") for pid in listed.stdout.split()}
    with contextlib.suppress(OSError):  # one has ended meanwhile
        return [pid for pid, line in lines.items() if b"graceful_asgi" in line.read_bytes()]
    return []


@pytest.mark.parametrize(
    ("number", "serving"),
    [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True)],
    ids=["SIGTERM at its start", "SIGINT at its start", "SIGTERM with a server"],
)
def test_a_network_that_is_interrupted_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, serving: bool
) -> None:
    need_network()
    path = os.pathsep.join((str(PACKAGE_ROOT), str(TESTS)))
    arguments = ["--requests", "1000000", "--at-once", "1", "--tally", str(tmp_path / "tally")]
    with subprocess.Popen(
        [sys.executable, "-c", SMALL, *arguments], env={**os.environ, "PYTHONPATH": path}
    ) as bench:
        try:
            # There are exactly two only until the next network is set up.
            wait_until(lambda: len(namespaces(bench.pid)) >= 2, "there is a network")
            in_network = f"drain-{bench.pid}-1-s"
            if serving:
                wait_until(lambda: servers_in(in_network) != [], "a server runs there")
            pids = servers_in(in_network)
            bench.send_signal(number)
            # A stop that is under way is waited for, and its server has its own PATIENCE.
            assert bench.wait(3 * PATIENCE) == network.INTERRUPTED
            assert namespaces(bench.pid) == []
            # Its grandchildren are there until the system's first process has looked at them.
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all ended")
        finally:
            with contextlib.suppress(ProcessLookupError):
                bench.kill()
