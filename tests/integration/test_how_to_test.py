"""The tests of the how-to page, run by a user's pytest: they tell a good server from a bad one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from support.docs import ROOT

from graceful_asgi.testing import LoadPlan

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "how-to" / "test-your-service.md"

PLAIN = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

def home(request):
    return PlainTextResponse("ok")

app = Starlette(routes=[Route("/", home)])
"""
GRACEFUL = f"""{PLAIN}
from graceful_asgi import GracefulMiddleware

app.add_middleware(GracefulMiddleware)
"""


def documented(beginning: str) -> str:
    """The example of the page that has this line in it."""
    examples = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    [found] = [example for example in examples if beginning in example]
    return str(found)


def installed(directory: Path) -> dict[str, str]:
    """Return an environment in which a distribution has the entry points of `pyproject.toml`.

    So that these are tested, and not those of whenever the environment was made.
    """
    given = re.search(
        r'^\[project\.entry-points\.pytest11\]\n"(.+)" = "(.+)"$',
        (ROOT / "pyproject.toml").read_text(),
        re.M,
    )
    assert given
    metadata = directory / "entry" / "graceful_asgi_entry-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: graceful-asgi-entry\n")
    (metadata / "entry_points.txt").write_text(f"[pytest11]\n{given[1]} = {given[2]}\n")
    paths = [str(metadata.parent), str(ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def outcome(directory: Path, app: str, test: str) -> subprocess.CompletedProcess[str]:
    """Run the documented test on an app, as a user's pytest does."""
    (directory / "main.py").write_text(app)
    (directory / "test_stop.py").write_text(documented(test))
    env = {**installed(directory), "GRACEFUL_LAME_DUCK_PERIOD": "0.5"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_stop.py"]
    return subprocess.run(
        command, cwd=directory, env=env, capture_output=True, text=True, timeout=100, check=False
    )


def test_the_documented_test_passes_with_the_middleware(tmp_path: Path) -> None:
    ended = outcome(tmp_path, GRACEFUL, "test_a_stop_loses_no_request")
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout


def test_the_documented_test_fails_on_plain_uvicorn(tmp_path: Path) -> None:
    ended = outcome(tmp_path, PLAIN, "test_a_stop_loses_no_request")
    assert ended.returncode == 1, ended.stdout
    assert "1 failed" in ended.stdout
    assert "AssertionError" in ended.stdout


def test_the_documented_test_without_load_tells_them_apart(tmp_path: Path) -> None:
    passed = outcome(tmp_path, GRACEFUL, "test_routers_have_time")
    assert passed.returncode == 0, passed.stdout
    failed = outcome(tmp_path, PLAIN, "test_routers_have_time")
    assert failed.returncode == 1, failed.stdout


def test_a_documented_plan_is_one() -> None:
    namespace: dict[str, object] = {}
    exec(documented("PLAN = "), namespace)
    assert isinstance(namespace["PLAN"], LoadPlan)


def test_a_suite_that_names_the_plugin_itself_has_it_once(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(GRACEFUL)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["graceful_asgi.testing"]')
    (tmp_path / "test_it.py").write_text("def test_it(threaded_server, server_process): pass")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=installed(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_documented_test_in_a_thread_passes(tmp_path: Path) -> None:
    ended = outcome(tmp_path, GRACEFUL, "test_the_app_answers_on_a_real_port")
    assert ended.returncode == 0, ended.stdout
