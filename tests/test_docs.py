"""The documentation: its examples run, and its generated parts are what the code says."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import runpy
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.docs import PAGES, ROOT, examples

from graceful_asgi import DrainPolicy, GracefulMiddleware, log

if TYPE_CHECKING:
    from pathlib import Path


RUN_ELSEWHERE = (
    *("first-rollout.md", "frameworks.md", "mcp.md"),
    *("opentelemetry.md", "read-the-log.md", "socketio.md"),
)
"""Their examples are for processes of their own, in which `integration/` runs each."""


def all_examples() -> list[Any]:
    return [
        pytest.param(example, id=f"{page.relative_to(ROOT)}:{line}")
        for page in PAGES
        if page.name not in RUN_ELSEWHERE
        for line, example in examples(page)
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("example", all_examples())
async def test_an_example_serves_with_the_middleware_outermost(example: str) -> None:
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "<example>", "exec"), namespace)
    app = namespace["app"]
    assert app.user_middleware[0].cls is GracefulMiddleware
    paths = [route.path for route in app.routes]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/export", "/readyz"):
            if path in paths or (path == "/readyz" and "readiness_path" in example):
                assert (await client.get(path)).status_code == 200


def test_the_generated_parts_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")  # as Python does for a script
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["generated"]()
    path: Path
    for path, text in generated.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make docs`"


def test_the_readme_states_the_default_of_every_field_of_the_policy() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", readme, re.M))
    expected = {
        field.name: str(field.default)
        if not isinstance(field.default, str)
        else f'`"{field.default}"`'
        for field in dataclasses.fields(DrainPolicy)
    }
    assert rows == expected


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def logged_events() -> dict[str, set[str]]:
    """Return the events of `log.py`, each with the names of its extras."""
    events: dict[str, set[str]] = {}
    for call in ast.walk(ast.parse(inspect.getsource(log))):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "_drain":
            given = {word.arg: word.value for word in call.keywords}
            extras = {name for name in given if name not in (None, "event", "exc")}
            event = given["event"]
            if isinstance(event, ast.Constant) and isinstance(event.value, str):
                events[f"drain.{event.value}"] = {str(name) for name in extras}
    return events


def test_every_event_of_the_log_is_in_the_reference_with_its_extras() -> None:
    page = (ROOT / "docs" / "reference" / "log.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(drain\.\w+)` \| .* \| (.*) \|$", page, re.M)
    listed = {event: set(re.findall(r"`(\w+)`", extras)) for event, extras in rows}
    for event, extras in logged_events().items():
        assert event in listed, f"docs/reference/log.md has no row for {event}"
        assert extras <= listed[event], event


def test_every_event_of_the_parent_of_workers_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "log.md").read_text(encoding="utf-8")
    source = (ROOT / "graceful_asgi" / "_run" / "supervisor.py").read_text(encoding="utf-8")
    said = set(re.findall(r'\b_?(?:say|warn)\(\s*"(\w+)"', source))
    assert len(said) > 8
    assert set(re.findall(r"`supervisor\.(\w+)`", page)) == said


def warnings() -> dict[str, set[str]]:
    """Return the text of each warning in the source, with the beginnings of its clauses."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "graceful_asgi").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            function = ast.unparse(call.func)
            is_parents = function == "self._warn" and path.name == "supervisor.py"
            if is_parents or function == "log.caution":
                text = call.args[is_parents]  # behind its event
                if isinstance(text, ast.JoinedStr):
                    text = text.values[-1]
                assert isinstance(text, ast.Constant), f"{path.name}:{text.lineno}"
                clauses = (
                    clause.split() for clause in re.split("%[sdrg]|[:;,.`]", str(text.value))
                )
                if begun := {" ".join(words[:5]) for words in clauses if len(words) > 3}:
                    found[str(text.value)] = begun
    return found


def test_every_warning_is_on_the_page_for_troubleshooting() -> None:
    page = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    assert len(warnings()) > 15
    missing = [text for text, begun in warnings().items() if not any(b in page for b in begun)]
    assert missing == []


def test_every_file_that_is_named_exists() -> None:
    pages = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(
            r"`((?:graceful_asgi|tests|docs)/[\w./-]+|\.ci/run)`", page.read_text(encoding="utf-8")
        )
    }
    assert len(named) > 20
    assert {(page, path) for page, path in named if not (ROOT / path).exists()} == set()
