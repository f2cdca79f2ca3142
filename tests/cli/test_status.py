"""`graceful-asgi status` about processes that are ending."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from support.command import run
from support.polling import PATIENCE

from graceful_asgi._control.directory import ControlDirectory, SocketName
from graceful_asgi._core.server_context import ServerId

if TYPE_CHECKING:
    from pathlib import Path


def test_the_only_process_ends_before_it_answers_and_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "sockets")
    with (
        ControlDirectory(path, create=True) as directory,
        directory.listen(SocketName(ServerId(7), 99)) as listener,
    ):
        listener.settimeout(PATIENCE)

        def end_twice() -> None:
            """End two connections: the look whether anybody listens, and the question."""
            for _ in range(2):
                listener.accept()[0].close()

        thread = threading.Thread(target=end_twice)
        thread.start()
        ended = run("status", "--control-dir", path)
        thread.join()
    assert (ended.code, ended.out) == (2, "")
    assert "process 99: has ended without an answer" in ended.err
