"""The extras of log records, without the prefix that they have in the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graceful_asgi.log import PREFIX

if TYPE_CHECKING:
    import logging


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return what the record carries besides its text."""
    found = vars(record).items()
    return {name.removeprefix(PREFIX): value for name, value in found if name.startswith(PREFIX)}


def event(record: logging.LogRecord) -> str:
    """Return the name of the event; empty for a record of another logger."""
    return str(extras(record).get("event", ""))
