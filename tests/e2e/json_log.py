"""A JSON log formatter as small as can be: one object per record, with all its `extra` fields."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "color_message"}


class JSONFormatter(logging.Formatter):
    """Refuses what JSON has no word for."""

    def format(self, record: logging.LogRecord) -> str:
        extra = {
            name.removeprefix("graceful."): value
            for name, value in vars(record).items()
            if name not in _STANDARD
        }
        return json.dumps({"text": record.getMessage(), "level": record.levelname, **extra})


CONFIG: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": f"{__name__}.JSONFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}


def write_config(directory: Path) -> str:
    """Write a file for uvicorn's `--log-config`; return its path."""
    path = directory / "log.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def records(log: str, event: str) -> list[dict[str, Any]]:
    """Return the records of *event* in a log that has other lines as well."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]
