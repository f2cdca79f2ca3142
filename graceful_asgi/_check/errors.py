"""The errors of the load check: a set-up that does not work. A lost request is data, no error."""

from __future__ import annotations

from ..errors import GracefulError


class CheckError(GracefulError):
    """The check itself could not be carried out, so there is nothing to judge."""


class CommandError(CheckError):
    """A command that the check cannot run was given."""


class ServerStartError(CheckError):
    """The server exited early or never answered; the message ends with the tail of its log."""


class ServerExitedError(CheckError):
    """The server was gone before it was told to stop; the message ends with its log's tail."""


class SetupError(CheckError):
    """A client could not connect although nobody had told the server to stop."""


class PathError(CheckError):
    """A path does not answer as it should although nobody had stopped the server."""
