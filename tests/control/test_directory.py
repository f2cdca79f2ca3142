"""The directory of control sockets: who may use it, what is taken away and what is left alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.command import run_python

from graceful_asgi._control import directory as module
from graceful_asgi._control.directory import (
    ControlDirectory,
    SocketName,
    label,
    open_private,
    select,
)
from graceful_asgi._core.server_context import ServerId
from graceful_asgi.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = SocketName(ServerId(7, "x1"), 12)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlDirectory]:
    with ControlDirectory(str(tmp_path / "control"), create=True) as directory:
        yield directory


def kept(directory: ControlDirectory) -> list[str]:
    return sorted(os.listdir(directory.path))


def leave_behind(directory: ControlDirectory, name: object) -> None:
    """Leave a socket behind whose process has gone."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(directory.address(name))


def test_a_directory_that_is_missing_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    with ControlDirectory(str(tmp_path / "new"), create=True):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777, 0o720])
def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(ControlError) as raised:
        ControlDirectory(str(tmp_path / "open"), create=True)
    message = str(raised.value)
    assert (
        f"GRACEFUL_CONTROL_DIR='{tmp_path}/open' is not allowed: its mode is {mode:04o}" in message
    )
    assert f"allowed: a directory of user {os.geteuid()} that is closed" in message


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ControlError, match="Not a directory"):
        ControlDirectory(str(tmp_path / "file"), create=True)
    with pytest.raises(ControlError, match="No such file"):
        ControlDirectory(str(tmp_path / "no" / "parent"), create=True)
    with pytest.raises(ControlError, match="No such file"):
        ControlDirectory(str(tmp_path / "missing"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_another_users_directory_is_no_place_for_a_server_but_root_may_look(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 65534, 65534)
    with pytest.raises(ControlError, match="it belongs to user 65534"):
        ControlDirectory(str(tmp_path / "theirs"), create=True)
    with ControlDirectory(str(tmp_path / "theirs")) as theirs:
        assert theirs.names() == []


def test_names_are_found_again_and_other_files_are_not_names(control: ControlDirectory) -> None:
    with control.listen(NAME):
        for other in ("7-12.sock", "x.sock", "7-12-x1-12345678.sock.bak", ".new-0", "README"):
            (Path(control.path) / other).touch()
        assert control.names() == [NAME]


def test_a_socket_is_for_its_owner_alone_and_listens_when_it_has_its_name(
    control: ControlDirectory,
) -> None:
    with control.listen(NAME), socket.socket(socket.AF_UNIX) as peer:
        assert kept(control) == [str(NAME)]
        assert (Path(control.path) / str(NAME)).stat().st_mode & 0o777 == 0o600
        peer.connect(control.address(NAME))


def test_the_sockets_of_the_dead_are_taken_away_and_no_others(control: ControlDirectory) -> None:
    dead = SocketName(ServerId(7, "x1"), 13)
    leave_behind(control, dead)
    (Path(control.path) / "README").touch()
    with control.listen(NAME):
        control.clean_up()
        assert kept(control) == sorted([str(NAME), "README"])


def test_a_process_of_the_same_pid_gets_a_name_of_its_own(control: ControlDirectory) -> None:
    """In another container, or after the pid has come round: none takes another's away."""
    with control.listen(NAME), control.listen(SocketName(NAME.server, NAME.pid)):
        control.clean_up()
        assert len(control.names()) == 2


def test_a_socket_whose_queue_is_full_is_alive(
    control: ControlDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKLOG", 0)
    with control.listen(NAME), socket.socket(socket.AF_UNIX) as peer:
        peer.connect(control.address(NAME))
        control.clean_up()
        assert control.names() == [NAME]


def test_a_socket_that_was_never_finished_is_taken_away_when_it_is_old(
    control: ControlDirectory,
) -> None:
    """Not before: a process may be just about to give it its name."""
    leave_behind(control, ".new-00000001")
    control.clean_up()
    assert kept(control) == [".new-00000001"]
    os.utime(Path(control.path) / ".new-00000001", (0, 0))
    control.clean_up()
    assert kept(control) == []


def test_a_path_longer_than_an_address_works_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 25)
    with (
        ControlDirectory(str(path), create=True) as directory,
        directory.listen(NAME),
        socket.socket(socket.AF_UNIX) as peer,
    ):
        assert len(str(path)) > 100
        peer.connect(directory.address(NAME))
        directory.clean_up()
        assert kept(directory) == [str(NAME)]


def test_a_directory_that_takes_no_socket_says_so(control: ControlDirectory) -> None:
    Path(control.path).rmdir()
    with pytest.raises(ControlError, match="is not allowed: no socket can be made there"):
        control.listen(NAME)


# The private directory


def test_workers_meet_in_the_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with open_private() as directory:
        assert directory.path == str(tmp_path / "graceful-asgi")


@pytest.mark.parametrize("trap", ["file", "link", "open"])
def test_what_somebody_else_put_in_its_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    place = tmp_path / f"graceful-asgi-{os.geteuid()}"
    if trap == "file":
        place.touch()
    elif trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.mkdir()
        place.chmod(0o777)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ControlError, match="graceful-asgi-"):
        open_private()


# Which processes are meant

A, B, SAME = ServerId(7, "a"), ServerId(8, "a"), ServerId(7, "b")


def test_a_server_is_called_by_its_pid_unless_there_are_two_of_it() -> None:
    assert label(A, [A, B]) == "7"
    assert label(A, [A, SAME]) == "7@a"


@pytest.mark.parametrize(
    ("servers", "server", "one", "expected"),
    [
        ([A], None, True, [A]),
        ([A, B], None, False, [A, B]),
        ([A, B], "8", True, [B]),
        ([A, SAME], "7@b", True, [SAME]),
        ([A, SAME], "7", False, [A, SAME]),
    ],
)
def test_a_server_is_chosen(
    servers: list[ServerId], server: str | None, one: bool, expected: list[ServerId]
) -> None:
    names = [SocketName(each, 100 + at) for at, each in enumerate(servers)]
    assert [name.server for name in select(names, server, one=one)] == expected


@pytest.mark.parametrize(
    ("servers", "server", "message"),
    [
        ([], None, "no server has a control socket there"),
        ([A, B], None, "say which by --server: 7, 8"),
        ([A, SAME], "7", "say which by --server: 7@a, 7@b"),
        ([A, B], "9", "no server 9 has a control socket there; there: 7, 8"),
    ],
)
def test_a_choice_that_is_none_names_what_there_is(
    servers: list[ServerId], server: str | None, message: str
) -> None:
    with pytest.raises(ControlError) as raised:
        select([SocketName(each, 1) for each in servers], server, one=True)
    assert message in str(raised.value)


def test_the_socket_goes_however_the_process_ends() -> None:
    """Not by SIGKILL, nor by `os._exit`: then it is whoever looks next that takes it away."""
    ended = run_python(
        """
        import asyncio, os, sys, tempfile
        from graceful_asgi._core.runner import DrainRunner
        from graceful_asgi._control.extension import ControlSocket
        from graceful_asgi._control.directory import ControlDirectory

        path = tempfile.mkdtemp()

        async def main(way):
            drainer = DrainRunner()
            drainer.bind()
            socket = ControlSocket(drainer, ControlDirectory(path, create=True))
            if way == "child of a fork":
                child = os.fork()
                if child == 0:
                    sys.exit(3)
                os.waitpid(child, 0)
            else:
                sys.exit(3) if way == "sys.exit" else os._exit(3)
            print(way, len(os.listdir(path)), flush=True)
            sys.exit(3)

        for way in ("sys.exit", "child of a fork", "os._exit"):
            child = os.fork()
            if child == 0:
                asyncio.run(main(way))
            os.waitpid(child, 0)
            print(way, len(os.listdir(path)), flush=True)
        """
    )
    assert ended.stdout.splitlines() == [
        "sys.exit 0",
        "child of a fork 1",
        "child of a fork 0",
        "os._exit 1",
    ], ended.stderr
