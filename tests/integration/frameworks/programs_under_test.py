"""Programs under test: how each is started, and what its log may say."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.ports import free_port
from support.server import Server

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Program:
    """A program, what it needs, and what is asked of it."""

    app: str
    """An app in `programs`; or a module, which runs its server itself."""
    needs: str = ""
    """Modules that may not be there."""
    paths: dict[str, Any] = field(default_factory=dict)
    """Fields of the load's plan."""
    says: str = ""
    """The last line of its log, besides the ledger."""

    @property
    def name(self) -> str:
        return self.app.replace("_app:app", "").replace("_app:", " ")

    def command(self, port: int) -> list[str]:
        module = f"integration.frameworks.programs.{self.app}"
        if ":" not in self.app:
            return [sys.executable, "-m", module, str(port)]
        server = [sys.executable, "-m", "uvicorn", module, "--no-access-log"]
        return [*server, "--port", str(port)]


def server_of(program: Program, directory: Path, **periods: float) -> Server:
    port = free_port()
    return Server(
        program.command(port),
        directory,
        port=port,
        ready_path="/",
        env={"PYTHONWARNINGS": "default"},
        periods={"lame_duck": 0.5, "grace": 40, "cancel": 1, "cleanup": 10, **periods},
        measured=False,
    )


def assert_quiet(log: str) -> None:
    for word in ("Traceback", "never retrieved", "Error", "ERROR", "Warning", "WARNING", "lost: "):
        assert word not in log, log


def assert_balanced(log: str) -> None:
    """Fail where something has begun that has not ended, or a sum is not what it is of."""
    sums = re.findall(r"^ledger: .*: (\d+) begun, (\d+) ended$", log, re.M)
    sums += re.findall(r"^(?:rows|spans|spend): (\d+) of (\d+)$", log, re.M)
    assert all(first == second for first, second in sums), log
