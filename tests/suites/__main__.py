"""`make suites`: run other people's suites plain and with the middleware; show the difference.

The newest source distributions come from PyPI, each with an environment of its own, into
`.suites/`. A test that differs is run once more, alone, plain and with the middleware, so that one
that fails now and then is not taken for one that we break. The exit code is 0 if the differences
are exactly those in `differences.txt`.

    python -m tests.suites [NAME ...] [--keep]
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
FOLDER: Final = ROOT / ".suites"
PERIODS: Final = {"GRACEFUL_LAME_DUCK_PERIOD": "0", "GRACEFUL_GRACE_PERIOD": "1"}
"""Advised by the page on tests: in a test nobody waits until clients look elsewhere."""
PATIENCE: Final = 30
"""Seconds that a test may take: one that hangs with the middleware is a difference, too."""
DIFFERENCES: Final = HERE / "differences.txt"


@dataclass(frozen=True)
class Suite:
    """A project whose tests are run: what they need besides the project itself, and how."""

    name: str
    needs: tuple[str, ...]
    """Arguments of `pip install`; `{source}` is the folder of the project."""
    arguments: tuple[str, ...] = ()


SUITES: Final = (
    Suite("uvicorn", ("--group", "{source}/pyproject.toml:dev"), ("-n", "2")),
    Suite("starlette", ("--group", "{source}/pyproject.toml:dev")),
    Suite(
        "fastapi",
        ("{source}[all]", "--group", "{source}/pyproject.toml:tests"),
    ),
    Suite(
        "sse-starlette",
        ("{source}", "--group", "{source}/pyproject.toml:dev"),
        # Its source distribution has no file of the tests whose name does not begin with test_.
        ("-m", "not experimentation", "--continue-on-collection-errors"),
    ),
    Suite(  # what its requirements.txt pins, and an anyio that can use so old a trio
        "asgi-lifespan",
        (
            *("{source}", "anyio<4.5", "httpx==0.23.*", "starlette==0.26.*", "trio==0.22.*"),
            *("pytest==7.*", "pytest-asyncio==0.18.*", "pytest-cov", "pytest-trio==0.8.*"),
        ),
        ("--no-cov",),
    ),
)


@dataclass(frozen=True)
class Difference:
    """A test that ends otherwise with the middleware, and the reason why that is meant."""

    suite: str
    pattern: str
    reason: str

    def covers(self, test: str) -> bool:
        return fnmatch.fnmatchcase(test, self.pattern.replace("[", "[[]"))


def known(suite: str) -> list[Difference]:
    """Read the differences of *suite* that are meant: `suite  test  reason`, a line each."""
    lines = DIFFERENCES.read_text(encoding="utf-8").splitlines()
    fields = [line.split(None, 2) for line in lines if line and not line.startswith("#")]
    return [found for found in (Difference(*each) for each in fields) if found.suite == suite]


class Checkout:
    """The unpacked source of a suite, and its environment."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.folder = FOLDER / suite.name
        self.python = self.folder / "venv" / "bin" / "python"

    def fetch(self) -> None:
        """Fetch the newest source, and make an environment for its tests."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.python.exists():
            run([sys.executable, "-m", "venv", str(self.folder / "venv")])
        pip = [str(self.python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        run([*pip, "install", "--upgrade", "pip>=25.1"])
        for old in self.folder.glob("*.tar.gz"):
            old.unlink()
        download = ["download", "--no-deps", "--no-binary", ":all:", "--dest", str(self.folder)]
        run([*pip, *download, self.suite.name])
        (archive,) = self.folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(self.folder, filter="data")
        needs = [each.replace("{source}", str(self.source)) for each in self.suite.needs]
        run([*pip, "install", *needs, "pytest-timeout", str(ROOT)], cwd=self.source)
        self.install_ours()

    def install_ours(self) -> None:
        """Install the middleware as it is now."""
        pip = [str(self.python), "-m", "pip", "--quiet", "install"]
        run([*pip, "--force-reinstall", "--no-deps", str(ROOT)])

    @property
    def source(self) -> Path:
        """The folder of the newest source."""
        (archive,) = self.folder.glob("*.tar.gz")
        return self.folder / archive.name.removesuffix(".tar.gz")

    def outcomes(self, *, around: bool, only: list[str] | None = None) -> dict[str, str]:
        """Run the suite; return how each test has ended. What failed is told in a file beside."""
        name = f"{'around' if around else 'plain'}{'-again' if only else ''}"
        file = self.folder / f"{name}.json"
        file.unlink(missing_ok=True)
        arguments = only or ["tests", *self.suite.arguments]
        with (self.folder / f"{name}.log").open("wb") as log:
            ended = subprocess.run(
                [
                    str(self.python),
                    "-m",
                    "pytest",
                    "-p",
                    "around",
                    "-q",
                    "-o",
                    "addopts=",
                    *arguments,
                ],
                cwd=self.source,
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith("GRACEFUL_")},
                    **PERIODS,
                    "PYTHONPATH": str(HERE),
                    "SUITES_AROUND": str(int(around)),
                    "SUITES_OUTCOMES": str(file),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if ended.returncode not in (0, 1):  # all passed, or some failed
            raise RuntimeError(f"the run broke off: {self.folder}/{name}.log")
        outcomes: dict[str, str] = json.loads(file.read_text())["outcomes"]
        return outcomes


def run(command: list[str], *, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdin=subprocess.DEVNULL)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def differing(plain: dict[str, str], around: dict[str, str]) -> list[str]:
    return sorted(test for test in plain | around if plain.get(test) != around.get(test))


def compare(checkout: Checkout) -> bool:
    """Run a suite both ways and print what differs; return whether each difference is meant."""
    suite = checkout.suite.name
    plain = checkout.outcomes(around=False)
    around = checkout.outcomes(around=True)
    found = differing(plain, around)
    if found:
        again = [checkout.outcomes(around=way, only=found) for way in (False, True)]
        found = [test for test in found if again[0].get(test) != again[1].get(test)]
    meant = known(suite)
    unmeant = [test for test in found if not any(each.covers(test) for each in meant)]
    gone = [each for each in meant if not any(each.covers(test) for test in found)]
    failing = sum(outcome == "failed" for outcome in plain.values())
    say(
        f"{checkout.source.name}: {len(plain)} tests, {failing} fail plain; {len(found)} differ "
        f"with the middleware, {len(found) - len(unmeant)} of them meant"
    )
    for test in unmeant:
        say(f"  differs: {test}: plain {plain.get(test)}, with it {around.get(test)}")
    for each in gone:
        say(f"  no longer differs: {each.pattern}")
    if unmeant:
        say(f"  why: {checkout.folder}/around-again.log")
    works = failing < len(plain) / 2  # the suite itself, in this environment
    return works and not unmeant and not gone


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.suites")
    parser.add_argument("names", nargs="*", help="of the suites; all of them without")
    parser.add_argument("--keep", action="store_true", help="use what has been fetched before")
    given = parser.parse_args()
    chosen = [Checkout(suite) for suite in SUITES if suite.name in given.names or not given.names]
    fine = []
    for checkout in chosen:
        if given.keep:
            run(
                [
                    str(checkout.python),
                    *["-m", "pip", "-q", "install", "--force-reinstall", "--no-deps", "."],
                ]
            )
        else:
            checkout.fetch()
        try:
            fine.append(compare(checkout))
        except RuntimeError as error:
            say(f"{checkout.suite.name}: {error}")
            fine.append(False)
    return 0 if fine and all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
