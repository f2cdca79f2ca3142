"""systemd's end of the notification socket, and its units, for tests."""

from __future__ import annotations

import configparser
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class UnitFile(configparser.RawConfigParser):
    """The settings of a unit, with their names as they are written."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.read_string(text)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


class NotifySocket:
    """Receives what a service says of itself. Use as a context manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._received: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def received(self) -> list[str]:
        """Return everything that has been said up to now, in order."""
        while True:
            try:
                self._received.append(self._socket.recv(4096, socket.MSG_DONTWAIT).decode())
            except BlockingIOError:
                return self._received

    def told(self, name: str) -> list[str]:
        """Return the values of one variable."""
        lines = [line for message in self.received() for line in message.splitlines()]
        return [line.removeprefix(f"{name}=") for line in lines if line.startswith(f"{name}=")]
