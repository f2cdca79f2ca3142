"""`make test` and `make integration` share the tests between them, and `make check` runs both."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from support.docs import ROOT
from support.need import need_program

TESTS = ROOT / "tests"
FOLDERS = sorted({path.parent.relative_to(ROOT) for path in TESTS.rglob("test_*.py")})


def runs(*targets: str) -> list[list[str]]:
    """Return the arguments of each run of pytest that *targets* consist of."""
    # `make check` hands its own variables to its children; this make is not to see them.
    plain = ("env", "-u", "MAKEFLAGS", "-u", "MAKEOVERRIDES", "-u", "MFLAGS")
    shown = subprocess.run(
        [*plain, need_program("make"), "--dry-run", *targets],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    words = [shlex.split(line) for line in shown.stdout.splitlines() if " pytest " in line]
    return [line[line.index("pytest") + 1 :] for line in words]


def chosen(run: list[str]) -> set[str]:
    """Return the folders that a run of pytest with these arguments looks into."""
    left_out = [run[place + 1] for place, word in enumerate(run) if word == "--ignore"]
    paths = [word for word in run if word.startswith("tests") and word not in left_out]
    return {
        str(folder)
        for folder in FOLDERS
        if any(folder.is_relative_to(path) for path in paths or ["tests"])
        and not any(folder.is_relative_to(path) for path in left_out)
    }


@pytest.mark.parametrize("marked", ["timed", "not timed"])
def test_each_folder_is_run_by_one_of_the_two(marked: str) -> None:
    own, others = (
        [chosen(run) for run in runs(target) if run[run.index("-m") + 1] == marked]
        for target in ("test", "integration")
    )
    assert len(own) == len(others) == 1
    assert own[0].isdisjoint(others[0])
    assert own[0] | others[0] == set(map(str, FOLDERS))
    assert "tests/e2e" in own[0]
    assert "tests/integration/clients" in others[0]


def test_make_check_runs_both() -> None:
    assert runs("check") == [*runs("test"), *runs("integration")]
