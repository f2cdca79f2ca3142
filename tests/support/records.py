"""Records of the log: when they have come, and their extras without the prefix of the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graceful_asgi import log
from graceful_asgi.log import PREFIX
from support.polling import PATIENCE

if TYPE_CHECKING:
    import logging

    import pytest


def written(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return *caplog* once it has every record so far: beside a server a thread writes them."""
    assert log.is_written(PATIENCE)
    return caplog


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return what the record carries besides its text."""
    found = vars(record).items()
    return {name.removeprefix(PREFIX): value for name, value in found if name.startswith(PREFIX)}


def event(record: logging.LogRecord) -> str:
    """Return the name of the event; empty for a record of another logger."""
    return str(extras(record).get("event", ""))
