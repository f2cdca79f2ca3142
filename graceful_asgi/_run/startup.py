"""Runs a server, and distinguishes an app that cannot be loaded from a server that has crashed.

uvicorn logs an `ImportError` of the app and exits with a code of its own. Anything else that the
app raises while it is loaded comes out of uvicorn as it is; the exit code of the process would be
that of any crash, or one that the app chose (`sys.exit(0)`).
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from uvicorn.importer import ImportFromStringError, import_from_string

from .. import log

if TYPE_CHECKING:
    import socket

    import uvicorn


class StoppedWhileLoadingError(BaseException):
    """Ends the import of an app in the signal handler of a stop. Not for `except Exception`."""


def import_app(config: uvicorn.Config) -> bool:
    """Import the app, outside of any event loop; return False if it raised, which is logged."""
    try:
        import_from_string(config.app)
    except ImportFromStringError:
        return True  # uvicorn logs it when it loads the app
    except KeyboardInterrupt:
        raise  # a signal came: this is what the caller's handlers make of it
    except BaseException:
        _log_failure(config)
        return False
    return True


def run_server(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
    """Run *server* to its end. `server.started` is False after an app that could not be loaded."""
    try:
        server.run(sockets)
    except (KeyboardInterrupt, StoppedWhileLoadingError):
        raise
    except BaseException as error:
        if server.started or _comes_from_uvicorn(error.__cause__ or error):
            raise
        _log_failure(server.config)


def _comes_from_uvicorn(error: BaseException) -> bool:
    """Return True for an exit of uvicorn's, which logs the reason: a port that is in use, ..."""
    if not isinstance(error, SystemExit):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith("uvicorn.")


def _log_failure(config: uvicorn.Config) -> None:
    log.follow("uvicorn.error")  # no server has been hooked yet
    log.failed("the app %s raised while it was loaded", config.app)
