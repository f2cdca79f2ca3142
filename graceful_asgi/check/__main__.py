"""``python -m graceful_asgi.check``: the demo."""

from __future__ import annotations

import sys
from typing import Final

_EXTRA: Final = frozenset({"h11", "rich", "starlette", "uvicorn", "click"})


def run() -> int:
    """The demo's exit code, or 1 and a hint when the extra is not installed."""
    try:
        from graceful_asgi.check.demo import main
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write(f"{error.name} is missing: pip install 'graceful-asgi[check]'\n")
        return 1
    return main()


if __name__ == "__main__":
    try:
        sys.exit(run())
    except KeyboardInterrupt:
        sys.exit(130)
