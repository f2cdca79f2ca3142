"""``python -m graceful_asgi`` and ``graceful-asgi``: runs a command and returns its exit code.

0: done, and the result is good. 1: done, and the result is bad. 2: the command could not run. 130:
interrupted. Only a command itself returns 0 or 1.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Final

from ._cli.commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_COULD_NOT: Final = 2
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, by default the one on the process's own command line; return its exit code.

    SIGTERM and SIGHUP interrupt it as Ctrl+C does, so that it ends what it has started.
    """
    _fill_standard_descriptors()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        import click
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        command = COMMANDS.get(arguments[0]) if arguments else None
        extra = "all" if command is None else command.extra
        sys.stderr.write(
            "graceful-asgi: its commands need click, which is not installed: "
            f"pip install 'graceful-asgi[{extra}]'\n"
        )
        return _COULD_NOT
    from ._cli.group import group

    # A shell without job control starts background processes with SIGINT ignored. And the event
    # loop replaces Python's own handler only, no other.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(hangup, _interrupt)
    try:
        code = group.main(arguments, prog_name="graceful-asgi", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return _COULD_NOT
    except click.Abort:  # what click makes of a KeyboardInterrupt
        return _interrupted()
    except SystemExit:
        raise
    except Exception:
        traceback.print_exc()
        return _COULD_NOT
    except BaseException:  # a group with a KeyboardInterrupt in it, or (3.10) a cancellation
        return _interrupted()
    return code if isinstance(code, int) else 0


def _fill_standard_descriptors() -> None:
    """Open those of the descriptors 0 to 2 that are closed: libuv aborts if it gets one of them.

    Python has no stream for an output that it has found closed. A command writes all the same.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _interrupted() -> int:
    # Everything that was started has ended. While Python takes its modules down, one more signal
    # would end the process by its default action, with another exit code.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.stderr.write("interrupted\n")
    return _INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
