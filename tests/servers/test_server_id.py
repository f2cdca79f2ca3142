"""Processes of one server: told by their parent where there is one, and by where they listen."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from support.command import run_python
from support.server import uvicorn_config

from graceful_asgi._servers.server_id import server_id

if TYPE_CHECKING:
    import pytest

    from graceful_asgi._servers.touchpoints import Server


def server(**settings: Any) -> Server:
    made = uvicorn.Server(uvicorn_config("app:app"))
    for name, value in settings.items():
        setattr(made.config, name, value)
    return cast("Server", made)


def test_one_process_is_its_own_server() -> None:
    assert server_id(server()).pid == os.getpid()
    assert server_id(None).pid == os.getpid()


def test_a_callback_of_the_programs_own_makes_no_worker() -> None:
    async def notify() -> None: ...

    assert server_id(server(callback_notify=notify)).pid == os.getpid()


def test_a_server_of_an_unknown_shape_is_one_all_the_same() -> None:
    odd = cast("Server", SimpleNamespace(config=SimpleNamespace()))
    assert server_id(odd).pid == os.getpid()


def test_two_servers_are_told_apart_by_where_they_listen() -> None:
    one, two = server(port=8001), server(port=8002)
    assert server_id(one) == server_id(server(port=8001))
    assert server_id(one) != server_id(two)
    assert server_id(one) != server_id(server(uds="/run/a.sock"))


def test_two_containers_with_the_same_pids_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    here = server_id(None)
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[another]")
    there = server_id(None)
    assert here.pid == there.pid
    assert here != there


def test_a_child_of_multiprocessing_belongs_to_its_parent() -> None:
    ended = run_python(
        """
        import multiprocessing, os
        from graceful_asgi._servers.server_id import server_id

        def child(pipe):
            pipe.send(server_id(None))

        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=child, args=(theirs,))
        process.start()
        found = ours.recv()
        process.join()
        print(found.pid == os.getpid(), found == server_id(None))
        """
    )
    assert ended.stdout == "True True\n", ended.stderr
