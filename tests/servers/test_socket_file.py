"""The file of a UNIX socket: each server removes its own, and no other."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from support.server import uvicorn_config

from graceful_asgi._servers.socket_file import SocketFile, take_over_removal

if TYPE_CHECKING:
    from pathlib import Path


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_the_servers_own_file_is_removed_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    bind(path)
    file = SocketFile(str(path))
    file.remove()
    assert not path.exists()
    file.remove()


def test_the_file_of_the_next_server_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    bind(path)
    file = SocketFile(str(path))
    path.rename(tmp_path / "old")  # or the file system might give the next one the same number
    bind(path)
    file.remove()
    assert path.exists()


def test_a_file_that_was_never_there_is_no_reason_to_remove_one(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    file = SocketFile(str(path))
    bind(path)
    file.remove()
    assert path.exists()


def test_a_configuration_of_the_programs_own_keeps_its_path() -> None:
    """It may start another server with it."""
    config: Any = uvicorn_config("app:app", uds="socket")
    assert not take_over_removal(config)
    assert config.uds == "socket"
