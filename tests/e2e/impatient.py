"""`python -m e2e.impatient`: `graceful-asgi run`, whose replacements have a second to start."""

from __future__ import annotations

import sys
from unittest.mock import patch

from graceful_asgi.__main__ import main
from graceful_asgi._run import supervisor

if __name__ == "__main__":
    with patch.object(supervisor, "START_PERIOD", 1.0):
        sys.exit(main(["run", *sys.argv[1:]]))
