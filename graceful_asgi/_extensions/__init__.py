"""Extensions: parts that live as long as a server, beside its drain."""

from __future__ import annotations

from typing import Final

NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"
"""The variable by which systemd asks to be notified: sd_notify(3)."""
