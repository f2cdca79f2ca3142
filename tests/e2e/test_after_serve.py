"""The end of a server as its program sees it, beside the same program on plain uvicorn."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from support.client import Client, get
from support.ports import free_port
from support.server import Server

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

ON_UVLOOP = ("uvicorn_run", "gather")
"""Done by asyncio and uvloop each in its own way: `Runner`, and an exit out of a callback."""
with_task_group = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio.TaskGroup came with 3.11"
)
SAID = ("finally", "interrupted", "after", "bot ends", "outer lifespan", "orderly", "atexit")


def program(directory: Path, name: str, loop: str = "asyncio", **more: float | str) -> Server:
    port = free_port()
    env = {"APP_LOOP": loop, **{k: str(v) for k, v in more.items() if k.startswith("APP_")}}
    periods = {k: float(v) for k, v in more.items() if not k.startswith("APP_")}
    command = [sys.executable, "-m", "e2e.after_serve", name, str(port)]
    return Server(
        command,
        directory,
        port=port,
        env=env,
        ready="Uvicorn running on",
        periods={"lame_duck": 0.1, "grace": 5, "cleanup": 5, **periods},
    )


def said(server: Server) -> list[str]:
    return [line for line in server.log.splitlines() if line.startswith(SAID)]


def on_loops(*names: str) -> pytest.MarkDecorator:
    """Parametrise a test with programs, each on asyncio, and some on uvloop."""
    pairs = [(name, "asyncio") for name in names]
    pairs += [(name, "uvloop") for name in names if name in ON_UVLOOP]
    marks = {"task_group": with_task_group}
    params = [pytest.param(name, loop, marks=marks.get(name, ())) for name, loop in pairs]
    return pytest.mark.parametrize(("name", "loop"), params)


ENDS_BY_ITSELF = {
    "uvicorn_run": ["finally", "after uvicorn.run()", "atexit"],
    "server_run": ["after server.run()", "atexit"],
    "serve": ["finally", "after serve()", "after the loop", "atexit"],
    "serve_and_work": ["after serve()", "after the loop", "atexit"],
    "outer_lifespan": ["outer lifespan closed", "after the loop", "atexit"],
    "awaited_task": ["after the task", "after the loop", "atexit"],
    "wait_first": ["after the first", "bot ends", "orderly end", "after the loop", "atexit"],
}


@on_loops(*ENDS_BY_ITSELF)
def test_after_a_clean_drain_by_sigterm_a_program_goes_on_to_its_end(
    tmp_path: Path, name: str, loop: str
) -> None:
    with program(tmp_path, name, loop) as server:
        server.terminate()
        assert server.wait() == 0
        assert said(server) == ENDS_BY_ITSELF[name]
        assert "never retrieved" not in server.log
        assert "Traceback" not in server.log


@on_loops("gather", "task_group")
def test_a_program_that_would_wait_for_ever_is_ended_in_order(
    tmp_path: Path, name: str, loop: str
) -> None:
    """SIGTERM ends it on plain uvicorn. Here its tasks get to clean up."""
    with program(tmp_path, name, loop, cleanup=20) as server:
        server.terminate()
        assert server.wait(10) == 0
        assert said(server) == ["bot ends", "atexit"]
        assert "never retrieved" not in server.log
        assert "was destroyed" not in server.log
        assert "Traceback" not in server.log


def test_a_loop_that_runs_for_ever_is_ended_in_order(tmp_path: Path) -> None:
    with program(tmp_path, "run_for_ever", cleanup=20) as server:
        server.terminate()
        assert server.wait(10) == 0
        assert said(server) == ["bot ends", "atexit"]
        assert "Traceback" not in server.log


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sigterm_ends_a_program_that_starts_its_server_over_and_over(
    tmp_path: Path, loop: str
) -> None:
    """SIGTERM ends it on plain uvicorn. The third server would serve, whatever SIGTERM comes."""
    with program(tmp_path, "run_over_and_over", loop, cleanup=20) as server:
        server.terminate()
        assert server.wait(10) == 0
        assert server.count("round") == 2
        assert said(server) == ["atexit"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_after_ctrl_c_a_program_may_start_its_server_again_at_once(
    tmp_path: Path, loop: str
) -> None:
    """The hard deadline was for the end of the process. The request takes longer than that."""
    with program(tmp_path, "run_over_and_over", loop, cleanup=1.5) as server:
        server.signal(signal.SIGINT)
        server.wait_for("Uvicorn running on", count=2)
        assert get(server.port, "/slow?s=3&name=second").status == 200
        server.terminate()
        # The program starts a third one, which has the rest of the cleanup period to end in.
        server.wait_for(r"clean after .* \(SIGTERM\)")
        assert "hard deadline" not in server.log.partition("(SIGTERM)")[0]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stop_under_frozen_time_is_that_of_plain_uvicorn(
    tmp_path: Path, loop: str, beside: ThreadPoolExecutor
) -> None:
    seen = []
    for more in ({"APP_PLAIN": "1"}, {}):
        with program(tmp_path, "frozen_time", loop, **more) as server:
            slow = beside.submit(get, server.port, "/slow?s=1&name=old")
            server.wait_for("slow began old")
            server.signal(signal.SIGTERM)
            seen.append((slow.result().status, abs(server.wait(5))))
    assert seen == [(200, signal.SIGTERM), (200, 0)]
    took = re.search(r"clean after (\S+) s", server.log)
    assert took is not None
    assert server.periods["lame_duck"] <= float(took[1]) <= server.seconds_since_signal() + 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "signum", "most"),
    [
        # The watchdog looks four times a second whether the program ends.
        ("idle_after_ctrl_c", signal.SIGINT, 30),
        ("idle_with_own_signals", signal.SIGTERM, 8),
    ],
)
def test_a_program_that_goes_on_without_its_server_has_hardly_any_wake_ups_from_us(
    tmp_path: Path, name: str, signum: int, most: int
) -> None:
    with program(tmp_path, name) as server:
        server.signal(signum)
        assert server.wait(15) == 0
        (line,) = [line for line in said(server) if line.startswith("after 4 s")]
        assert int(line.split()[3]) <= most


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "name",
    [
        "taken_port",
        "raising_startup",
        "hanging_startup",
        "hanging_startup_in_one_loop",
    ],
)
def test_a_server_that_does_not_start_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    """A program may try again until it starts. The control socket has a thread of its own."""
    server = program(tmp_path, name)
    server.env["GRACEFUL_CONTROL_DIR"] = str(tmp_path / "control")
    with server:
        server.terminate()
        assert server.wait() == 0
        assert said(server)[0] == "after 4 more starts: 0 threads, 0 descriptors more"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "name", ["server_after_a_given_up_startup", "same_server_after_a_given_up_startup"]
)
def test_a_startup_that_was_given_up_holds_up_no_stop(tmp_path: Path, name: str, loop: str) -> None:
    """Its app waits for ever in an event loop that goes on, and its server has ended."""
    with program(tmp_path, name, loop, cleanup=20) as server:
        assert get(server.port, "/").status == 200
        server.terminate()
        assert server.wait(10) == 0
        assert said(server) == ["after the second", "after the loop", "atexit"]
        assert "hard deadline" not in server.log


@on_loops(*ENDS_BY_ITSELF, "gather", "task_group")
def test_after_ctrl_c_a_program_sees_what_it_sees_on_plain_uvicorn(
    tmp_path: Path, name: str, loop: str
) -> None:
    seen = []
    for more in ({"APP_PLAIN": "1"}, {}):
        with program(tmp_path, name, loop, **more) as server:
            server.signal(signal.SIGINT)
            seen.append((server.wait(), said(server), count_tracebacks(server)))
    plain, ours = seen
    assert ours == plain
    assert "never retrieved" not in server.log


@pytest.mark.parametrize(("loop", "signals"), [("asyncio", 2), ("uvloop", 1)])
def test_a_program_that_cancels_serve_at_a_signal_loses_nothing_as_on_plain_uvicorn(
    tmp_path: Path, loop: str, signals: int
) -> None:
    """The cancellation is the program's answer to the signal, and no second request to hurry."""
    seen = []
    for more in ({"APP_PLAIN": "1"}, {}):
        with (
            program(tmp_path, "cancelled_by_handler", loop, grace=15, **more) as server,
            Client(server.port) as client,
        ):
            client.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
            server.wait_for("echo began")
            for number in range(1, signals + 1):
                server.signal(signal.SIGTERM)
                server.wait_for(r"serve\(\) is cancelled", count=number)
            client.send(b"x")
            seen.append((client.response().status, server.wait(15), said(server)))
            assert server.count("lifespan shutdown") == 1
    plain, ours = seen
    assert ours == plain
    assert ours[:2] == (200, 0)


def count_tracebacks(server: Server) -> int:
    """Count them, but for what asyncio before Python 3.11 prints of a task that raised."""
    return server.log.partition("never retrieved")[0].count("Traceback")


@pytest.mark.parametrize(
    ("name", "number", "loop"),
    [
        ("uvicorn_run", signal.SIGTERM, "asyncio"),
        ("uvicorn_run", signal.SIGINT, "uvloop"),
        ("serve", signal.SIGINT, "asyncio"),
        ("serve", signal.SIGTERM, "uvloop"),
        ("awaited_task", signal.SIGTERM, "asyncio"),
        ("awaited_task", signal.SIGINT, "asyncio"),
        ("gather", signal.SIGTERM, "asyncio"),
        ("gather", signal.SIGINT, "uvloop"),
        pytest.param("task_group", signal.SIGINT, "asyncio", marks=with_task_group),
    ],
)
def test_a_forced_drain_ends_the_program_with_1_and_nothing_but_the_report(
    tmp_path: Path, name: str, number: signal.Signals, loop: str
) -> None:
    periods = {"lame_duck": 0.1, "grace": 0.2, "cancel": 0.5}
    with program(tmp_path, name, loop, **periods) as server, Client(server.port) as client:
        client.request("/slow?name=cut")
        server.wait_for("slow began cut")
        server.signal(number)
        assert client.response().status == 503
        assert server.wait() == 1
        lines = said(server)
        assert not [line for line in lines if line.startswith(("after", "interrupted"))]
        assert lines[-1] == "atexit"
        assert ("finally" in lines) == (name in ("uvicorn_run", "serve"))
        for noise in ("never retrieved", "was destroyed", "Traceback", "Exception in"):
            assert noise not in server.log


@pytest.mark.parametrize(
    ("path", "grace", "code"), [("/slow?s=0.5&name=old", 10, 0), ("/slow?name=old", 1, 1)]
)
def test_a_program_that_was_started_with_sigint_ignored_has_the_same_exit_code(
    tmp_path: Path, path: str, grace: float, code: int
) -> None:
    """As the shell starts `command &` in a script."""
    server = program(tmp_path, "serve", grace=grace, cancel=0.5)
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *server.command]
    with (
        Server(
            ignoring, tmp_path, port=server.port, env=server.env, ready="Uvicorn running on"
        ) as server,
        Client(server.port) as client,
    ):
        client.request(path)
        server.wait_for("slow began old")
        server.signal(signal.SIGINT)
        assert client.response().status == (503 if code else 200)
        assert server.wait(20) == code
        assert ("after serve()" in server.log) == (code == 0)


def test_after_ctrl_c_the_program_may_go_on_for_as_long_as_it_likes(tmp_path: Path) -> None:
    """Plain uvicorn lets it. What the hard deadline bounds is the end of the process."""
    with program(tmp_path, "serve_and_work", cleanup=1.5, APP_WORK=3) as server:
        server.signal(signal.SIGINT)
        assert server.wait(15) == 0


def test_after_sigterm_the_program_has_what_is_left_of_the_cleanup_period(tmp_path: Path) -> None:
    with program(tmp_path, "serve_and_work", cleanup=0.2) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        assert "hard deadline" in server.log
        assert "after_serve.py" in server.log.split("hard deadline")[1]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_requests_that_the_end_of_the_loop_cancels_answer_as_on_plain_uvicorn(
    tmp_path: Path, loop: str, beside: ThreadPoolExecutor
) -> None:
    """The loop ends in the middle of the drain, which is cancelled before some of the requests."""
    for more in ({"APP_PLAIN": "1"}, {}):
        with program(tmp_path, "stopped_loop", loop, lame_duck=10, **more) as server:
            server.wait_for("handler installed")
            slow = [beside.submit(get, server.port, "/slow?name=old") for _ in range(4)]
            server.wait_for("slow began old", count=4)
            server.signal(signal.SIGTERM)
            assert [each.result().status for each in slow] == [500] * 4
            assert server.wait() == 0


@pytest.mark.parametrize("lifespan", ["on", "off"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_same_server_serves_again_as_on_plain_uvicorn_and_drains_each_time(
    tmp_path: Path, loop: str, lifespan: str, beside: ThreadPoolExecutor
) -> None:
    seen = []
    for more in ({"APP_PLAIN": "1"}, {}):
        more["APP_LIFESPAN"] = lifespan
        with program(tmp_path, "same_server_again", loop, **more) as server:
            for number in range(3):
                server.wait_for("Uvicorn running on", count=number + 1)
                slow = beside.submit(get, server.port, f"/slow?s=0.5&name={number}")
                server.wait_for(f"slow began {number}")
                os.kill(server.pid, signal.SIGUSR1)
                assert slow.result().body == b"slow, but complete"
            seen.append((server.wait(10), said(server), server.count("lifespan shutdown")))
    plain, ours = seen
    assert ours == plain
    assert server.count("clean after") == 3
    assert "Traceback" not in server.log


@pytest.mark.parametrize("first", [signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_a_signal_in_the_startup_of_the_same_server_ends_the_program_as_on_plain_uvicorn(
    tmp_path: Path, lifespan: str, first: signal.Signals
) -> None:
    """It comes before the server is hooked again: at its lifespan, or at a request without one."""
    for more in ({"APP_PLAIN": "1"}, {}):
        more |= {"APP_LIFESPAN": lifespan, "APP_SIGNALLED": "2"}
        with program(tmp_path, "same_server_in_its_startup", cleanup=20, **more) as server:
            assert get(server.port, "/").status == 200
            server.signal(first)
            assert abs(server.wait(15)) in (0, signal.SIGTERM)
            lines = [line for line in said(server) if line.startswith("after round")]
            assert set(lines) <= {"after round 1, 0 listen", "after round 2, 0 listen"}
            assert "Traceback" not in server.log


def test_a_ctrl_c_before_a_server_was_found_does_not_stop_its_next_serve(tmp_path: Path) -> None:
    """Without a lifespan it is found at its first request. uvicorn never forgets its signals."""
    more = {"APP_LIFESPAN": "off", "APP_SIGNALLED": "0"}
    with program(tmp_path, "same_server_in_its_startup", **more) as server:
        server.signal(signal.SIGINT)
        server.wait_for("Uvicorn running on", count=2)
        assert get(server.port, "/slow?s=0.5&name=first").status == 200
        assert get(server.port, "/").status == 200
        assert server.count("Uvicorn running on") == 2
        server.terminate()
        server.wait_for("clean after .* \\(SIGTERM\\)")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_server_whose_app_raises_at_its_lifespan_goes_on_and_drains_by_the_signal(
    tmp_path: Path, loop: str
) -> None:
    """The end of the lifespan's task is no end of the server, however `serve()` is awaited."""
    with program(tmp_path, "without_lifespan_by_hand", loop) as server:
        server.terminate()
        assert server.wait(10) == 0
        assert re.search(r"clean after .* \(SIGTERM\)", server.log)
