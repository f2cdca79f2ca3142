"""Status, drain and resume of real servers with workers, by the command line and by the socket."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.client import Client, get
from support.command import Ended, environment, run, started
from support.need import need
from support.polling import PATIENCE, wait_until
from support.ports import free_port
from support.server import PACKAGE_ROOT, Server, uvicorn

from .endpoint import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

WORKERS = 4
PONG_PERIOD = 20
"""Seconds that uvicorn's parent waits for a worker's answer. Its default is 5: on a slow machine it
would kill a worker that a test has frozen."""
PATIENT_PARENT = ("--timeout-worker-healthcheck", str(PONG_PERIOD))
STARTED = "Application startup complete"
NOBODY = 65534


def command(name: str, directory: Path, *arguments: str) -> Ended:
    return run(name, "--control-dir", str(directory), *arguments)


def processes(directory: Path, *arguments: str) -> list[dict[str, Any]]:
    """Return what `status --json` says."""
    ended = command("status", directory, "--json", *arguments)
    assert ended.code == 0, ended.err
    found: list[dict[str, Any]] = ended.report["processes"]
    return found


def phases(directory: Path, *arguments: str) -> list[str]:
    return [each["phase"] for each in processes(directory, *arguments)]


def readiness(server: Server) -> set[int]:
    """Return what readiness says, on many connections: whichever worker gets them."""
    return {get(server.port, "/readyz").status for _ in range(20)}


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A place that other users can reach: pytest closes its own, at the start of each run."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made) / "sockets"


@pytest.fixture(scope="module")
def server(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with four workers, for all tests that leave it as it was."""
    with uvicorn(
        tmp_path_factory.mktemp("server"),
        "--workers",
        str(WORKERS),
        *PATIENT_PARENT,
        env={"GRACEFUL_CONTROL_DIR": str(directory)},
        lame_duck=0.3,
        grace=10,
    ) as running:
        running.wait_for_workers(WORKERS)
        yield running


def test_status_shows_every_worker(server: Server, directory: Path) -> None:
    found = processes(directory)
    assert [each["phase"] for each in found] == ["serving"] * WORKERS
    assert {each["server"] for each in found} == {server.pid}
    assert all(f"Started server process [{each['pid']}]" in server.log for each in found)
    lines = command("status", directory).out.splitlines()
    assert lines == [
        f"server {server.pid}, process {each['pid']}: serving, 0 in flight" for each in found
    ]


def test_drain_drains_every_worker_and_resume_brings_all_back(
    server: Server, directory: Path, beside: ThreadPoolExecutor
) -> None:
    path = f"/slow?s=1.5&name={time.monotonic_ns()}"  # no other run of this test has the name
    slow = [beside.submit(get, server.port, path) for _ in range(6)]
    server.wait_for(f"slow began {path.rpartition('=')[2]}", count=6)
    ended = command("drain", directory)
    assert server.count(f'"GET {path} HTTP/1.1" 200') == 6, "it returns when they are drained"
    assert {each.result().status for each in slow} == {200}
    assert ended.code == 0, ended.err
    assert ended.out.count(": drained\n") == WORKERS
    assert "\x1b" not in ended.out
    found = processes(directory)
    assert [(each["phase"], each["drained"]) for each in found] == [("lame duck", True)] * WORKERS
    assert readiness(server) == {503}
    ended = command("resume", directory)
    assert (ended.code, ended.out.count(": serving again\n")) == (0, WORKERS)
    assert phases(directory) == ["serving"] * WORKERS
    assert readiness(server) == {200}


def nobody_reads() -> int:
    """Return the writing end of a pipe whose reading end is closed."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full device")
@pytest.mark.parametrize("output", ["full", "closed", "unread"])
def test_an_output_that_cannot_be_written_changes_nothing(
    server: Server, directory: Path, output: str
) -> None:
    """A drain is waited for all the same, and the exit code tells what has become of it."""
    for name, phase in (("drain", "lame duck"), ("resume", "serving")):
        call = [sys.executable, "-m", "graceful_asgi", name, "--control-dir", str(directory)]
        if output == "closed":
            call = ["sh", "-c", 'exec "$@" >&-', "sh", *call]
        fd = nobody_reads() if output == "unread" else os.open("/dev/full", os.O_WRONLY)
        try:
            ended = subprocess.run(
                call, stdout=fd, stderr=subprocess.PIPE, check=False, env=environment(), timeout=60
            )
        finally:
            os.close(fd)
        assert (ended.returncode, ended.stderr) == (0, b"")
        found = processes(directory)
        assert [each["phase"] for each in found] == [phase] * WORKERS
        assert all(each["drained"] for each in found) == (name == "drain")


def test_a_drain_from_the_command_line_undoes_itself(server: Server, directory: Path) -> None:
    began = time.monotonic()
    assert command("drain", directory, "--resume-after", "5").code == 0
    seen = readiness(server)
    # A slow machine may have come to the undoing.
    assert seen == {503} or time.monotonic() - began >= 5
    wait_until(lambda: readiness(server) == {200}, "all serve again")
    assert time.monotonic() - began >= 5


def test_a_blocked_loop_still_answers(
    server: Server, directory: Path, beside: ThreadPoolExecutor, tmp_path: Path
) -> None:
    enough, began = tmp_path / "enough", server.count("block began")
    blocked = beside.submit(get, server.port, f"/block?over={enough}")
    try:
        server.wait_for("block began", count=began + 1)
        [oldest] = [each["oldest"] for each in processes(directory) if each["oldest"]]
    finally:
        enough.touch()
    assert oldest["path"] == "/block"
    assert "app.py" in oldest["where"]
    assert blocked.result().status == 200


def test_two_servers_in_one_directory_are_told_apart(
    server: Server, directory: Path, tmp_path: Path
) -> None:
    env = {"GRACEFUL_CONTROL_DIR": str(directory)}
    with uvicorn(tmp_path, env=env, ready="Uvicorn running on", lame_duck=0.2) as other:
        pids = sorted((server.pid, other.pid))
        for name in ("drain", "resume"):
            ended = command(name, directory)
            assert ended.code == 2
            assert f"say which by --server: {pids[0]}, {pids[1]}" in ended.err
        assert phases(directory) == ["serving"] * (WORKERS + 1)
        assert command("drain", directory, "--server", str(other.pid)).code == 0
        assert phases(directory, "--server", str(other.pid)) == ["lame duck"]
        assert phases(directory, "--server", str(server.pid)) == ["serving"] * WORKERS
        other.signal(signal.SIGTERM)
        assert other.wait() == 0
    assert len(os.listdir(directory)) == WORKERS, "it takes its socket away"


def test_the_socket_of_a_killed_worker_is_taken_away(server: Server, directory: Path) -> None:
    victim, started = processes(directory)[0]["pid"], server.count(STARTED)
    os.kill(victim, signal.SIGKILL)
    # The parent asks each worker twice a second whether it lives. It waits for the answer of one
    # that is killed in between, because no end of file tells it.
    server.wait_for(STARTED, count=started + 1, within=PONG_PERIOD + PATIENCE)
    left = [each["pid"] for each in processes(directory)]
    assert victim not in left
    assert len(left) == WORKERS
    assert len(os.listdir(directory)) == WORKERS


def test_the_workers_of_gunicorn_belong_to_its_arbiter(tmp_path: Path) -> None:
    need("gunicorn", "uvicorn_worker")
    port, sockets = free_port(), tmp_path / "sockets"
    command = [sys.executable, "-m", "gunicorn", "e2e.endpoint:app", "-w", "2"]
    with Server(
        [*command, "-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port}"],
        tmp_path,
        port=port,
        env={"GRACEFUL_CONTROL_DIR": str(sockets)},
        periods={"lame_duck": 0.1},
    ) as server:
        server.wait_for(STARTED, count=2)
        assert {each["server"] for each in processes(sockets)} == {server.pid}
        assert drain_by_http(port) == (200, "clean")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.count("lame duck (drain endpoint)") == 2
    assert os.listdir(sockets) == []


def malformed(number: int) -> bytes:
    lines = (
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"v": 1, "command": "drain", "wait": 1}\n',
        b"[" * 2000 + b"\n",
        os.urandom(100) + b"\n",
        b"x" * 5000,
        b'{"v": 9, "command": "drain"}\n',
        b'{"v": 1, "command": "dr',
    )
    return lines[number % len(lines)]


def test_a_thousand_malformed_control_messages_leave_it_serving(
    server: Server, directory: Path
) -> None:
    sockets = [directory / name for name in sorted(os.listdir(directory))]
    for number in range(1000):
        here, data = sockets[number % len(sockets)], malformed(number)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.connect(str(here))
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            assert b'"reply":"error"' in peer.recv(4096), data
    assert phases(directory) == ["serving"] * WORKERS
    assert get(server.port, "/").status == 200
    assert "Traceback" not in server.log


def probe(number: int) -> tuple[bytes, tuple[int, ...]]:
    """Return a request that no platform sends, and what may be the answer; 0 is none."""
    good = f"Bearer {TOKEN}".encode()
    head = b"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n"
    return (
        (head % (b"GET", b"/drain", b""), (401,)),
        (
            head % (b"POST", b"/drain", b"Authorization: Bearer wrong\r\nContent-Length: 0\r\n"),
            (401,),
        ),
        (head % (b"DELETE", b"/drain", b"Authorization: %s\r\n" % good), (405,)),
        (head % (b"GET", b"/drain", b"Authorization: " + b"x" * 5000 + b"\r\n"), (401, 400, 431)),
        (head % (b"GET", b"/drain", b"Authorization: Bearer \xff\xfe\r\n"), (401, 400)),
        (head % (b"GET", b"/drain%00", b"Authorization: %s\r\n" % good), (404,)),
        (head % (b"PURGE", b"/readyz?" + b"a" * 3000, b""), (200, 400)),
        (b"\x16\x03\x01" + os.urandom(50) + b"\r\n\r\n", (400,)),
        (head % (b"GET", b"/livez", b"Content-Length: -1\r\n"), (400,)),
        (b"GET /drain HTTP/1.1\r\nAuthoriz", (0, 400)),
    )[number % 10]


def test_a_thousand_malformed_probe_requests_leave_it_serving(tmp_path: Path) -> None:
    with uvicorn(
        tmp_path, "--no-access-log", app="e2e.endpoint:app", ready="Uvicorn running on"
    ) as server:
        for number in range(1000):
            data, expected = probe(number)
            with Client(server.port) as client:
                client.send(data)
                client.socket.shutdown(socket.SHUT_WR)
                with client.socket.makefile("rb") as received:
                    answer = received.read()
            status = int(answer.split()[1]) if answer else 0
            assert status in expected, (data[:200], answer[:200])
        assert get(server.port, "/readyz").status == 200
        assert server.count("lame duck (") == 0
        assert server.count("Traceback") == 0


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code and what it has shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "graceful_asgi", *arguments],
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm", COLUMNS="120"),
    )
    os.close(theirs)
    shown = b""
    try:
        with contextlib.suppress(OSError):  # EIO: the other end has been closed
            while data := os.read(ours, 65536):
                shown += data
        return process.wait(10), shown.decode()
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def test_a_terminal_gets_bars_and_a_table(server: Server, directory: Path) -> None:
    where = ("--control-dir", str(directory))
    code, shown = on_a_terminal("drain", *where)
    assert code == 0
    assert "\u2501" in shown
    assert "drained" in shown
    code, shown = on_a_terminal("status", *where)
    assert code == 0
    assert all(name in shown for name in ("in flight", "oldest request", "waiting for a stop"))
    assert command("resume", directory).code == 0


@pytest.mark.parametrize("as_json", [True, False])
def test_watch_goes_on_until_it_is_interrupted(
    server: Server, directory: Path, as_json: bool
) -> None:
    arguments = ["status", "--control-dir", str(directory), "--watch"]
    with started(*arguments, *(["--json"] if as_json else [])) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2 if as_json else 2 * WORKERS)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    if as_json:
        assert [len(json.loads(line)["processes"]) for line in lines] == [WORKERS, WORKERS]
    else:
        assert all("serving, 0 in flight" in line for line in lines)


def test_a_process_that_does_not_answer_is_shown_and_holds_up_no_other(
    server: Server, directory: Path
) -> None:
    frozen = processes(directory)[0]["pid"]
    os.kill(frozen, signal.SIGSTOP)
    try:
        ended = command("status", directory, "--json")
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert ended.code == 1
    found = {each["pid"]: each for each in ended.report["processes"]}
    silent = found.pop(frozen)
    assert (silent["phase"], silent["error"]) == (None, "does not answer")
    assert [each["phase"] for each in found.values()] == ["serving"] * (WORKERS - 1)


# Another user

# Everything is imported first: that user may have no way into where Python and the package are.
AS_NOBODY = f"""
import json, os, socket, sys
sys.path[:0] = [{str(PACKAGE_ROOT)!r}]
import anyio._backends._asyncio
import graceful_asgi._cli.drain, graceful_asgi._cli.resume, graceful_asgi._cli.status
from graceful_asgi.__main__ import main
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
"""

TALK = """
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
try:
    peer.sendall(b'{"v": 1, "command": "drain"}\\n')
except BrokenPipeError:
    pass  # it has been refused before it could ask
print(peer.makefile().readline())
"""

CALL = """
sys.exit(main(sys.argv[1:]))
"""


def as_nobody(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY + source, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd="/",
        env=environment(),
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_by_the_directory_and_by_who_it_is(
    server: Server, tmp_path_factory: pytest.TempPathFactory, directory: Path
) -> None:
    with ExitStack() as opened:
        for parent in directory.parents:
            if parent.stat().st_uid == os.geteuid() and len(parent.parts) > 2:
                mode = parent.stat().st_mode & 0o777
                parent.chmod(mode | 0o011)
                opened.callback(parent.chmod, mode)
        for name in ("status", "drain", "resume"):
            ended = as_nobody(CALL, name, "--control-dir", str(directory))
            assert ended.returncode == 2, ended
            assert "Permission denied" in ended.stderr
        path = directory / sorted(os.listdir(directory))[0]
        assert "PermissionError" in as_nobody(TALK, str(path)).stderr
        directory.chmod(0o711)
        opened.callback(directory.chmod, 0o700)
        path.chmod(0o666)
        talked = as_nobody(TALK, str(path))
        assert talked.stdout, talked
        said = json.loads(talked.stdout)
        assert said["reply"] == "error"
        assert "the server's own user" in said["error"]
    assert phases(directory) == ["serving"] * WORKERS


# What cannot work


def test_a_directory_that_others_can_enter_makes_startup_fail(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    env = {"GRACEFUL_CONTROL_DIR": str(tmp_path / "open")}
    with uvicorn(tmp_path, env=env, ready=None) as server:
        assert server.wait(10) == 3
        assert f"GRACEFUL_CONTROL_DIR='{tmp_path}/open' is not allowed" in server.log
        assert "closed to group and others (mode 0700)" in server.log
        assert "Application startup failed" in server.log


@pytest.mark.parametrize("name", ["status", "drain", "resume"])
def test_where_nobody_is_there_is_nobody_to_ask(tmp_path: Path, name: str) -> None:
    ended = command(name, tmp_path / "missing")
    assert ended.code == 2
    assert "No such file or directory" in ended.err
    (tmp_path / "empty").mkdir(mode=0o700)
    ended = command(name, tmp_path / "empty")
    assert ended.code == 2
    assert "no server has a control socket there" in ended.err


def test_without_a_directory_the_option_and_the_variable_are_named() -> None:
    ended = run("status")
    assert ended.code == 2
    assert "--control-dir" in ended.err
    assert "GRACEFUL_CONTROL_DIR" in ended.err


# The drain endpoint, with workers that find each other by themselves


def drain_by_http(port: int) -> tuple[int, str]:
    with Client(port) as client:
        client.send(
            f"GET /drain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        answer = client.response()
    return answer.status, answer.body.decode()


def test_the_drain_endpoint_drains_all_workers_and_undoes_itself_in_all(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "GRACEFUL_TERMINATION_GRACE_PERIOD": "5"}
    with (
        uvicorn(
            tmp_path, "--workers", "4", app="e2e.endpoint:app", env=env, lame_duck=0.3, grace=10
        ) as server,
        uvicorn(tmp_path, "--workers", "2", app="e2e.endpoint:app", env=env) as stranger,
    ):
        server.wait_for_workers(4)
        stranger.wait_for_workers(2)
        slow = [beside.submit(get, server.port, "/slow?s=1") for _ in range(6)]
        server.wait_for("slow began", count=6)
        began = time.monotonic()
        first, second = (beside.submit(drain_by_http, server.port) for _ in range(2))
        assert (first.result(), second.result()) == ((200, "clean"), (200, "clean"))
        answered = server.log.partition('"GET /drain')[0]
        assert answered.count('"GET /slow?s=1 HTTP/1.1" 200') == len(slow)
        assert {each.result().status for each in slow} == {200}
        seen = readiness(server)
        # A slow machine may have come to the undoing.
        assert seen == {503} or time.monotonic() - began >= 5
        wait_until(lambda: readiness(server) == {200}, "all serve again")
        assert time.monotonic() - began >= 5
        server.wait_for("the drain is undone", count=4)
        for line in ("lame duck (drain endpoint)", "the drain is undone"):
            assert server.count(line) == 4
        assert stranger.count("lame duck (drain endpoint)") == 0


def test_a_worker_that_does_not_answer_is_named_by_the_endpoint(tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with uvicorn(
        tmp_path,
        *("--workers", "2", *PATIENT_PARENT),
        app="e2e.endpoint:app",
        env=env,
        lame_duck=0.1,
        grace=0.5,
    ) as server:
        server.wait_for_workers(2)
        names = os.listdir(tmp_path / "graceful-asgi")
        frozen = int(sorted(names)[0].split("-")[1])
        os.kill(frozen, signal.SIGSTOP)
        try:
            status, text = drain_by_http(server.port)
        finally:
            os.kill(frozen, signal.SIGCONT)
        assert (status, text) == (503, f"process {frozen}: does not answer")
