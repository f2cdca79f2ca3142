"""The examples of the how-to pages, as they stand there, on a real server that is told to stop."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from typing import TYPE_CHECKING, Any

import anyio
from e2e.crowd import Crowd, reads
from e2e.test_websocket import SERVICE_RESTART, close_code, websocket
from support.client import Client
from support.docs import how_to
from support.need import need
from support.polling import PATIENCE, eventually, wait_until
from support.server import Server, uvicorn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from support.client import Response


def serving(
    directory: Path, page: str, number: int = 0, *, lame_duck: float = 0.5, grace: float = 1
) -> Server:
    need("fastapi")
    (directory / "example.py").write_text(how_to(page, number), encoding="utf-8")
    return uvicorn(directory, app="example:app", lame_duck=lame_duck, grace=grace, cleanup=10)


def post(server: Server, path: str) -> Response:
    with Client(server.port) as client:
        client.request(path, method="POST", body=b"")
        return client.response()


def test_a_websocket_handler_sees_the_close_as_a_disconnect(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "websockets", grace=10) as server,
        websocket(server, "/echo") as opened,
    ):
        opened.send("hello")
        assert opened.recv(timeout=PATIENCE) == "you said hello"
        server.terminate()
        assert close_code(opened, within=PATIENCE) == SERVICE_RESTART
        assert server.wait() == 0
        assert "service restart" in server.log


def test_a_websocket_that_finishes_may_be_ended_earlier_by_its_handler(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "websockets", 1, grace=60) as server,
        websocket(server, "/game") as goes_on,
        websocket(server, "/game") as resigns,
    ):
        resigns.send("resign")
        assert resigns.recv(timeout=PATIENCE) == "played resign"
        server.terminate()
        assert close_code(resigns, within=PATIENCE) == SERVICE_RESTART
        goes_on.send("e4")
        assert goes_on.recv(timeout=PATIENCE) == "played e4"
        server.signal(signal.SIGINT)  # enough of it
        assert close_code(goes_on, within=PATIENCE) == SERVICE_RESTART
        assert server.wait() == 1


def test_a_websocket_that_pushes_is_closed_between_two_messages(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "websockets", 2, grace=20) as server,
        websocket(server, "/prices") as opened,
    ):
        assert opened.recv(timeout=PATIENCE) == '{"price":42}'
        server.terminate()
        assert close_code(opened, within=PATIENCE) == SERVICE_RESTART
        assert server.wait() == 0
        assert "the last price is sent" in server.log
        assert "Traceback" not in server.log


def test_an_event_stream_ends_whole_and_goes_on_from_the_last_event(tmp_path: Path) -> None:
    with serving(tmp_path, "server-sent-events", grace=20) as server:
        with Client(server.port) as again:
            again.send(b"GET /clock HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 41\r\n\r\n")
            received = b""
            while b"id: " not in received:
                received += again.socket.recv(4096)
        assert b"id: 42\n" in received
        crowd = Crowd(server)
        asyncio.run(crowd.run((10, reads("/clock"))))
        assert server.wait() == 0
    assert crowd.how() == {"whole": 10}


def test_a_token_stream_says_how_far_it_has_come_while_there_is_time(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    with serving(tmp_path, "llm-token-streams", lame_duck=0.3, grace=4) as server:
        answer = beside.submit(post, server, "/complete")
        wait_until(lambda: server.count("POST /complete"), "it has begun")
        server.terminate()
        body = answer.result().body.decode()
        assert server.wait() == 0
        assert "WARNING" not in server.log
    tokens = re.findall(r"^data: (\"token.*\")$", body, re.M)
    (so_far,) = re.findall(r"^event: interrupted\ndata: (.*)$", body, re.M)
    assert json.loads(so_far)["so_far"] == "".join(map(json.loads, tokens))
    assert body.endswith("\n\n")


def test_work_of_the_apps_own_is_waited_for_by_its_name(tmp_path: Path) -> None:
    with serving(tmp_path, "background-work", grace=10) as server:
        with Client(server.port) as client:
            client.request("/exports/monday", method="POST", body=b"")
            assert client.response().status == 202
            shown = wait_until(lambda: json.loads(client.get("/exports").body), "it is under way")
        assert shown == {"export monday": 1}
        server.terminate()
        assert server.wait() == 0
    assert "exported monday" in server.log
    assert re.search(r"[1-9] completed, 0 closed, 0 cancelled, 0 aborted", server.log)


def test_work_that_goes_on_for_ever_stops_between_two_steps() -> None:
    namespace: dict[str, Any] = {}
    exec(compile(how_to("background-work", 1), "<example>", "exec"), namespace)
    drainer = namespace["drainer"]

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(namespace["refresh_for_ever"])
            await anyio.wait_all_tasks_blocked()
            assert drainer.statistics().tracked == {"refresh": 1}
            drainer.begin("test")
            await eventually(lambda: not drainer.statistics().in_flight)
            tasks.cancel_scope.cancel()
        assert drainer.report().completed == 1

    anyio.run(run)


def test_a_task_that_is_held_is_quiet_at_a_clean_stop(tmp_path: Path) -> None:
    with serving(tmp_path, "background-work", 2) as server:
        server.terminate()
        assert server.wait() == 0
        assert "Traceback" not in server.log


def test_a_task_that_is_held_stops_the_server_when_it_fails(tmp_path: Path) -> None:
    need("fastapi")
    text = how_to("background-work", 2).replace("asyncio.sleep(3600)", "broken()")
    (tmp_path / "example.py").write_text(text, encoding="utf-8")
    with uvicorn(tmp_path, app="example:app", ready=None, cleanup=10) as server:
        assert server.wait(60) == 1
        assert re.search(r"forced|clean after .*NameError", server.log)


def test_a_consumer_finishes_its_job_and_takes_no_other(tmp_path: Path) -> None:
    with serving(tmp_path, "queue-consumers", lame_duck=1.5, grace=5) as server:
        server.wait_for("began job 1")
        server.terminate()
        begun = server.count("began job")
        assert server.wait() == 0
        assert server.count("began job") - begun <= 1  # it was just being fetched
        assert server.count("acknowledged job") == server.count("began job")
        assert "Traceback" not in server.log


def test_a_program_can_see_less_of_the_log(tmp_path: Path) -> None:
    with serving(tmp_path, "read-the-log") as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "drain [" not in server.log
        assert "Uvicorn running" in server.log
