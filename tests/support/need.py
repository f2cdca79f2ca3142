"""Needs of a test that may be missing: a failure in CI, a skip with its reason elsewhere."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest


def need(*modules: str) -> None:
    """Skip the test without these modules; in CI, where all have to be there, fail it."""
    for name in modules:
        if not _is_installed(name):
            missing(f"{name} is not installed")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def need_program(name: str) -> str:
    """Return the path of a program beside Python or in PATH. Without it skip; in CI fail."""
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return beside or shutil.which(name) or missing(f"{name} is not installed")


def missing(reason: str) -> NoReturn:
    """Skip the test for *reason*; in CI, where nothing may be missing, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI tests everything")
    pytest.skip(reason)
