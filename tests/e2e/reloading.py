"""Change a file that uvicorn's `--reload` watches, so that it reloads exactly once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from support.polling import wait_until

if TYPE_CHECKING:
    from support.server import Server


def change(server: Server, file: Path, text: str) -> None:
    """Replace *file* in one step, once the reloader watches its directory.

    The reloader starts its first worker before it begins to watch. A file that is opened, written
    and closed may be seen as changed twice.
    """
    wait_until(lambda: _is_watched(server.pid, file.parent), "the reloader watches the directory")
    new = file.with_name("new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, file)


def _is_watched(pid: int, directory: Path) -> bool:
    """Return True if the process has an inotify watch of *directory* (see proc_pid_fdinfo(5))."""
    watch = f"ino:{directory.stat().st_ino:x} "
    return any(watch in _read(info) for info in Path(f"/proc/{pid}/fdinfo").iterdir())


def _read(info: Path) -> str:
    try:
        return info.read_text("utf-8")
    except OSError:  # closed meanwhile
        return ""
