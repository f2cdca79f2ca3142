"""Programs that a test needs: a failure where one is missing in CI, a skip with its reason else."""

from __future__ import annotations

import os
import shutil

import pytest


def need_program(name: str) -> str:
    """The program's path. Skips the test without it; in CI, where all have to be there, fails."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, and CI tests everything")
        pytest.skip(reason)
    return found
